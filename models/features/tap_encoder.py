"""Features of images from all blocks of a frozen backbone, in one compiled pass.

    encoder = TapEncoder(load_backbone("MobileNetV2", 160, weights), "MobileNetV2")
    plain = encoder.encode(images)
    turned = encoder.encode(images, round_transforms(1, 0, len(images), 160, seed=0))

On CPUs run one process of one thread for each core, as with `view_encoder`.
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import find_block_ends
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.taps import tap_columns, tap_model
from pawtune.models.features.frozen_pass import FrozenPass, preparation_of
from pawtune.models.features.step_size import images_per_step

Features = dict[str, NDArray[np.float16]]


class TapEncoder:
    """Makes features of images with one frozen backbone; build it once in a process.

    `encode` gives, by name: "average" and "maximum", (n, F) over the places of the last feature
    map; "inner" and "deviations", (n, sum of widths): averages and standard deviations of the
    other blocks' outputs from bottom to top. All are float16.

    Attributes:
        image_size: side of the images in pixels.
        block_ends: ends of the backbone's blocks, from bottom to top.
    """

    def __init__(
        self, backbone: keras.Model, name: str, policy: str = "float32", has_gpu: bool = False
    ) -> None:
        """Rewrite the backbone for inference and trace the function.

        Args:
            backbone: result of `load_backbone`, (N, S, S, 3) preprocessed pixels → (N, h, w, F).
            name: name of the backbone in `keras.applications`, for its preprocessing.
            policy: Keras dtype policy to compute under; see `resolve_precision`.
            has_gpu: whether this process computes on a GPU.
        """
        self.image_size = int(backbone.input_shape[1])
        self.block_ends = find_block_ends(backbone)
        self._columns = tap_columns(self.block_ends)
        self._pass = FrozenPass(
            preparation_of(backbone, name),
            tap_model(fold_backbone(backbone, policy)),
            images_per_step(self.image_size, has_gpu),
            has_gpu,
        )

    def encode(
        self, images: NDArray[np.uint8], transforms: NDArray[np.float32] | None = None
    ) -> Features:
        """Features of images, or of one view of each.

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            transforms: (n, 1, 6) float32, see `view_transforms`; None: the plain images.

        Raises:
            ModelError: images of another size.
        """
        taps = self._pass(images, transforms)
        return {
            name: np.ascontiguousarray(taps[:, columns]) for name, columns in self._columns.items()
        }
