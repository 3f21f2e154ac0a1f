"""Pooled features of views: render, preprocess, backbone and pooling in one compiled function.

    encoder = ViewEncoder(load_backbone("MobileNetV2", 160, weights), "MobileNetV2")
    table = make_view_table(len(images), seed=0)
    shard = encoder.encode(images[:100], table.rows(0, 100))

On CPUs run one process of one thread for each core: two make a view in 0.94 ms, one process of
two threads in 1.95 ms (MobileNetV2, 160 px; `benchmarks/bank_speed.py`). XLA compiles the rendering
and preprocessing only: the backbone is 10 times slower under it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.errors import ModelError
from pawtune.models.features.augmented_views import ViewTable
from pawtune.models.features.feature_bank import Shard
from pawtune.models.features.frozen_pass import preparation_of
from pawtune.models.features.step_size import images_per_step, in_steps
from pawtune.models.features.view_rendering import render_views
from pawtune.models.features.view_transforms import view_transforms


class ViewEncoder:
    """Makes features of views with one frozen backbone; build it once in a process."""

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
        self.feature_width = int(backbone.output_shape[-1])
        self._views_per_step = images_per_step(self.image_size, has_gpu)
        self._encode = _compile(
            preparation_of(backbone, name),
            fold_backbone(backbone, policy),
            compile_rendering=not has_gpu,
        )

    def encode(self, images: NDArray[np.uint8], table: ViewTable) -> Shard:
        """Features of every view of every image.

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            table: the views of these images, `table.rows(start, stop)` of the whole.

        Raises:
            ModelError: images of another shape or number.
        """
        shape = (table.num_images, self.image_size, self.image_size, 3)
        if images.shape != shape or images.dtype != np.uint8:
            raise ModelError(
                f"this shard's images must be {shape} uint8, received {images.shape} "
                f"{images.dtype}: decode them at {self.image_size} px, and give the table's "
                "rows of just these images"
            )
        transforms = view_transforms(table.angles, table.mirrored, self.image_size)
        shard = Shard(*(self._empty(table) for _ in range(2)))

        def encode(part: slice) -> None:
            average, maximum = self._encode(images[part], transforms[part])
            shard.average[part], shard.maximum[part] = average.numpy(), maximum.numpy()

        step = max(1, self._views_per_step // table.num_views)
        held = in_steps(encode, len(images), step)
        if held < step:  # the next shard begins with what this one ended with
            self._views_per_step = held * table.num_views
        return shard

    def _empty(self, table: ViewTable) -> NDArray[np.float16]:
        return np.empty((table.num_images, table.num_views, self.feature_width), np.float16)


def _compile(preparation: keras.Model, backbone: keras.Model, compile_rendering: bool) -> Any:
    """(B, S, S, 3) uint8, (B, V, 6) float32 → two (B, V, F) float16 tensors."""
    # Constants instead of variables: TensorFlow then casts and lays out the weights once.
    frozen = [variable.numpy() for variable in backbone.non_trainable_variables]
    largest = np.finfo(np.float16).max

    def render(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
        views = render_views(images, transforms)
        return preparation(tf.reshape(views, (-1, *backbone.input_shape[1:])))

    render = tf.function(render, jit_compile=compile_rendering)

    def encode(images: tf.Tensor, transforms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = [tf.constant(value) for value in frozen]
        maps, _ = backbone.stateless_call([], weights, render(images, transforms), training=False)
        maps = tf.cast(maps, tf.float32)  # an average over 25 places loses bits in bfloat16
        shape = (*tf.unstack(tf.shape(transforms)[:2]), maps.shape[-1])
        pooled = tf.reduce_mean(maps, axis=(1, 2)), tf.reduce_max(maps, axis=(1, 2))
        average, maximum = (
            tf.reshape(tf.cast(tf.clip_by_value(p, -largest, largest), tf.float16), shape)
            for p in pooled
        )
        return average, maximum

    return tf.function(
        encode,
        input_signature=[
            tf.TensorSpec((None, *backbone.input_shape[1:]), tf.uint8),
            tf.TensorSpec((None, None, 6), tf.float32),
        ],
    )
