"""A family of one's own: the file of docs/extending.md, through the command line."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from pawtune.models.errors import ModelError
from pawtune.models.families import own
from pawtune.models.families.domains import Choices
from pawtune.models.families.own import use_family
from pawtune.models.families.parameters import SHARED, of_model
from pawtune.models.families.table import CONV, OWN, find_family
from pawtune.models.model_spec import ModelSpec
from pawtune.search.config.search_config import SearchConfig, dump_config, load_config
from pawtune.search.errors import UserError
from pawtune.search.jobs.ray_jobs import pack
from tests.command_line import pawtune
from tests.image_files import write_image

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
PLACE = "nets:Separable"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the page's file in it; no family is in use before or after."""
    write_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    forget()
    yield tmp_path
    forget()


def write_page(folder: Path) -> None:
    _, code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 60
    (folder / "nets.py").write_text(code, encoding="utf-8")


def forget() -> None:
    """As in a process that has just begun."""
    OWN.clear()
    sys.modules.pop("nets", None)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_the_pages_family_searches_resumes_reports_exports_and_reproduces(
    folder: Path, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_family(PLACE)
    (folder / "nets.py").unlink()  # a worker has the class without having its file
    search = ["--data", tiny_images, "--name", "mine", "--families", "separable", "--quiet"]
    quick = ["--image-size", 32, "--trials", 1, "--epochs", 2, "--no-baselines"]
    space = ["--set", "space.blocks=2", "--set", "space.width=[8, 16]"]
    done = pawtune(capsys, "run", *search, *quick, *space, "--family", PLACE, "--json")
    assert done.code == 0, done.err
    rows = done.json["leaderboard"]
    assert {row["family"] for row in rows} == {"separable"}
    assert {row["params"]["blocks"] for row in rows} == {2}

    forget()
    write_page(folder)
    refused = pawtune(capsys, "leaderboard", "mine")
    assert refused.code == 2
    assert refused.err.count("\n") <= 2
    assert "give --family nets:Separable" in refused.err
    assert "nets" not in sys.modules  # what a folder holds imports nothing

    for verb in (
        ["resume", "mine", "--trials", "+1", "--quiet"],
        ["report", "mine"],
        ["test", "mine"],
        ["best", "mine", "--out", "best.keras"],
        ["export", "mine", "--format", "savedmodel", "--out", "saved"],
        ["reproduce", "mine", "--quiet", "--json"],
    ):
        ended = pawtune(capsys, *verb, "--family", PLACE)
        assert ended.code == 0, ended.err
    assert ended.json["identical"], ended.json
    assert len(pawtune(capsys, "leaderboard", "mine", "--json").json) == 2
    report = (folder / "runs" / "mine" / "report.html").read_text(encoding="utf-8")
    assert "separable-0002" in report
    assert any((folder / "runs" / "mine" / "tb").rglob("events.out.tfevents.*"))

    forget()  # a model that is passed on needs none of it
    write_image(folder / "photo.png", np.full((40, 50, 3), 200, np.uint8))
    assert pawtune(capsys, "predict", "best.keras", "photo.png").code == 0


def test_its_parameters_are_settings_like_any(folder: Path) -> None:
    use_family(PLACE)
    options = {"data": "sample", "own_families": [PLACE]}
    config = load_config(None, ["space.blocks=[3]", "space.flip=none"], options)
    assert config.space.domain("blocks") == Choices(choices=(3,))
    assert config.family_names == ("conv", "transfer", "finetune", "separable")
    with pytest.raises(UserError, match=r"space\.blocs: no such setting; did you mean 'blocks'\?"):
        load_config(None, ["space.blocs=3"], options)
    with pytest.raises(UserError, match="no model may have 9 here; give 1 to 5 blocks"):
        load_config(None, ["space.blocks=9"], options)
    with pytest.raises(UserError, match=r"space\.blocks: no such setting"):
        load_config(None, ["space.blocks=3"], {"data": "sample"})  # not asked for in this search


def test_a_configuration_keeps_the_place_and_reads_back(folder: Path) -> None:
    sys.path.append(str(folder))
    try:
        from nets import Separable  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    given: Any = {"own_families": [Separable], "space": {"width": [8]}}
    config = SearchConfig(data="sample", **given)
    assert config.own_families == (PLACE,)
    (folder / "search.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(folder / "search.yaml") == config


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nets", "is named package.module:Name, received 'nets'; give for example"),
        ("nothere:Net", "can be imported, received 'nothere:Net': ModuleNotFoundError"),
        ("nets:Separate", "received 'nets:Separate': AttributeError"),
        ("math:pi", "must be a class, received 'math:pi', a float"),
        ("collections:OrderedDict", "lacks name, spec_type, parameters"),
    ],
)
def test_a_place_without_a_family_is_refused(folder: Path, place: str, told: str) -> None:
    with pytest.raises(ModelError, match=re.escape(told)):
        use_family(place)
    assert not OWN


class TakenSpec(ModelSpec):
    """A specification whose parameter has a name that `conv` has."""

    family: Literal["taken"] = "taken"
    padding: bool = True


class Taken(type(CONV)):  # type: ignore[misc]
    """A family whose names are not all its own."""

    name = "taken"
    spec_type = TakenSpec
    parameters = (*SHARED, of_model(TakenSpec, "padding", Choices(choices=(True,)), "Any."))
    baselines: ClassVar[dict[str, Any]] = {}


def test_names_have_one_meaning(folder: Path) -> None:
    with pytest.raises(ModelError, match="'padding' of .*:Taken, .* prefix, taken_padding$"):
        use_family(Taken)
    same = type("Same", (Taken,), {"name": "conv", "spec_type": CONV.spec_type, "parameters": ()})
    with pytest.raises(ModelError, match="received 'conv' of .*, which is a family of pawtune"):
        use_family(same)
    other = type("Other", (Taken,), {"name": "other"})
    with pytest.raises(ModelError, match='must declare family: Literal\\["other"\\]'):
        use_family(other)


def test_a_family_that_is_defined_again_replaces_itself(folder: Path) -> None:
    use_family(PLACE)
    first = find_family("separable")
    sys.modules.pop("nets")
    use_family(PLACE)
    assert find_family("separable") is not first
    assert len(OWN) == 1


def test_a_job_takes_the_file_or_the_package_along(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    use_family(PLACE)
    job = tmp_path_factory.mktemp("job")
    pack(job, None, [PLACE])
    assert (job / "nets.py").read_text() == (folder / "nets.py").read_text()
    package = ModuleType("mine")
    package.__path__ = [str(folder / "mine")]
    package.__file__ = str(folder / "mine" / "__init__.py")
    sys.modules["mine"] = package
    try:
        assert own.code_of("mine.nets:Separable") == folder / "mine"
    finally:
        del sys.modules["mine"]
    with pytest.raises(ModelError, match="defined in a module to be sent elsewhere"):
        own.code_of("__main__:Separable")
