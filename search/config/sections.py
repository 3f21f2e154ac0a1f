"""The sections of a configuration about the machinery: resources, scheduler, sampler, speed."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pawtune.models.families.domains import Strict
from pawtune.models.features.augmented_views import DEFAULT_NUM_VIEWS
from pawtune.models.model_spec import Precision
from pawtune.search.config.settings import Setting


class ResourcesConfig(Strict):
    """What trials run on."""

    concurrency: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Setting("a whole number from 1, or null", "Trials at once; null: as many as fit."),
    ] = None
    cpus_per_trial: Annotated[
        float, Field(gt=0), Setting("a number above 0", "CPUs that each trial reserves.")
    ] = 1.0
    gpus_per_trial: Annotated[
        Annotated[float, Field(ge=0)] | None,
        Setting(
            "a number from 0 to 1, or null",
            "GPUs that each trial reserves; null: 1 where the cluster has any, else 0.",
        ),
    ] = None
    address: Annotated[
        str | None,
        Setting(
            "an address, auto, or null",
            "The Ray cluster to use; auto: the one running here; null: start one on this machine.",
        ),
    ] = None

    @field_validator("gpus_per_trial")
    @classmethod
    def _one_at_most(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1:
            raise ValueError(
                f"a trial trains on one GPU or a part of one, received {gpus:g}; give 1 or a "
                "fraction below 1: further GPUs take further trials at once"
            )
        return gpus


class SchedulerConfig(Strict):
    """What stops weak trials early."""

    name: Annotated[
        Literal["asha", "none"],
        Setting("asha or none", "asha: stop the weak by successive halving; none: let all finish."),
    ] = "asha"
    grace_period: Annotated[
        int,
        Field(ge=1),
        Setting("a whole number from 1", "Epochs that every trial gets before it may be stopped."),
    ] = 3
    reduction_factor: Annotated[
        int,
        Field(ge=2),
        Setting("a whole number from 2", "At each rung, one in so many trials continues."),
    ] = 3


class SamplerConfig(Strict):
    """What proposes trials."""

    name: Annotated[
        Literal["tpe", "random", "nsga2"],
        Setting("tpe or random", "How Optuna proposes the next trial (nsga2 is read as tpe)."),
    ] = "tpe"
    startup_trials: Annotated[
        int,
        Field(ge=1),
        Setting("a whole number from 1", "Random trials before tpe uses what it has seen."),
    ] = 10


class SpeedConfig(Strict):
    """Work that trials share. Each can be switched off, for comparison."""

    bank: Annotated[
        bool,
        Setting(
            "true or false",
            "Train heads on features of augmented views, computed once for all trials; "
            "false: run the backbone in every epoch of every trial.",
        ),
    ] = True
    views: Annotated[
        int,
        Field(ge=1, le=256),
        Setting("a whole number from 1 to 256", "Augmented views of each image in the bank."),
    ] = DEFAULT_NUM_VIEWS
    keep_backbones: Annotated[
        int,
        Field(ge=1),
        Setting(
            "a whole number from 1",
            "Of several backbones, how many are searched: the best by a head solved on a few "
            "images, without those that are clearly behind.",
        ),
    ] = 2
    reuse_workers: Annotated[
        bool,
        Setting("true or false", "Keep worker processes between trials; false: one each."),
    ] = True
    precision: Annotated[
        Precision,
        Setting(
            "auto, float32, mixed_bfloat16 or mixed_float16",
            "Arithmetic of training; auto: the fastest that the worker's hardware has.",
        ),
    ] = "auto"
