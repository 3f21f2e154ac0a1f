"""The search space: a define-by-run function of an Optuna trial, and params <-> specs.

The space is conditional: the family is proposed first, then only the parameters that family
has. Parameters of one family carry its prefix (`conv_dropout`, `head_dropout`), so that Optuna's
grouped TPE never mixes two meanings under one name.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from pawtune.models.spec import ConvSpec, TrainSpec, TransferSpec, TrialSpec
from pawtune.search.config.search_config import Choices, FloatRange, IntRange, SearchConfig

Params = dict[str, Any]

COMMON = ("flip", "rotation_factor", "learning_rate", "batch_size", "optimizer")
CONV = (
    "conv_depth",
    "filters",
    "filter_growth",
    "kernel_size",
    "padding",
    "batch_norm",
    "conv_pooling",
    "conv_dense_width",
    "conv_dropout",
    "scaling",
)
TRANSFER = ("backbone", "head_pooling", "head_dense_width", "head_dropout")
FAMILY_PARAMETERS = {"conv": CONV, "transfer": TRANSFER}
GROWTHS = (1.0, 1.5, 2.0)


def block_widths(filters: int, growth: float, depth: int) -> tuple[int, ...]:
    """Filters of each block: the first, times the largest power of two within growth^k.

    >>> block_widths(32, 1.5, 5)
    (32, 32, 64, 64, 128)
    """
    return tuple(filters * 2 ** math.floor(math.log2(growth**k) + 1e-9) for k in range(depth))


def propose(trial: optuna.trial.BaseTrial, config: SearchConfig, families: Sequence[str]) -> Params:
    """Asks an Optuna trial for one point of the space.

    Args:
        trial: The trial to ask; a `FixedTrial` checks a given point instead.
        config: Holds the ranges.
        families: The families that can run here.

    Returns:
        Parameters by name: those of the proposed family only.
    """
    params: Params = {"family": trial.suggest_categorical("family", list(families))}
    params["image_size"] = trial.suggest_categorical("image_size", list(config.image_size))
    for name in (*COMMON, *FAMILY_PARAMETERS[params["family"]]):
        params[name] = _suggest(trial, name, getattr(config.space, name))
    return params


def _suggest(trial: optuna.trial.BaseTrial, name: str, domain: Any) -> Any:
    match domain:
        case IntRange():
            return trial.suggest_int(
                name, domain.low, domain.high, step=domain.step or 1, log=domain.log
            )
        case FloatRange():
            value = trial.suggest_float(
                name, domain.low, domain.high, step=domain.step, log=domain.log
            )
            return float(f"{value:.6g}")  # 0.15000000000000002 would differ from 0.15
        case Choices():
            return trial.suggest_categorical(name, list(domain.choices))
    raise TypeError(f"no way to propose from {domain!r}")


def to_spec(params: Mapping[str, Any], config: SearchConfig, name: str, seed: int) -> TrialSpec:
    """The trial that a point of the space stands for.

    Raises:
        pydantic.ValidationError: The point is no valid model.
    """
    shared = {key: params[key] for key in ("image_size", "flip", "rotation_factor")}
    model: ConvSpec | TransferSpec
    if params["family"] == "conv":
        model = ConvSpec(
            **shared,
            scaling=params["scaling"],
            filters=block_widths(params["filters"], params["filter_growth"], params["conv_depth"]),
            kernel_size=params["kernel_size"],
            padding=params["padding"],
            batch_norm=params["batch_norm"],
            pooling=params["conv_pooling"],
            dense_width=params["conv_dense_width"],
            dropout=params["conv_dropout"],
        )
    else:
        model = TransferSpec(
            **shared,
            backbone=params["backbone"],
            pooling=params["head_pooling"],
            dense_width=params["head_dense_width"],
            dropout=params["head_dropout"],
        )
    train = TrainSpec(
        learning_rate=params["learning_rate"],
        batch_size=params["batch_size"],
        optimizer=params["optimizer"],
        epochs=config.epochs,
        seed=seed,
        precision=config.speed.precision,
        class_weights=config.class_weights,
    )
    return TrialSpec(name=name, model=model, train=train)


def to_params(spec: TrialSpec) -> Params | None:
    """The point of the space that a spec stands for; None where its widths fit no growth."""
    model, train = spec.model, spec.train
    params: Params = {
        "family": model.family,
        "image_size": model.image_size,
        "flip": model.flip,
        "rotation_factor": model.rotation_factor,
        "learning_rate": train.learning_rate,
        "batch_size": train.batch_size,
        "optimizer": train.optimizer,
    }
    if isinstance(model, TransferSpec):
        return params | {
            "backbone": model.backbone,
            "head_pooling": model.pooling,
            "head_dense_width": model.dense_width,
            "head_dropout": model.dropout,
        }
    first, depth = model.filters[0], len(model.filters)
    growth = next((g for g in GROWTHS if block_widths(first, g, depth) == model.filters), None)
    if growth is None:
        return None
    return params | {
        "conv_depth": depth,
        "filters": first,
        "filter_growth": growth,
        "kernel_size": model.kernel_size,
        "padding": model.padding,
        "batch_norm": model.batch_norm,
        "conv_pooling": model.pooling,
        "conv_dense_width": model.dense_width,
        "conv_dropout": model.dropout,
        "scaling": model.scaling,
    }


def locate(
    params: Mapping[str, Any], config: SearchConfig, families: Sequence[str]
) -> dict[str, BaseDistribution] | None:
    """The distributions of a given point, or None where it lies outside the space.

    A point from elsewhere (a baseline, an earlier run) may only teach the sampler if the sampler
    could have proposed it: Optuna takes an out-of-range number as it is and stops at an unknown
    category.
    """
    probe = optuna.trial.FixedTrial(dict(params))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # how Optuna says "out of range"
        try:
            proposed = propose(probe, config, families)
        except (ValueError, UserWarning):  # or: no such parameter, no such choice
            return None
    return probe.distributions if proposed.keys() == params.keys() else None


def identity(spec: TrialSpec) -> str:
    """What makes two trials the same configuration: all but name and seed."""
    content = spec.model_dump(exclude={"name": True, "train": {"seed"}})
    return json.dumps(content, sort_keys=True)
