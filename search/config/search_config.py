"""What a search is: one frozen `SearchConfig`, from search.yaml, overrides and options.

`load_config` reports every problem at once, one line each. `dump_config` writes the whole
experiment, and reads back as the same object. docs/configuration.md is made from the settings
below (`python -m pawtune.search.config.docs_table`), so their texts are written for readers.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pawtune.data_pipeline.images.decode import area_from
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.models.families.domains import Choices, FloatRange, IntRange, Strict
from pawtune.models.families.family import Family
from pawtune.models.families.own import use_family
from pawtune.models.families.table import BUILT_IN, OWN
from pawtune.models.model_spec import ModelSpec
from pawtune.models.words import did_you_mean
from pawtune.search.config.own_metric import check_place, metric_name, use_metric
from pawtune.search.config.sections import (
    ResourcesConfig,
    SamplerConfig,
    SchedulerConfig,
    SpeedConfig,
)
from pawtune.search.config.settings import Setting, explain, settings_of
from pawtune.search.config.space import SpaceConfig, space_type
from pawtune.search.config.yaml_text import MAX_BYTES, YamlError, read_yaml, write_yaml
from pawtune.search.errors import UserError, readable_in_python
from pawtune.search.objective import COSTS, METRICS, Cost, Objective

__all__ = [
    "Choices",
    "FloatRange",
    "IntRange",
    "ResourcesConfig",
    "SamplerConfig",
    "SchedulerConfig",
    "SearchConfig",
    "SpaceConfig",
    "SpeedConfig",
    "dump_config",
    "load_config",
    "load_recorded_config",
    "parse_duration",
]

NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of runs and trials


class SearchConfig(Strict):
    """A whole search: what search.yaml holds. docs/configuration.md lists every setting.

    Example:
        >>> config = SearchConfig(data="sample", trials=8)  # doctest: +SKIP
        >>> wide = config.model_copy(update={"epochs": 40})  # doctest: +SKIP
    """

    data: Annotated[
        str,
        Field(min_length=1),
        Setting(
            "a folder, an archive, a URL, sample or cats_and_dogs",
            "The images: a folder of class folders, or what holds one; a URL may be s3:// or gs://.",
        ),
    ]
    labels: Annotated[
        str | None,
        Setting(
            "a CSV file, here or in the data's folder, or null",
            "Labels of the images, and splits if it has them; null: the folders tell both.",
        ),
    ] = None
    label_column: Annotated[
        str | None,
        Setting("a column of that file, or null", "Holds the labels; null: found by its name."),
    ] = None
    path_column: Annotated[
        str | None,
        Setting("a column of that file, or null", "Names the images; null: found by the files."),
    ] = None
    relabel: Annotated[
        str | None,
        Setting(
            "a relabel.csv, or null",
            "Corrections of labels that `pawtune audit` saved; the images' folder stays as it is.",
        ),
    ] = None
    min_class_size: Annotated[
        int,
        Field(ge=0),
        Setting(
            "a whole number from 0",
            "Leaves out classes with fewer different images, in any split that is given.",
        ),
    ] = 0
    name: Annotated[
        Annotated[str, Field(pattern=f"^{NAME_RULE.pattern}$")] | None,
        Setting(
            "up to 100 letters, digits, '.', '_' and '-' (first a letter or digit), or null",
            "The run's folder in `runs_dir`; null: the data's name and the time.",
        ),
    ] = None
    runs_dir: Annotated[
        str,
        Field(min_length=1),
        Setting("a folder, or an address: s3:// or gs://", "Where runs are kept."),
    ] = "runs"
    own_families: Annotated[
        tuple[str, ...],
        Field(strict=False),
        Setting(
            "a list of package.module:Name, each named with --family too",
            "Families of your own (docs/extending.md); a name alone imports nothing.",
        ),
    ] = ()
    families: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None,
        Setting(
            f"{', '.join(BUILT_IN)}, a list of them, or null",
            "Kinds of models; null: all but those whose backbone has no weights here.",
        ),
    ] = None
    weights: Annotated[
        str | None,
        Setting(
            "a file, here or at s3:// or gs://, or NAME=FILE,NAME=FILE, or null",
            "The backbone's weights, without its top, or each one's; those not given: Keras' "
            "cache, else a download.",
        ),
    ] = None
    image_size: Annotated[
        tuple[int, ...],
        Field(min_length=1, strict=False),
        Setting(
            "one or several sides of 32 to 1024 px",
            "Images are resized to squares of this side; of several, each trial gets one.",
        ),
    ] = (160,)
    resizing: Annotated[
        Literal["auto", "bilinear", "area"],
        Setting(
            "auto, bilinear or area",
            "How: bilinear, as the tutorial does; area, the mean of what a pixel covers; auto: "
            "area where images are typically 4 times as large, but not with `baselines`.",
        ),
    ] = "auto"
    trials: Annotated[
        int,
        Field(ge=0),
        Setting("a whole number from 0", "Trials to propose; the baselines come on top."),
    ] = 24
    epochs: Annotated[
        int, Field(ge=1), Setting("a whole number from 1", "Epochs of a trial that is not stopped.")
    ] = 20
    seed: Annotated[
        int,
        Field(ge=0, lt=2**31),
        Setting("a whole number from 0 to 2147483647", "Of splits, proposals and training."),
    ] = 0
    metric: Annotated[
        str,
        Setting(
            f"{', '.join(METRICS)} or module:function",
            "What the search optimises; a function of your own (docs/extending.md) is named with "
            "--metric each time, a name in a file imports nothing.",
        ),
    ] = "val_accuracy"
    objectives: Annotated[
        Annotated[tuple[Literal["accuracy"] | Cost, ...], Field(min_length=1, strict=False)],
        Setting(
            f"accuracy, alone or with {', '.join(COSTS)}",
            "What to optimise together: accuracy, which is `metric`, and costs of the complete "
            "model to keep low.",
        ),
    ] = ("accuracy",)
    baselines: Annotated[
        Literal["on", "off", "only"],
        Setting("on, off or only", "The five tutorial models: before the proposals, not, alone."),
    ] = "off"
    class_weights: Annotated[
        bool, Setting("true or false", "Weigh rare classes up in the training loss.")
    ] = False
    time_budget_s: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Setting("seconds above 0, or null", "Stop the trials after this time; null: never."),
    ] = None
    keep_weights: Annotated[
        int,
        Field(ge=1),
        Setting(
            "a whole number from 1",
            "Of how many of the best trials weights are kept, each family's best besides.",
        ),
    ] = 50
    learn_from: Annotated[
        tuple[str, ...],
        Field(strict=False),
        Setting(
            "a list of runs: names in `runs_dir`, folders or addresses",
            "Earlier runs that teach the sampler; on other images they say where to begin.",
        ),
    ] = ()
    resources: ResourcesConfig = ResourcesConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    sampler: SamplerConfig = SamplerConfig()
    speed: SpeedConfig = SpeedConfig()
    space: Annotated[SerializeAsAny[SpaceConfig], Field(validate_default=True)] = SpaceConfig()

    @field_validator("families", "objectives", mode="before")
    @classmethod
    def _one_or_with_commas(cls, given: Any) -> Any:
        return tuple(word.strip() for word in given.split(",")) if isinstance(given, str) else given

    @field_validator("image_size", mode="before")
    @classmethod
    def _one_size(cls, given: Any) -> Any:
        return (given,) if isinstance(given, int) else given

    @field_validator("image_size")
    @classmethod
    def _models_take_it(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        for size in sizes:
            try:
                ModelSpec(family="any", image_size=size)
            except ValidationError:
                raise ValueError(f"a side must be 32 to 1024 px, received {size}") from None
        return sizes

    @field_validator("metric", mode="before")
    @classmethod
    def _by_its_place(cls, given: Any) -> Any:
        return use_metric(given) if callable(given) else given

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        return check_place(name)

    @field_validator("own_families", mode="before")
    @classmethod
    def _are_in_use(cls, given: Any) -> Any:
        """Classes become their places; a place imports nothing, so it must be in use already."""
        items = (given,) if isinstance(given, str | type) else given
        if not isinstance(items, list | tuple):
            return given
        places = tuple(use_family(item) if isinstance(item, type) else item for item in items)
        in_use = {own.place for own in OWN.values()}
        for place in places:
            if place not in in_use:
                raise ValueError(
                    f"{place!r:.100} is code that runs only where you name it; if you trust it, "
                    f"give --family {shown(place)[:100]} (in Python: pawtune.use_family)"
                )
        return places

    @field_validator("space", mode="before")
    @classmethod
    def _of_the_families(cls, given: Any, info: ValidationInfo) -> Any:
        own = own_families(info.data.get("own_families", ()))
        if isinstance(given, SpaceConfig):
            given = given.model_dump() if own else given
        return space_type(own).model_validate(given)

    @field_validator("families")
    @classmethod
    def _are_known(
        cls, names: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        own = own_families(info.data.get("own_families", ()))
        known = {**BUILT_IN, **{family.name: family for family in own}}
        for name in names or ():
            if name not in known:
                raise ValueError(
                    f"must be {', '.join(known)}, a list of them, or null, received {name!r}"
                    + did_you_mean(name, known)
                )
        return names

    @field_validator("objectives")
    @classmethod
    def _accuracy_leads(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names[0] != "accuracy":
            raise ValueError(
                f"the first must be accuracy, which ranks the trials, received {','.join(names)}; "
                f"give accuracy,{','.join(name for name in names if name != 'accuracy')}"
            )
        return names

    @field_validator("families", "image_size", "objectives")
    @classmethod
    def _nothing_twice(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        twice = [value for n, value in enumerate(values or ()) if value in (values or ())[:n]]
        if twice:
            raise ValueError(f"a value may be given once, received {twice[0]!r} twice")
        return values

    @field_validator("data", "runs_dir", "weights", "labels", "relabel")
    @classmethod
    def _can_be_a_path(cls, text: str | None) -> str | None:
        if text is not None and any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
            raise ValueError(f"it must hold no control character, received {text!r}; rename it")
        return text

    @readable_in_python
    def __init__(self, **settings: Any) -> None:
        """Checks settings that were given in Python.

        Raises:
            UserError: All that is wrong, one line each, with the nearest known setting.
        """
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise UserError("\n".join(_problems(error))) from error

    @property
    def family_names(self) -> tuple[str, ...]:
        """The families that were asked for, or all."""
        own = own_families(self.own_families)
        return self.families or (*BUILT_IN, *(family.name for family in own))

    @property
    def objective(self) -> Objective:
        """What the search optimises."""
        costs = tuple(name for name in self.objectives if name != "accuracy")
        return Objective(metric_name(self.metric), costs)

    @property
    def area_from(self) -> int | None:
        """Typical shorter side in pixels from which images are resized by area; None: never."""
        if self.resizing == "auto" and self.baselines == "off":
            return area_from(max(self.image_size))
        return 0 if self.resizing == "area" else None

    @property
    def bank_views(self) -> int:
        """Augmented views of an image in a feature bank; 0: banks are switched off."""
        return self.speed.views if self.speed.bank else 0

    @model_validator(mode="after")
    def _something_to_run(self) -> Self:
        if self.trials == 0 and self.baselines == "off":
            raise ValueError(
                "a search must run something, received trials 0 and baselines off; "
                "give trials, or baselines: only"
            )
        return self


def load_config(
    path: Path | None, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> SearchConfig:
    """The configuration of a search; what comes later wins.

    Args:
        path: A search.yaml, or None for the defaults. Its `versions` are a record, not settings.
        overrides: "space.conv_depth.high=4": a dotted setting and its value in YAML.
        options: Values by dotted setting, as the command line's options give them.

    Raises:
        UserError: All that is wrong, one line each.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    readable = True
    if path is not None:
        try:
            document = _read_file(path)
        except UserError as error:
            problems.append(str(error))
            readable = False
    for assignment in [*overrides, *(options or {}).items()]:
        try:
            pair = _parse_override(assignment) if isinstance(assignment, str) else assignment
            _set(document, *pair)
        except UserError as error:
            problems.append(str(error))
    try:
        config = SearchConfig.model_validate(document)
    except ValidationError as error:
        # Without its file, what a search requires would be called missing.
        problems += _problems(error) if readable else []
    if problems:
        lines = "\n".join(problems).split("\n")
        raise UserError("\n".join(shown(line) for line in lines if line))
    return config


def load_recorded_config(path: Path) -> SearchConfig:
    """The configuration that a run folder holds.

    Args:
        path: The run folder's search.yaml.

    Raises:
        UserError: It is damaged, or is none that this version writes.
    """
    try:
        return load_config(path)
    except UserError as error:
        raise UserError(
            f"a run folder's search.yaml must hold a search's settings, received {shown(path)!r}; "
            f"restore the file, or start the search again\n{error}"
        ) from error


def own_families(places: Sequence[str]) -> tuple[Family[Any], ...]:
    """Families of one's own that are in use, by their places."""
    return tuple(own.family for own in OWN.values() if own.place in places)


def _problems(error: ValidationError) -> list[str]:
    """All that is wrong with a configuration, one line each."""
    space = space_type(tuple(own.family for own in OWN.values()))
    known = {**dict(settings_of(SearchConfig)), **dict(settings_of(space, "space."))}
    problems = explain(error, known)
    # Without its families, their names and parameters would be called unknown as well.
    return [line for line in problems if line.startswith("own_families:")] or problems


def dump_config(
    config: SearchConfig, versions: Mapping[str, str] | None = None, *, with_secrets: bool = False
) -> str:
    """search.yaml: every setting, in a stable order; and, for the record, the versions used.

    Credentials in addresses are masked, unless it is the search itself that reads the text.
    """
    record = {"versions": dict(versions)} if versions else {}
    content = config.model_dump(mode="json") if with_secrets else plain_settings(config)
    return write_yaml({**content, **record})


def plain_settings(config: SearchConfig) -> dict[str, Any]:
    """Every setting as JSON, credentials in addresses masked; a path is no address."""
    content = config.model_dump(mode="json")
    for section in (content, content["resources"]):
        for key, value in section.items():
            if isinstance(value, str) and "://" in value:
                section[key] = without_secrets(value)
    return content


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h30m" or "600".

    Raises:
        UserError: No duration above zero.
    """
    number = r"(\d+(?:\.\d+)?)"
    parts = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total < math.inf:
        raise UserError(
            f"a duration must be seconds above 0, or like 90s, 10m or 1h30m, received {text!r}; "
            "give for example 10m"
        )
    return total


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path}: settings may take {MAX_BYTES:,} bytes at most, received "
                f"{path.stat().st_size:,}; is this another file?"
            )
        document = read_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"--config must name a readable file, received {path}: {error.strerror}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: settings must be UTF-8 text, received other bytes") from error
    except YamlError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UserError(
            f"{path}: it must hold settings, key: value, received {document!r:.60}; "
            "write for example data: sample"
        )
    return {key: value for key, value in document.items() if not _says_nothing(key, value)}


def _says_nothing(key: str, value: Any) -> bool:
    field = SearchConfig.model_fields.get(key)
    empty_section = value is None and field is not None and isinstance(field.default, Strict)
    return key == "versions" or empty_section


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(
            f"--set must be KEY=VALUE, received {override!r}; "
            "give for example --set space.conv_depth.high=4"
        )
    try:
        return key.strip(), read_yaml(text)
    except YamlError as error:
        raise UserError(f"--set {shown(key)}: {error}") from error


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    """Puts a value at a dotted key, making the mappings on the way."""
    *parents, name = key.split(".")
    key = shown(key)
    for depth, parent in enumerate(parents, start=1):
        inner = document.setdefault(parent, {})
        if not isinstance(inner, dict):
            whole = shown(".".join(parents[:depth]))
            raise UserError(
                f"{key}: {whole} is {inner!r:.60}, which has no {name!r}; "
                f"set {whole} as a whole, or leave it out"
            )
        document = inner
    document[name] = value


def default_name(config: SearchConfig) -> str:
    """Data and time, as a folder name."""
    # Of a URL its path only: what follows may hold a token.
    place = re.split("[?#]", config.data)[0] if "://" in config.data else config.data
    data = re.sub("[^A-Za-z0-9]", "-", Path(place).stem)[:60]
    return f"{data.strip('-') or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
