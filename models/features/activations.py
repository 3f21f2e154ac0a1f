"""Activations of images at a cut of a frozen backbone: computed live, or kept in arrays.

    encoder = ActivationEncoder(load_backbone("MobileNetV2", 224, weights), "MobileNetV2", cut=13)
    rounds = [encoder.encode(images)]
    rounds += [encoder.encode(images, round_transforms(1, 0, len(images), 224, seed=0))]
    kept = KeptActivations(rounds)
    batch = kept(np.array([3, 1]), np.array([0, 1]))  # image 3 as it is, image 1 augmented

What lies below the cut is the same in every epoch: it is computed once for each view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import split_at
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.features.frozen_pass import FrozenPass, preparation_of
from pawtune.models.features.light_views import round_transforms
from pawtune.models.features.step_size import images_per_step

Activations = NDArray[np.float16]
# (B,) images and (B,) rounds, int64 → (B, h, w, c)
ActivationSource = Callable[[NDArray[np.int64], NDArray[np.int64]], Activations]

CPU_IMAGES = 8  # a step's activations should fit the cache of a core


class ActivationEncoder:
    """Makes activations with one frozen backbone; build it once in a process."""

    def __init__(
        self,
        backbone: keras.Model,
        name: str,
        cut: int,
        policy: str = "float32",
        has_gpu: bool = False,
    ) -> None:
        """Cut the backbone and trace the function.

        Args:
            backbone: result of `load_backbone`, (N, S, S, 3) preprocessed pixels → (N, h, w, F).
            name: name of the backbone in `keras.applications`, for its preprocessing.
            cut: number of the block end, see `split_at`; 0 gives preprocessed pixels.
            policy: Keras dtype policy to compute under; see `resolve_precision`.
            has_gpu: whether this process computes on a GPU.
        """
        below, _ = split_at(fold_backbone(backbone, policy), cut)
        below.trainable = False
        self.image_size = int(backbone.input_shape[1])
        self.shape: tuple[int, int, int] = below.output_shape[1:]
        images = images_per_step(self.image_size, has_gpu) if has_gpu else CPU_IMAGES
        self._pass = FrozenPass(preparation_of(backbone, name), below, images, has_gpu)

    def encode(
        self, images: NDArray[np.uint8], transforms: NDArray[np.float32] | None = None
    ) -> Activations:
        """Activations (n, h, w, c) of images, or of one view of each.

        Args:
            images: (n, S, S, 3) uint8, 0 to 255.
            transforms: (n, 1, 6) float32, see `view_transforms`; None: the plain images.

        Raises:
            ModelError: images of another size.
        """
        return self._pass(images, transforms)


class KeptActivations:
    """Activations of rounds of views, in memory or memory-mapped; of them only batches are read."""

    def __init__(self, rounds: Sequence[Activations]) -> None:
        """Take the rounds.

        Args:
            rounds: (N, h, w, c) float16 for each view of the images, the plain one first.
        """
        self._rounds = rounds

    def __call__(self, images: NDArray[np.int64], rounds: NDArray[np.int64]) -> Activations:
        """(B, h, w, c): of each image the view of the round beside it."""
        batch = np.empty((len(images), *self._rounds[0].shape[1:]), np.float16)
        for number in np.unique(rounds):
            places = np.flatnonzero(rounds == number)
            batch[places] = self._rounds[number][images[places]]
        return batch


class LiveActivations:
    """The same activations, computed for each batch: where they cannot be kept."""

    def __init__(
        self, encoder: ActivationEncoder, images: NDArray[np.uint8], num_rounds: int, seed: int
    ) -> None:
        """Draw the views.

        Args:
            encoder: encoder for the backbone and the cut.
            images: (N, S, S, 3) uint8; only batches are read.
            num_rounds: the plain images and one augmented view of each for each round after.
            seed: seed of the views, see `round_transforms`.
        """
        self._encoder = encoder
        self._images = images
        self._transforms = [
            round_transforms(number, 0, len(images), encoder.image_size, seed)
            for number in range(1, num_rounds)
        ]

    def __call__(self, images: NDArray[np.int64], rounds: NDArray[np.int64]) -> Activations:
        """(B, h, w, c): of each image the view of the round beside it."""
        batch = np.empty((len(images), *self._encoder.shape), np.float16)
        for number in np.unique(rounds):
            places = np.flatnonzero(rounds == number)
            chosen = images[places]
            transforms = self._transforms[number - 1][chosen] if number else None
            batch[places] = self._encoder.encode(self._images[chosen], transforms)
        return batch
