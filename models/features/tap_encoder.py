"""Features of images from all blocks of a frozen backbone, in one compiled pass.

    encoder = TapEncoder(load_backbone("MobileNetV2", 160, weights), "MobileNetV2")
    plain = encoder.encode(images)
    turned = encoder.encode(images, round_transforms(1, 0, len(images), 160, seed=0))

On CPUs run one process of one thread for each core, as with `view_encoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import build_tap_model, tap_parts
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import preprocess
from pawtune.models.errors import ModelError
from pawtune.models.features.step_size import images_per_step, in_steps
from pawtune.models.features.view_rendering import render_views

Features = dict[str, NDArray[np.float16]]

ARRAYS = ("inner", "average", "maximum")


class TapEncoder:
    """Makes features of images with one frozen backbone; build it once in a process.

    `encode` gives, by name: "average" and "maximum", (n, F) over the places of the last feature
    map; "inner", (n, sum of widths): the averages of the other blocks' outputs from bottom to top.
    All are float16.
    """

    def __init__(
        self, backbone: keras.Model, name: str, policy: str = "float32", has_gpu: bool = False
    ) -> None:
        """Rewrite the backbone for inference and trace the function.

        Args:
            backbone: of `load_backbone`, (N, S, S, 3) preprocessed pixels → (N, h, w, F).
            name: of the backbone in `keras.applications`, for its preprocessing.
            policy: Keras dtype policy to compute under; see `resolve_precision`.
            has_gpu: whether this process computes on a GPU.
        """
        self.image_size = int(backbone.input_shape[1])
        self._images_per_step = images_per_step(self.image_size, has_gpu)
        taps = build_tap_model(fold_backbone(backbone, policy))
        self._parts = tap_parts(backbone)
        inputs = keras.Input(backbone.input_shape[1:], dtype="float32", name="pixels")
        preparation = keras.Model(inputs, preprocess(name, inputs))
        self._encode, self._encode_views = compile_passes(preparation, taps.model, not has_gpu)

    def encode(
        self, images: NDArray[np.uint8], transforms: NDArray[np.float32] | None = None
    ) -> Features:
        """Features of images, or of one view of each.

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            transforms: (n, 1, 6) float32, see `view_transforms`; None: the plain images.

        Raises:
            ModelError: Images of another size.
        """
        side = self.image_size
        if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
            raise ModelError(
                f"images must be (n, {side}, {side}, 3) uint8, received {images.shape} "
                f"{images.dtype}: decode them at {side} px"
            )
        steps = []

        def encode(part: slice) -> None:
            if transforms is None:
                steps.append(self._encode(images[part]).numpy())
            else:
                steps.append(self._encode_views(images[part], transforms[part]).numpy())

        self._images_per_step = in_steps(encode, len(images), self._images_per_step)
        taps = np.concatenate(steps)
        return {
            name: np.ascontiguousarray(taps[:, columns]) for name, columns in self._parts.items()
        }


def compile_passes(
    preparation: keras.Model, frozen: keras.Model, compile_rendering: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Passes of images, and of views of them, through a model that is not trainable.

    Args:
        preparation: (B, S, S, 3) pixels 0..255 → the same, preprocessed.
        frozen: (B, S, S, 3) → (B, ...); its weights are taken as they are now.
        compile_rendering: of views, by XLA.

    Returns:
        (B, S, S, 3) uint8 → (B, ...) float16; and the same with transforms, (B, 1, 6) float32.
    """
    # Constants instead of variables: TensorFlow then casts and lays out the weights once.
    values = [variable.numpy() for variable in frozen.non_trainable_variables]
    largest = np.finfo(np.float16).max
    shape = frozen.input_shape[1:]
    render = tf.function(render_views, jit_compile=compile_rendering)

    def features_of(pixels: tf.Tensor) -> tf.Tensor:
        weights = [tf.constant(value) for value in values]
        outputs, _ = frozen.stateless_call([], weights, preparation(pixels), training=False)
        return tf.cast(tf.clip_by_value(outputs, -largest, largest), tf.float16)

    def encode(images: tf.Tensor) -> tf.Tensor:
        return features_of(tf.cast(images, tf.float32))

    def encode_views(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
        return features_of(tf.ensure_shape(render(images, transforms)[:, 0], (None, *shape)))

    images = tf.TensorSpec((None, *shape), tf.uint8)
    return (
        tf.function(encode, input_signature=[images]),
        tf.function(
            encode_views, input_signature=[images, tf.TensorSpec((None, 1, 6), tf.float32)]
        ),
    )
