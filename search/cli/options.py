"""Options that several verbs have, and the search that those of `run` and `submit` describe."""

import re
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pawtune.search.config.search_config import SearchConfig
    from pawtune.search.results.model_choice import Kind

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name or its folder.")]
RunsDir = Annotated[str, typer.Option("--runs-dir", help="Where runs are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace --out where it exists.")]
Data = Annotated[
    str | None,
    typer.Option(help="A folder, archive or URL of images by class; or: sample, cats_and_dogs."),
]
Labels = Annotated[
    str | None, typer.Option(metavar="FILE.csv", help="Labels of the images, if no folders tell.")
]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its column of labels; default: by its name.")
]
PathColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its column of images; default: by the files.")
]
Relabel = Annotated[
    str | None,
    typer.Option(metavar="FILE.csv", help="Corrections of labels that `pawtune audit` saved."),
]
MinClassSize = Annotated[
    int | None, typer.Option(metavar="N", help="Leave out classes with fewer different images.")
]
MovedData = Annotated[
    str | None, typer.Option("--data", help="Where the images are now, if they moved.")
]
MovedFolder = Annotated[
    Path | None, typer.Option("--data", help="Where the images are now, if they moved.")
]
Objectives = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="accuracy and, with commas, costs to keep low: latency_ms, num_weights, size_mb.",
        show_default="accuracy",
    ),
]
Trial = Annotated[str | None, typer.Option(help="Id or name of another trial than the best.")]
Rank = Annotated[int | None, typer.Option(help="Another rank than 1.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and the result.")]
RetrainingAddress = Annotated[
    str | None,
    typer.Option(
        "--address", help="A Ray cluster, or local for this machine; default: as the search had it."
    ),
]
Refit = Annotated[
    bool, typer.Option("--refit", help="The trial as `pawtune refit` trained it on more images.")
]
OwnFamily = Annotated[
    list[str] | None,
    typer.Option(
        "--family",
        metavar="MODULE:CLASS",
        help="A family of your own, whose code is run; may be repeated.",
    ),
]
LearnFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--learn-from", metavar="RUN", help="An earlier run that teaches this one; may be repeated."
    ),
]
OwnMetric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="MODULE:FUNCTION", help="The search's own metric, whose code is run."
    ),
]
Ensemble = Annotated[bool, typer.Option("--ensemble", help="What `pawtune ensemble` kept.")]


def add_own_code_options(app: typer.Typer) -> None:
    """Gives --family to every verb that makes or opens a run: those with a RUN, and `run`.

    And --metric to those that compute it: a metric of one's own is named again.
    """
    for command in app.registered_commands:
        verb = command.callback
        if verb is None:
            continue
        opens = {"run", "names"} & signature(verb).parameters.keys()
        if verb.__name__ in ("run", "status") or opens:
            verb = _with_option(verb, "family", OwnFamily, _use_families)
        if verb.__name__ in ("resume", "confirm", "reproduce", "ensemble"):
            verb = _with_option(verb, "metric", OwnMetric, _use_metric)
        command.callback = verb


def _use_families(places: list[str]) -> None:
    from pawtune.models.families.own import use_family

    for place in places:
        use_family(place)


def _use_metric(place: str) -> None:
    from pawtune.search.config.own_metric import use_metric

    use_metric(place)


def _with_option(
    verb: Callable[..., Any], name: str, option: Any, use: Callable[[Any], None]
) -> Callable[..., Any]:
    """What Typer sees as the verb with one more option, which is used before the verb runs."""

    @wraps(verb)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        given = options.pop(name, None)
        if given is not None:
            use(given)
        return verb(*arguments, **options)

    declared = signature(verb)
    added = Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)
    wrapper.__signature__ = declared.replace(  # type: ignore[attr-defined]
        parameters=[*declared.parameters.values(), added]
    )
    wrapper.__annotations__ = {**verb.__annotations__, name: option}
    return wrapper


def milliseconds(text: str) -> float:
    """Milliseconds of "20ms", "0.02s" or "20".

    Raises:
        UserError: No time above zero.
    """
    from pawtune.search.errors import UserError

    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s)?", text.strip())
    time_ms = float(parts[1]) * (1000 if parts[2] == "s" else 1) if parts else 0.0
    if time_ms <= 0:
        raise UserError(
            f"--max-latency must be a time above 0, like 20ms, received {text!r}; give 20ms"
        )
    return time_ms


def kind_of(refit: bool, ensemble: bool) -> "Kind":
    """Which of a run's models two options name.

    Raises:
        UserError: Both were given.
    """
    if refit and ensemble:
        from pawtune.search.errors import UserError

        raise UserError(
            "--refit and --ensemble exclude each other, received both; give one of them"
        )
    return "refit" if refit else "ensemble" if ensemble else "trial"


def configured(params: Mapping[str, Any]) -> "SearchConfig":
    """The search that the options of `run` describe; `submit` has the same."""
    from pawtune.models.families.own import use_family
    from pawtune.search.config.own_metric import use_metric
    from pawtune.search.config.search_config import load_config, parse_duration
    from pawtune.search.errors import UserError

    if params["baselines"] is False and params["baselines_only"]:
        raise UserError(
            "--no-baselines and --baselines-only exclude each other, received both; give one of "
            "them"
        )
    own = [use_family(place) for place in params["family"] or ()]
    if ":" in (params["metric"] or ""):
        use_metric(params["metric"])
    families, sizes, budget = params["families"], params["image_size"], params["time_budget"]
    objectives = params["objectives"]
    backbones = params["backbones"]
    data = ("data", "labels", "label_column", "path_column", "relabel", "min_class_size")
    same = ("name", "trials", "epochs", "weights", "metric", "class_weights", "seed")
    resources = ("concurrency", "gpus_per_trial", "cpus_per_trial", "address")
    options = {
        **{name: params[name] for name in (*data, *same, "runs_dir")},
        **{f"resources.{name}": params[name] for name in resources},
        "own_families": own or None,
        "learn_from": params["learn_from"] or None,
        "families": families.split(",") if families else None,
        **(_backbone_choices(backbones) if backbones else {}),
        "objectives": objectives.split(",") if objectives else None,
        "image_size": [_whole(size) for size in sizes.split(",")] if sizes else None,
        "time_budget_s": parse_duration(budget) if budget else None,
        "baselines": (
            "only"
            if params["baselines_only"]
            else {True: "on", False: "off"}.get(params["baselines"])
        ),
    }
    given = {key: value for key, value in options.items() if value is not None}
    return load_config(params["config"], params["overrides"] or [], given)


def _backbone_choices(names: str) -> dict[str, Any]:
    """The settings that --backbones stands for: every family with a backbone searches all."""
    from pawtune.models.backbones.backbone_weights import backbone_name

    choices = {"choices": [backbone_name(name.strip()) for name in names.split(",")]}
    return {"space.backbone": choices, "space.tune_backbone": dict(choices)}


def _whole(text: str) -> int | str:
    return int(text) if text.strip().isdigit() else text  # the configuration refuses the rest
