"""Which families can run: a frozen backbone needs its ImageNet weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ray

from models.errors import ModelError
from models.spec import BASELINES, TransferSpec, TrialSpec, baseline
from models.weights import backbone_name, find_weights
from search.config import SearchConfig
from search.run_folder import RunFolder

Backbone = tuple[str, int]  # name, image size in pixels


@dataclass(frozen=True)
class Families:
    """What a search may propose.

    Attributes:
        names: The families that can run.
        weights: The weights file that was found for each (backbone, image size).
    """

    names: tuple[str, ...]
    weights: Mapping[Backbone, Path] = field(default_factory=dict)


def find_families(config: SearchConfig, say: Callable[[str], None]) -> Families:
    """Finds the weights of every backbone that the search may use.

    A search that did not ask for `transfer` goes on without it where there are none.

    Raises:
        ModelError: `transfer` was asked for, and no weights can be had.
    """
    asked = config.families
    if asked is not None and "transfer" not in asked:
        return Families(tuple(asked))
    given = Path(config.weights).expanduser() if config.weights else None
    try:
        weights = {
            (name, size): find_weights(name, size, given) for name, size in _backbones(config)
        }
    except ModelError as error:
        if asked is not None or given is not None:
            raise
        say(f"transfer is left out: {error}")
        return Families(("conv",))
    return Families(tuple(asked or ("conv", "transfer")), weights)


def baselines_of(config: SearchConfig, families: Families) -> list[TrialSpec]:
    """The tutorial models that can run, unless switched off."""
    if config.baselines == "off":
        return []
    update = {"precision": config.speed.precision, "class_weights": config.class_weights}
    specs = [baseline(name, config.epochs, config.seed) for name in BASELINES]
    return [
        spec.model_copy(update={"train": spec.train.model_copy(update=update)})
        for spec in specs
        if spec.model.family in families.names
    ]


def image_sizes(config: SearchConfig, baselines: list[TrialSpec]) -> tuple[int, ...]:
    """Every size in pixels that some trial may need."""
    proposed = config.image_size if config.baselines != "only" and config.trials else ()
    return tuple(sorted({*proposed, *(spec.model.image_size for spec in baselines)}))


def _backbones(config: SearchConfig) -> set[Backbone]:
    found: set[Backbone] = set()
    if config.baselines != "only":
        for name in config.space.backbone.choices:
            found |= {(backbone_name(str(name)), size) for size in config.image_size}
    if config.baselines != "off":
        for spec in BASELINES.values():
            if isinstance(spec.model, TransferSpec):
                found.add((spec.model.backbone, spec.model.image_size))
    return found


def store_backbones(run: RunFolder, families: Families, threads: int) -> dict[Backbone, Path]:
    """Puts each backbone's weights into the run folder, once, after a worker has read them.

    Raises:
        ModelError: A weights file does not fit its backbone.
    """
    stored = {key: run.backbone_weights(*key) for key in families.weights}
    tasks = [
        _store.remote(name, size, file, stored[name, size], threads)
        for (name, size), file in families.weights.items()
    ]
    try:
        ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, ModelError) else error from None
    return stored


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _store(name: str, image_size: int, source: Path, target: Path, threads: int) -> None:
    from models.precision import limit_threads
    from models.transfer import load_backbone

    limit_threads(threads)  # the process may go on as a trial's worker
    backbone = load_backbone(name, image_size, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp.weights.h5")
    backbone.save_weights(temporary)
    temporary.replace(target)
