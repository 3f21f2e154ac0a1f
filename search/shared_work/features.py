"""Features of a search's images under its frozen backbones, made when a trial first asks for them.

Every trial gets the same arrays: features of the plain training and validation images (all blocks
of the backbone, one pass), activations of rounds of light views, and a bank of weighted views, of
which one serves every flip mode and rotation factor. The workers that need them make them together
(`board`), from decoded pixels.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.families.family import (
    Activations,
    Backbone,
    Bank,
    CutActivations,
    Request,
    ViewBank,
)
from pawtune.models.features import light_views
from pawtune.models.features.augmented_views import ViewTable, make_view_table
from pawtune.search.cluster.connection import ResourcePlan, claim_process
from pawtune.search.config.needs import banked_backbones, featured_backbones, tuned_backbones
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.board import Arrays, Job, obtain, start_board
from pawtune.search.shared_work.pixels import PixelRefs, PixelStore, device_of, shared_policy

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd
    from pawtune.models.features.activations import ActivationEncoder
    from pawtune.models.features.tap_encoder import TapEncoder
    from pawtune.models.features.view_encoder import ViewEncoder

# Raise it when features are computed differently.
CODE_VERSION = 5
SHARD_IMAGES = 256  # 1 s of one core at 160 px: fine progress, little overhead
SHARD_VIEWS = 1024  # of a feature bank

Features = dict[str, np.ndarray]  # by name, see TapEncoder; (N, ...) float16


@dataclass(frozen=True)
class FeatureStore:
    """How a worker comes by features.

    Attributes:
        board: The search's board, see `start_board`.
        cache: pawtune's cache folder on the driver's machine.
        content: Hash of the images' contents in their order, training images first.
        num_train: Training images.
        num_validation: Validation images.
        policy: Keras dtype policy to compute under, the same on all workers.
        seed: Seed of the light views.
        threads: TensorFlow threads of a worker.
        device: Device that computes them, one of `pixels.DEVICES`.
        pixels: Images by their side in pixels; those whose features are cached may be missing.
        backbones: Frozen networks by (name, image size).
        whole: Whether the validation images are trained on too, as a refit does; the first of
            them then stands for the validation split.
        views: Views of an image in a feature bank; 0: banks are switched off.
        room: Bytes that the activations of one cut may take; those that take more are computed
            live, batch by batch.
    """

    board: Any
    cache: Path
    content: str
    num_train: int
    num_validation: int
    policy: str
    seed: int
    threads: int
    pixels: Mapping[int, PixelRefs] = field(default_factory=dict)
    backbones: Mapping[Backbone, StoredBackbone] = field(default_factory=dict)
    device: str = "cpu"
    whole: bool = False
    views: int = 0
    room: int = 0

    @property
    def _num_trained(self) -> int:
        """Images that are trained on."""
        return self.num_train + (self.num_validation if self.whole else 0)

    def plain(self, backbone: Backbone) -> tuple[Features, Features]:
        """Features of the plain training images, and of the validation images."""
        job = self.plain_job(backbone)
        make = partial(self._make_plain, backbone)
        features = obtain(self.board, job, make)
        n = self.num_train
        train = {name: array[: None if self.whole else n] for name, array in features.items()}
        stop = n + 1 if self.whole else None
        return train, {name: array[n:stop] for name, array in features.items()}

    def bank(self, request: ViewBank) -> Bank:
        """Features of augmented views, and those of the plain validation images."""
        backbone, name = request.backbone, {"average": "average", "max": "maximum"}[request.pooling]
        views = obtain(self.board, self.bank_job(backbone), partial(self._make_bank, backbone))
        table = _view_table(self._num_trained, self.views, self.seed)
        return Bank(table, views[name], self.plain(backbone)[1][name])

    def derived(self, backbone: Backbone, what: str, make: Callable[[], Arrays]) -> Features:
        """Something computed of a backbone's plain features, once for all trials.

        Args:
            backbone: Backbone that makes the features.
            what: Names it, with all that it depends on besides them.
            make: Computes it.
        """
        folder = self._folder("derived", backbone, what=what, whole=self.whole)
        job = Job(f"{what} of {_shown(backbone)}", folder, rows=1, shard_rows=1, unit="steps")
        return obtain(self.board, job, lambda start, stop: make())

    def block_ends(self, backbone: Backbone) -> list["BlockEnd"]:
        """Ends of a backbone's blocks, without their layers' names; found once for all trials."""
        from pawtune.models.backbones.backbone_graph import BlockEnd

        def make() -> Arrays:
            ends = self._encoder(backbone).block_ends
            return {
                "numbers": np.array([end.number for end in ends]),
                "shapes": np.array([end.shape for end in ends]),
                "shares": np.array([end.share_above for end in ends]),
            }

        found = self.derived(backbone, "block ends", make)
        rows = zip(found["numbers"], found["shapes"], found["shares"], strict=True)
        return [
            BlockEnd(int(number), "", (int(height), int(width), int(channels)), float(share))
            for number, (height, width, channels), share in rows
        ]

    def activations(self, request: Activations, cut: "BlockEnd") -> CutActivations:
        """Activations at a cut: kept, or live where they do not fit."""
        from pawtune.models.features.activations import KeptActivations, LiveActivations

        backbone, n = request.backbone, self.num_train
        rows, last = self._num_trained, n + 1 if self.whole else None
        if self.bytes_of(request, cut) > self.room:
            encoder = self._cut_encoder(backbone, cut.number)
            images = self._images(backbone[1], 0, rows)
            live = LiveActivations(encoder, images, request.rounds, self.seed)
            shown = self._images(backbone[1], n, last or n + self.num_validation)
            return CutActivations("live", live, encoder.encode(shown))
        rounds = []
        for number in range(request.rounds):
            job = self.activation_job(backbone, cut, number)
            make = partial(self._make_activations, backbone, cut.number, number)
            rounds.append(obtain(self.board, job, make)["maps"])
        plain = rounds[0]
        kept = KeptActivations([plain[:rows], *rounds[1:]])
        return CutActivations("kept", kept, plain[n:last])

    def bytes_of(self, request: Activations, cut: "BlockEnd") -> int:
        """What the activations of a request take when they are kept."""
        rows = request.rounds * self.num_train + self.num_validation
        return rows * prod(cut.shape) * 2

    def activation_job(self, backbone: Backbone, cut: "BlockEnd", number: int) -> Job:
        """The job of one round of activations."""
        rows = self._num_trained if number else self.num_train + self.num_validation
        view = {"round": number, "seed": self.seed, "augmentation": vars(light_views.DEFAULT)}
        folder = self._folder(
            "activations", backbone, cut=cut.number, rows=rows, **(view if number else {})
        )
        name = f"activations of {_shown(backbone)} after block {cut.number}"
        megabytes = rows * prod(cut.shape) * 2 / 1e6
        shown = f"{name}, {f'view {number}' if number else 'plain'} ({megabytes:.0f} MB)"
        return Job(shown, folder, rows, SHARD_IMAGES)

    def plain_job(self, backbone: Backbone) -> Job:
        """The job of `plain`."""
        folder = self._folder("features", backbone)
        total = self.num_train + self.num_validation
        return Job(f"features of {_shown(backbone)}", folder, total, SHARD_IMAGES)

    def bank_job(self, backbone: Backbone) -> Job:
        """The job of `bank`."""
        rows = self._num_trained
        folder = self._folder("banks", backbone, rows=rows, views=self.views, seed=self.seed)
        step = max(1, SHARD_VIEWS // self.views)
        return Job(f"feature bank of {_shown(backbone)}", folder, rows, step)

    def _folder(self, kind: str, backbone: Backbone, **more: object) -> Path:
        name, size = backbone
        parts = {
            "content": self.content,
            "splits": [self.num_train, self.num_validation],
            "backbone": name,
            "image_size": size,
            "weights": self.backbones[backbone].source_hash,
            "policy": self.policy,
            "device": self.device,
            "code": CODE_VERSION,
            "libraries": {library: version(library) for library in ("tensorflow", "keras")},
            **more,
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
        return self.cache / kind / key

    def _make_plain(self, backbone: Backbone, start: int, stop: int) -> Arrays:
        return self._encoder(backbone).encode(self._images(backbone[1], start, stop))

    def _make_bank(self, backbone: Backbone, start: int, stop: int) -> Arrays:
        weights = str(self.backbones[backbone].file())
        encoder = _view_encoder(backbone, weights, self.policy, self.threads)
        table = _view_table(self._num_trained, self.views, self.seed)
        bank = encoder.encode(self._images(backbone[1], start, stop), table.rows(start, stop))
        return {"average": bank.average, "maximum": bank.maximum}

    def _make_activations(
        self, backbone: Backbone, cut: int, number: int, start: int, stop: int
    ) -> Arrays:
        images = self._images(backbone[1], start, stop)
        views = None
        if number:
            views = light_views.round_transforms(number, start, stop, backbone[1], self.seed)
        return {"maps": self._cut_encoder(backbone, cut).encode(images, views)}

    def _cut_encoder(self, backbone: Backbone, cut: int) -> "ActivationEncoder":
        weights = str(self.backbones[backbone].file())
        return _cut_encoder(backbone, weights, cut, self.policy, self.threads)

    def _images(self, image_size: int, start: int, stop: int) -> np.ndarray:
        """Rows of the training images followed by the validation images."""
        return self.pixels[image_size].both.part(start, stop).open()

    def _encoder(self, backbone: Backbone) -> "TapEncoder":
        weights = str(self.backbones[backbone].file())
        return _encoder(backbone, weights, self.policy, self.threads)


def share_features(
    config: SearchConfig,
    manifest: Manifest,
    plan: ResourcePlan,
    needs: Collection[Request],
    backbones: Mapping[Backbone, StoredBackbone],
    pixels: PixelStore,
) -> FeatureStore | None:
    """The features of a search: decodes what they are made of, and makes none of them yet.

    Args:
        config: The search.
        manifest: Its images.
        plan: Resources that each trial gets.
        needs: Shared work of all trials.
        backbones: Their backbones.
        pixels: The decoded images.

    Returns:
        None where no trial may use any.
    """
    featured = featured_backbones(needs)
    if not featured:
        return None
    train, validation = manifest.split("train"), manifest.split("validation")
    store = FeatureStore(
        board=start_board(),
        cache=cache_dir(),
        content=content_of((*train, *validation)),
        num_train=len(train),
        num_validation=len(validation),
        policy=shared_policy(config.speed.precision, plan),
        seed=config.seed,
        threads=plan.threads,
        backbones={key: backbones[key] for key in featured},
        device=device_of(plan, ray.nodes()),
        views=config.bank_views,
        room=room_for_activations(cache_dir()),
    )
    used = {key for key in featured if not store.plain_job(key).folder.exists()}
    used |= {*tuned_backbones(needs), *banked_backbones(needs)}
    return replace(store, pixels={size: pixels.at(size) for _, size in used})


def content_of(entries: Sequence[ManifestEntry]) -> str:
    """One hash of what images' pixels depend on, in their order."""
    return hashlib.sha256("\n".join(entry.pixels_key for entry in entries).encode()).hexdigest()


def room_for_activations(cache: Path) -> int:
    """Half of what the cache's disk has, and of the memory of the smallest node that trains.

    A batch is drawn from all of them: what memory does not hold is read from the disk each time.
    Nodes that an autoscaler is yet to add are not counted.
    """
    cache.mkdir(parents=True, exist_ok=True)
    memory = [
        node["Resources"]["memory"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU") and "memory" in node["Resources"]
    ]
    return int(min([shutil.disk_usage(cache).free, *memory])) // 2


@lru_cache(maxsize=1)
def _view_table(num_images: int, views: int, seed: int) -> ViewTable:
    return make_view_table(num_images, views, seed)


def _loaded(backbone: Backbone, weights: str, threads: int) -> "tuple[keras.Model, bool]":
    """A frozen backbone in a worker process, and whether that has a GPU."""
    from pawtune.models import precision
    from pawtune.models.backbones.frozen_backbone import load_backbone

    claim_process(threads)
    return load_backbone(*backbone, Path(weights)), precision.has_gpu()


# Each is built once in a worker process, for all its shards.
@lru_cache(maxsize=1)
def _encoder(backbone: Backbone, weights: str, policy: str, threads: int) -> "TapEncoder":
    from pawtune.models.features.tap_encoder import TapEncoder

    model, has_gpu = _loaded(backbone, weights, threads)
    return TapEncoder(model, backbone.name, policy, has_gpu)


@lru_cache(maxsize=1)
def _view_encoder(backbone: Backbone, weights: str, policy: str, threads: int) -> "ViewEncoder":
    from pawtune.models.features.view_encoder import ViewEncoder

    model, has_gpu = _loaded(backbone, weights, threads)
    return ViewEncoder(model, backbone.name, policy, has_gpu)


@lru_cache(maxsize=1)
def _cut_encoder(
    backbone: Backbone, weights: str, cut: int, policy: str, threads: int
) -> "ActivationEncoder":
    from pawtune.models.features.activations import ActivationEncoder

    model, has_gpu = _loaded(backbone, weights, threads)
    return ActivationEncoder(model, backbone.name, cut, policy, has_gpu)


def _shown(backbone: Backbone) -> str:
    return f"{backbone[0]} at {backbone[1]} px"
