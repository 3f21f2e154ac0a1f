"""Features of all views of images, for a feature bank.

    encoder = ViewEncoder(load_backbone("MobileNetV2", 160, weights), "MobileNetV2")
    table = make_view_table(len(images), seed=0)
    bank = encoder.encode(images[:100], table.rows(0, 100))

On CPUs run one process of one thread for each core: two make a view in 0.94 ms, one process of
two threads in 1.95 ms (MobileNetV2, 160 px; `benchmarks/bank_speed.py`).
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.features.augmented_views import ViewTable
from pawtune.models.features.feature_bank import FeatureBank
from pawtune.models.features.frozen_pass import FrozenPass, preparation_of
from pawtune.models.features.step_size import images_per_step
from pawtune.models.features.view_transforms import view_transforms


class ViewEncoder:
    """Makes features of views with one frozen backbone; build it once in a process."""

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
        folded, layers = fold_backbone(backbone, policy), keras.layers
        # float32 under every policy: an average over 25 places loses bits in bfloat16.
        kinds = layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D
        pooled = layers.Concatenate(dtype="float32")(
            [kind(dtype="float32")(folded.output) for kind in kinds]
        )
        size = int(backbone.input_shape[1])
        self._pass = FrozenPass(
            preparation_of(backbone, name),
            keras.Model(folded.input, pooled),
            images_per_step(size, has_gpu),
            has_gpu,
        )

    def encode(self, images: NDArray[np.uint8], table: ViewTable) -> FeatureBank:
        """Features of every view of every image.

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            table: the views of these images, `table.rows(start, stop)` of the whole.

        Raises:
            ModelError: images of another shape or number.
        """
        transforms = view_transforms(table.angles, table.mirrored, self._pass.image_size)
        views = [self._pass(images, transforms[:, [view]]) for view in range(table.num_views)]
        average, maximum = np.split(np.stack(views, axis=1), 2, axis=2)
        return FeatureBank(average, maximum, table)
