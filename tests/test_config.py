"""search.yaml, overrides and options: what is accepted, what is refused, and in which words."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pawtune.models.backbones.backbone_weights import BACKBONES
from pawtune.models.families.conv import ConvSpec
from pawtune.search.config.docs_table import settings_table
from pawtune.search.config.search_config import (
    Choices,
    FloatRange,
    IntRange,
    ResourcesConfig,
    SamplerConfig,
    SchedulerConfig,
    SearchConfig,
    SpaceConfig,
    SpeedConfig,
    dump_config,
    load_config,
    parse_duration,
)
from pawtune.search.config.yaml_text import YamlError, read_yaml, write_yaml
from pawtune.search.errors import UserError

DOCS = Path(__file__).resolve().parent.parent / "docs"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path | None, overrides: Sequence[str] = (), **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides, options)
    return str(caught.value).split("\n")


# --- what is accepted


def test_file_then_overrides_then_options(tmp_path: Path) -> None:
    path = written(tmp_path, "data: photos\ntrials: 1\nepochs: 1\nseed: 1\n")
    config = load_config(path, ["epochs=2", "seed=2"], {"seed": 3, "resources.concurrency": 4})
    assert (config.data, config.trials, config.epochs, config.seed) == ("photos", 1, 2, 3)
    assert config.resources.concurrency == 4


def test_defaults_are_the_documented_search() -> None:
    config = SearchConfig(data="sample")
    assert (config.trials, config.epochs, config.image_size) == (24, 20, (160,))
    assert config.families is None
    assert config.baselines == "off"


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("{low: 1, high: 3}", IntRange(low=1, high=3)),
        ("{high: 3}", IntRange(low=2, high=3)),  # the default's other end stays
        ("{low: 1, high: 5, step: 2}", IntRange(low=1, high=5, step=2)),
        ("[2, 4]", Choices(choices=(2, 4))),
        ("3", Choices(choices=(3,))),
    ],
)
def test_forms_of_a_domain(text: str, domain: object) -> None:
    config = load_config(None, [f"space.conv_depth={text}"], {"data": "sample"})
    assert config.space.conv_depth == domain


def test_an_override_changes_one_end_of_a_default_range() -> None:
    config = load_config(None, ["space.learning_rate.high=1e-1"], {"data": "sample"})
    assert config.space.learning_rate == FloatRange(low=1e-4, high=0.1, log=True)


@pytest.mark.parametrize("text", ["conv", "[conv]", "'conv'"])
def test_one_family_is_a_list_of_one(text: str) -> None:
    assert load_config(None, [f"families={text}"], {"data": "a"}).families == ("conv",)


def test_families_with_a_comma() -> None:
    config = load_config(None, [], {"data": "a", "families": "conv, transfer"})
    assert config.families == ("conv", "transfer")


def test_one_image_size_is_a_list_of_one() -> None:
    assert load_config(None, ["image_size=224"], {"data": "a"}).image_size == (224,)


def test_a_recorded_version_is_no_setting(tmp_path: Path) -> None:
    path = written(tmp_path, dump_config(SearchConfig(data="a"), versions={"ray": "2.60.0"}))
    assert "ray: 2.60.0" in path.read_text()
    assert load_config(path) == SearchConfig(data="a")


def test_a_section_with_everything_commented_out(tmp_path: Path) -> None:
    path = written(tmp_path, "data: a\nspace:\n  # flip: none\nspeed:\n")
    assert load_config(path, ["speed.bank=false"]).speed == SpeedConfig(bank=False)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, ""), [], {"data": "a"}) == SearchConfig(data="a")


def test_a_configuration_cannot_be_changed() -> None:
    config = SearchConfig(data="a")
    with pytest.raises(ValueError, match="frozen"):
        config.trials = 3  # type: ignore[misc]


# --- what is refused, and in which words

REFUSALS = {
    "trails: 3": "trails: no such setting; did you mean 'trials'?",
    "concurrency: 2": "concurrency: no such setting; did you mean 'resources.concurrency'?",
    "resources: {gpu_per_trial: 1}": (
        "resources.gpu_per_trial: no such setting; did you mean 'gpus_per_trial'?"
    ),
    "space: {conv_depth: {hihg: 3}}": (
        "space.conv_depth.hihg: no such setting; did you mean 'high'?"
    ),
    "zebra: 1": "zebra: no such setting; leave it out",
    "trials: -3": (
        "trials: must be a whole number from 0, received -3; leave it out for the default, 24"
    ),
    "trials: true": (
        "trials: must be a whole number from 0, received True; leave it out for the default, 24"
    ),
    "epochs: '20'": (
        "epochs: must be a whole number from 1, received '20'; leave it out for the default, 20"
    ),
    "metric: val_acc": (
        "metric: must be val_accuracy, val_balanced_accuracy, val_loss or module:function, "
        "received 'val_acc'; did you mean 'val_accuracy'?"
    ),
    "families: [cnov]": (
        "families: must be conv, transfer, finetune, a list of them, or null, received 'cnov'; "
        "did you mean 'conv'?"
    ),
    "families: [conv, conv]": (
        "families: a value may be given once, received 'conv' twice; "
        "give conv, transfer, finetune, a list of them, or null"
    ),
    "image_size: 20": (
        "image_size: a side must be 32 to 1024 px, received 20; "
        "give one or several sides of 32 to 1024 px"
    ),
    "name: ../up": (
        "name: must be up to 100 letters, digits, '.', '_' and '-' (first a letter or digit), "
        "or null, received '../up'; leave it out for the default, null"
    ),
    "time_budget_s: 0": (
        "time_budget_s: must be seconds above 0, or null, received 0; "
        "leave it out for the default, null"
    ),
    "scheduler: asha": (
        "scheduler: must be a mapping, received 'asha'; "
        "its keys are name, grace_period, reduction_factor"
    ),
    "resources: {gpus_per_trial: 1.5}": (
        "resources.gpus_per_trial: a trial trains on one GPU or a part of one, received 1.5; "
        "give 1 or a fraction below 1: further GPUs take further trials at once"
    ),
    "{trials: 0, baselines: off}": (
        "a search must run something, received trials 0 and baselines off; "
        "give trials, or baselines: only"
    ),
    "space: {conv_depth: {low: 4, high: 3}}": (
        "space.conv_depth: low must not be above high, received low 4 and high 3; "
        "give 1 to 5 blocks"
    ),
    "space: {conv_depth: {high: 6}}": (
        "space.conv_depth: no model may have 6 here; give 1 to 5 blocks"
    ),
    "space: {conv_depth: {low: two}}": (
        "space.conv_depth.low: must be a valid integer, received 'two'; give 1 to 5 blocks"
    ),
    "space: {filters: {low: 8}}": (
        "space.filters.high: it is required, but missing; give 4 to 512 filters"
    ),
    "space: {filters: [32, 1024]}": (
        "space.filters: no model may have 1024 here; give 4 to 512 filters"
    ),
    "space: {batch_norm: [1]}": ("space.batch_norm: no model may have 1 here; give true or false"),
    "space: {flip: diagonal}": (
        "space.flip: no model may have 'diagonal' here; "
        "give none, horizontal or horizontal_and_vertical"
    ),
    "space: {learning_rate: {low: 0}}": (
        "space.learning_rate: low must be above 0 on a log scale, received low 0.0; "
        "give a number above 0"
    ),
    "space: {learning_rate: {step: 0.1}}": (
        "space.learning_rate: a log scale has no step, received step 0.1: give step or log"
    ),
    "space: {rotation_factor: {high: 0.33}}": (
        "space.rotation_factor: high must be low plus a whole number of steps, received low 0.0, "
        "high 0.33, step 0.05: change one of them, or give step: null"
    ),
    "space: {rotation_factor: {step: 1e-9}}": (
        "space.rotation_factor: a range may have 1,000,000 steps at most, received low 0.0, "
        "high 0.05, step 1e-09: give a larger step, or step: null"
    ),
    "space: {padding: {low: 1, high: 2}}": (
        "space.padding: it must be a list of choices or one value, "
        "received {'low': 1, 'high': 2}; give valid or same"
    ),
    "space: {optimizer: []}": (
        "space.optimizer: must be adam, adamw or sgd, received (); "
        "leave it out for the default, [adam, adamw, sgd]"
    ),
    "space: {optimizer: [adam, adam]}": (
        "space.optimizer: a choice may be given once, received 'adam' twice; "
        "give adam, adamw or sgd"
    ),
    "space: {conv_dropout: [.nan]}": (
        "space.conv_dropout: a choice must be a word, a number, true or false, received nan; "
        "give a list of such, or a range {low: …, high: …} for numbers"
    ),
    "space: {conv_dropout: {low: .nan}}": (
        "space.conv_dropout.low: must be a finite number, received nan; give a number from 0 to 0.9"
    ),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_name_rule_value_and_remedy(tmp_path: Path, text: str) -> None:
    assert problems(written(tmp_path, text), data="a") == [REFUSALS[text]]


def test_data_is_required() -> None:
    assert problems(None) == [
        "data: it is required, but missing; "
        "give a folder, an archive, a URL, sample or cats_and_dogs"
    ]


def test_a_path_holds_no_control_character() -> None:
    assert problems(None, data="a\nb") == [
        "data: it must hold no control character, received 'a\\nb'; rename it; "
        "give a folder, an archive, a URL, sample or cats_and_dogs"
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "trails: 3\nepochs: 0\nspace: {dropout: 1, filters: [3]}\n")
    found = problems(path, ["nonsense", "space.kernel_size=[", "seed=-1"], data="a")
    assert [line.partition(":")[0] for line in found if not line.startswith("--set must")] == [
        "--set space.kernel_size",
        "epochs",
        "seed",
        "space.filters",
        "space.dropout",
        "trails",
    ]
    assert "--set must be KEY=VALUE, received 'nonsense'" in found[0]


def test_a_setting_inside_a_list_cannot_be_set(tmp_path: Path) -> None:
    path = written(tmp_path, "data: a\nspace: {conv_depth: [2, 3]}")
    assert problems(path, ["space.conv_depth.high=4"]) == [
        "space.conv_depth.high: space.conv_depth is [2, 3], which has no 'high'; "
        "set space.conv_depth as a whole, or leave it out"
    ]


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    (line,) = problems(written(tmp_path, f"data: a\ntrials: {'9' * 5000}"))
    assert len(line) < 200


# --- files

BAD_FILES = {
    "data: [a": "line 1, column 9: this is no YAML: while parsing a flow sequence, "
    "expected ',' or ']', but got '<stream end>'",
    "data: a\n\tseed: 1": "line 2, column 1: this is no YAML: while scanning for the next token, "
    "found character '\\t' that cannot start any token",
    "data: a\nseed: 1\nseed: 2": "line 3, column 1: a key may be given once, "
    "received 'seed' twice; leave one out",
    "data: &a x\nname: *a": "line 2, column 7: aliases are not taken, received *a; "
    "write the value out",
    "data: !!python/object/apply:os.getcwd []": "line 1, column 7: tags are not taken, "
    "received tag:yaml.org,2002:python/object/apply:os.getcwd; leave it out",
    "? [a]\n: 1": "line 1, column 3: a key must be a word, received a sequence; write key: value",
    "- data": "it must hold settings, key: value, received ['data']; "
    "write for example data: sample",
    "[" * 5000: "the YAML is nested too deeply; settings are three levels deep",
    "data: a\x00": "this is no YAML: unacceptable character #x0000: special characters are not "
    'allowed in "<unicode string>", position 7',
    "#" * 100_001: "settings may take 100,000 bytes at most, received 100,001; "
    "is this another file?",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=lambda text: text[:20])
def test_bad_files_name_line_and_column(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert problems(path) == [f"{path}: {BAD_FILES[text]}"]


def test_a_file_that_is_not_there() -> None:
    assert problems(Path("no.yaml")) == [
        "--config must name a readable file, received no.yaml: No such file or directory; "
        "check the path"
    ]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_bytes(b"data: \xff\xfe")
    assert problems(path) == [f"{path}: settings must be UTF-8 text, received other bytes"]


def test_yaml_is_version_1_2() -> None:
    text = "a: on\nb: 1e-4\nc: 2026-11-22\nd: 010\ne: 12:30\nf: [~, true, -3, .5, 1.]\ng: '1'\nh:"
    assert read_yaml(text) == {
        "a": "on",
        "b": 1e-4,
        "c": "2026-11-22",
        "d": "010",
        "e": "12:30",
        "f": [None, True, -3, 0.5, 1.0],
        "g": "1",
        "h": None,
    }


# --- round trips

printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["on", "1e-4", "1e5", ".5", "null", "~", "2026-11-22", "010", "+1", "- a"]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(printable, trees, max_size=4))
def test_yaml_reads_back_what_was_written(value: dict[str, Any]) -> None:
    assert read_yaml(write_yaml(value)) == value


@given(st.text(max_size=200))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        read_yaml(text)


def some(*values: Any) -> st.SearchStrategy[Choices]:
    picked = st.lists(st.sampled_from(values), min_size=1, unique=True)
    return picked.map(lambda chosen: Choices(choices=tuple(chosen)))


def ranges(kind: type[IntRange] | type[FloatRange], values: Any) -> st.SearchStrategy[Any]:
    ends = st.tuples(values, values).map(sorted)
    return st.builds(
        lambda pair, log: kind(low=pair[0], high=pair[1], log=log and pair[0] > 0),
        ends,
        st.booleans(),
    )


def int_domains(low: int, high: int) -> st.SearchStrategy[Choices | IntRange]:
    return ranges(IntRange, st.integers(low, high)) | some(low, high, (low + high) // 2 + 1)


def float_domains(low: float, high: float) -> st.SearchStrategy[Choices | FloatRange]:
    values = st.floats(low, high)
    return ranges(FloatRange, values) | values.map(lambda value: Choices(choices=(value,)))


spaces = st.builds(
    SpaceConfig,
    flip=some("none", "horizontal", "horizontal_and_vertical"),
    rotation_factor=float_domains(0, 1),
    learning_rate=float_domains(1e-9, 1e9),
    batch_size=int_domains(1, 4096),
    batch_norm=some(True, False),
    conv_depth=int_domains(1, 5),
    filters=int_domains(4, 512),
    filter_growth=float_domains(1, 4),
    kernel_size=int_domains(1, 7),
    conv_dense_width=int_domains(0, 512),
    head_dropout=float_domains(0, 0.9),
    backbone=st.sampled_from(BACKBONES).map(lambda name: Choices(choices=(name,))),
)
configs = st.builds(
    SearchConfig,
    data=printable,
    name=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
    runs_dir=printable,
    families=st.sampled_from([None, ("conv",), ("transfer",), ("transfer", "conv")]),
    weights=st.none() | printable,
    image_size=st.lists(st.integers(32, 1024), min_size=1, max_size=4, unique=True).map(tuple),
    trials=st.integers(0, 10**9),
    epochs=st.integers(1, 10**9),
    seed=st.integers(0, 2**31 - 1),
    metric=st.sampled_from(["val_accuracy", "val_balanced_accuracy", "val_loss"]),
    baselines=st.sampled_from(["on", "only"]),
    class_weights=st.booleans(),
    time_budget_s=st.none() | st.floats(1e-3, 1e9),
    resources=st.builds(
        ResourcesConfig,
        concurrency=st.none() | st.integers(1, 999),
        cpus_per_trial=st.floats(0.01, 99),
        gpus_per_trial=st.none() | st.floats(0, 1),
        address=st.none() | printable,
    ),
    scheduler=st.builds(SchedulerConfig, name=st.sampled_from(["asha", "none"])),
    sampler=st.builds(SamplerConfig, name=st.sampled_from(["tpe", "random", "nsga2"])),
    speed=st.builds(SpeedConfig, bank=st.booleans(), views=st.integers(1, 256)),
    space=spaces,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_a_written_configuration_reads_back_equal(tmp_path: Path, config: SearchConfig) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


# --- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("600", 600), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1m30", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "ten", "30m1h", "1d", "0h0m", "m"])
def test_refused_durations(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_duration(text)
    assert str(caught.value) == (
        f"a duration must be seconds above 0, or like 90s, 10m or 1h30m, received {text!r}; "
        "give for example 10m"
    )


# --- rules that two places state


@pytest.mark.parametrize("depth", [1, 5])
def test_depths_of_the_space_are_those_of_the_spec(depth: int) -> None:
    assert len(ConvSpec(filters=(8,) * depth).filters) == depth


@pytest.mark.parametrize("depth", [0, 6])
def test_other_depths_are_no_spec(depth: int) -> None:
    with pytest.raises(ValueError, match="filters"):
        ConvSpec(filters=(8,) * depth)


def test_the_documented_settings_are_the_settings() -> None:
    assert settings_table() in (DOCS / "configuration.md").read_text(encoding="utf-8")


def test_every_documented_file_is_valid(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    examples = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        load_config(written(tmp_path, example), [], {"data": "sample"})
        # The same file for a reader that speaks YAML 1.1.
        assert isinstance(yaml.safe_load(example), dict)
