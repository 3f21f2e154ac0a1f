"""A scout: ranks backbones by a head that is solved on a few training images.

The full passes (features of all images, activations of their views) are then made for the best
backbones only. The sample is a part of the images, so that a backbone that is left out costs
little; its head's accuracy is the exact leave-one-out one, so no image is set aside.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.backbones.backbone_weights import weights_by_backbone
from pawtune.models.families.domains import Choices, values_of
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import find_family
from pawtune.search.cluster.connection import claim_process
from pawtune.search.cluster.task_result import result
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.pixels import PixelRefs, PixelStore
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json

SHARE = 0.08  # of the training images
LEAST, MOST = 64, 512  # images
_CLEARLY = 3.0  # standard errors by which a backbone is behind the best one
_REGULARISATION = 0.3  # of the ridge head, on all blocks' averages, as in the heads' portfolio


@dataclass(frozen=True)
class Scouted:
    """What the scout found of one backbone.

    Attributes:
        name: The backbone.
        accuracy: Leave-one-out accuracy of the head on the sample.
        images: Size of the sample.
        seconds: Time of the pass and the head, without building the network.
        kept: Whether trials may use it.
    """

    name: str
    accuracy: float
    images: int
    seconds: float
    kept: bool


def keep_best_backbones(
    config: SearchConfig,
    run: RunFolder,
    families: Sequence[str],
    backbones: Mapping[Backbone, StoredBackbone],
    pixels: PixelStore,
    manifest: Manifest,
    threads: int,
    say: Callable[[str], None],
) -> SearchConfig:
    """The search among the best of several backbones; they are ranked once in a run.

    Args:
        config: The search.
        run: Run in which the ranking is recorded.
        families: Families that can run.
        backbones: Their backbones, at every size.
        pixels: Decoded images; the smallest size is looked at.
        manifest: The images.
        threads: TensorFlow's.
        say: Takes the ranking, as a line.
    """
    domains = (values_of(config.space.domain(name)) for name in _domains_of(families))
    names = list(dict.fromkeys(str(value) for values in domains for value in values))
    size = min(config.image_size)
    at_size = {name: Backbone(name, size) for name in names}
    candidates = {name: backbones[key] for name, key in at_size.items() if key in backbones}
    if len(candidates) < 2:
        return config
    if run.scout_file.exists():
        found = [Scouted(**one) for one in read_json(run.scout_file)["backbones"]]
        return _narrowed(config, families, found)
    found = rank_backbones(
        candidates,
        size,
        pixels.at(size),
        manifest.labels("train"),
        config.speed.keep_backbones,
        config.seed,
        threads,
    )
    line = describe_ranking(found)
    say(line)
    write_json(run.scout_file, {"ranking": line, "backbones": [asdict(one) for one in found]})
    return _narrowed(config, families, found)


def rank_backbones(
    backbones: Mapping[str, StoredBackbone],
    image_size: int,
    pixels: PixelRefs,
    labels: NDArray[np.integer],
    keep: int,
    seed: int,
    threads: int,
) -> list[Scouted]:
    """Ranks backbones, the best first.

    Args:
        backbones: Frozen networks by name, at one image size.
        image_size: Side of the images in pixels.
        pixels: Pixels at that size.
        labels: (N,) class indices of the training images.
        keep: How many may be kept; of them those that are clearly behind the best are not.
        seed: Seed of the sample.
        threads: TensorFlow's.
    """
    chosen = stratified_sample(labels, sample_size(len(labels)), seed)
    tasks = {
        name: _score.remote(
            Backbone(name, image_size), stored, pixels, chosen, labels[chosen], threads
        )
        for name, stored in backbones.items()
    }
    right: dict[str, NDArray[np.bool_]] = {}
    found = []
    for name, task in tasks.items():
        right[name], seconds = result(task)
        accuracy = float(right[name].mean())
        found.append(Scouted(name, accuracy, len(chosen), round(seconds, 2), kept=True))
    found.sort(key=lambda one: -one.accuracy)
    best = right[found[0].name]
    return [
        replace(one, kept=place < keep and not is_clearly_behind(right[one.name], best))
        for place, one in enumerate(found)
    ]


def describe_ranking(found: Sequence[Scouted]) -> str:
    """The ranking in one line."""
    shown = ", ".join(
        f"{one.name} {one.accuracy:.3f} ({one.seconds:.1f} s{'' if one.kept else ', left out'})"
        for one in found
    )
    return f"backbones by a head solved on {found[0].images} training images: {shown}"


def _narrowed(
    config: SearchConfig, families: Sequence[str], found: Sequence[Scouted]
) -> SearchConfig:
    """The search among the backbones that are kept."""
    kept = [one.name for one in found if one.kept]
    update: dict[str, Choices] = {}
    for name in _domains_of(families):
        choices = tuple(value for value in values_of(config.space.domain(name)) if value in kept)
        if choices:  # families may be given backbones of their own
            update[name] = Choices(choices=choices)
    weights = {
        name: place for name, place in weights_by_backbone(config.weights).items() if name in kept
    }
    changed: dict[str, Any] = {"space": config.space.model_copy(update=update)}
    if weights:
        changed["weights"] = ",".join(f"{name}={place}" for name, place in weights.items())
    return config.model_copy(update=changed)


def sample_size(num_images: int) -> int:
    """How many of the training images the scout looks at.

    >>> sample_size(1000), sample_size(100_000), sample_size(40)
    (80, 512, 40)
    """
    return min(num_images, max(LEAST, min(MOST, round(SHARE * num_images))))


def stratified_sample(labels: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """(count,) indices of images in rising order: of every class in turn, while there are any."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turns = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turns[members] = np.arange(len(members))
    return np.sort(order[np.argsort(turns[order], kind="stable")][:count])


def is_clearly_behind(right: NDArray[np.bool_], best: NDArray[np.bool_]) -> bool:
    """Whether a head is wrong on more of the same images than chance explains."""
    difference = best.astype(float) - right
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return bool(error) and float(difference.mean()) > _CLEARLY * error


def _domains_of(families: Sequence[str]) -> list[str]:
    """Parameters that choose a backbone."""
    parameters = (each for family in families for each in find_family(family).parameters)
    return list(dict.fromkeys(each.name for each in parameters if each.field == "backbone"))


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _score(
    backbone: Backbone,
    stored: StoredBackbone,
    pixels: PixelRefs,
    chosen: NDArray[np.int64],
    labels: NDArray[np.integer],
    threads: int,
) -> tuple[NDArray[np.bool_], float]:
    """Which of the sample the head has right, each image by the head solved without it."""
    from pawtune.models.backbones.frozen_backbone import load_backbone
    from pawtune.models.features.tap_encoder import TapEncoder
    from pawtune.models.training.solved_heads import decompose, solve_ridge

    claim_process(threads)
    name, size = backbone
    encoder = TapEncoder(load_backbone(name, size, stored.file()), name)
    images = pixels.train.open()[chosen]
    start = time.perf_counter()
    made = encoder.encode(images)
    features = np.concatenate([made["inner"], made["average"]], axis=1).astype(np.float32)
    head = solve_ridge(
        decompose(features, features[:1]), labels, int(labels.max()) + 1, _REGULARISATION
    )
    assert head.loo_logits is not None
    return head.loo_logits.argmax(axis=1) == labels, time.perf_counter() - start
