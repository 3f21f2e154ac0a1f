"""A trial that trains on augmented pixels: any net, or a head behind its frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from pawtune.models.build import build_network, make_optimizer
from pawtune.models.families.family import BuiltTrial, Pixels, TrialData
from pawtune.models.model_spec import ModelSpec, TrainSpec
from pawtune.models.training.epoch_metrics import EpochResult
from pawtune.models.training.live_training import train_live


def pixel_trial(
    model: ModelSpec,
    train: TrainSpec,
    data: TrialData,
    core: keras.Model,
    extractor: keras.Model | None = None,
) -> BuiltTrial:
    """The trial of a core on the pixels of its model's image size.

    Args:
        model: image size and augmentation.
        train: how it is trained.
        data: pixels and labels.
        core: gives logits of pixels 0..255, or of the extractor's features.
        extractor: (N, S, S, 3) pixels → (N, F) frozen features; None: the core takes pixels.
    """
    network = build_network(
        model, core, extractor, seed=train.seed, with_half=train.half_size_share > 0
    )
    optimizer = make_optimizer(train, len(data.train_labels))

    def train_from(start_epoch: int) -> Iterator[EpochResult]:
        images, val_images = data.pixels(Pixels(model.image_size))
        return train_live(
            network,
            images,
            data.train_labels,
            val_images,
            data.val_labels,
            train,
            optimizer=optimizer,
            start_epoch=start_epoch,
        )

    return BuiltTrial("live", core, optimizer, train_from)
