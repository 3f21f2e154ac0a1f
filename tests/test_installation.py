"""What is installed is `pawtune` alone: a user's modules of our folders' names are never run."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

import pawtune

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("search", "models", "data_pipeline")
SEARCH = ["--families=conv", "--trials=2", "--epochs=1", "--image-size=32", "--no-baselines"]


@pytest.fixture
def hostile(tmp_path: Path, tiny_images: Path) -> Path:
    """A folder with images, and modules that leave a mark when anybody executes them."""
    folder = tmp_path / "mine"
    (folder / "data_pipeline").mkdir(parents=True)
    (folder / "models").mkdir()
    mark = f"open({str(tmp_path / 'executed')!r}, 'a').write(__name__ + '\\n')\n"
    for name in ("search.py", "models.py", "models/__init__.py", "data_pipeline/__init__.py"):
        (folder / name).write_text(mark)
    for name in ("search.py", "models.py", "data_pipeline.py"):
        (folder / name).write_text(mark)
    (folder / "photos").symlink_to(tiny_images)
    return folder


def run(python: Path, folder: Path, *command: str) -> None:
    """A command of the package that `python` has, in a folder, with nothing else on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def search_from(python: Path, folder: Path, how: Sequence[str]) -> None:
    data = ["--data", str((folder / "photos").resolve()), "--name=mine", "--runs-dir=runs"]
    run(python, folder, *how, "run", *data, *SEARCH)
    assert (folder / "runs" / "mine" / "leaderboard.csv").exists()
    assert not (folder.parent / "executed").exists()


def test_a_users_own_modules_are_not_executed(hostile: Path) -> None:
    """Neither by the driver nor by its workers, which have the current folder on their path."""
    program = Path(sys.executable).with_name("pawtune")
    search_from(Path(sys.executable), hostile, [str(program)])


def test_a_script_beside_them_may_import_pawtune(hostile: Path) -> None:
    script = hostile / "look.py"
    script.write_text("import pawtune\nprint(pawtune.SearchConfig(data='sample').trials)\n")
    run(Path(sys.executable), hostile, str(script))
    assert not (hostile.parent / "executed").exists()


@pytest.mark.slow
def test_a_wheel_is_all_that_is_needed(hostile: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    pip = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    sources = tmp_path / "sources"  # a build leaves files beside what it builds
    sources.mkdir()
    for name in (*FOLDERS, "pawtune"):
        shutil.copytree(REPOSITORY / name, sources / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, sources)
    built = subprocess.run(
        [*build, "--wheel-dir", tmp_path, sources], env=pip, capture_output=True, text=True
    )
    if "No module named pip" in built.stderr:
        pytest.skip("this environment has no pip to build a wheel with")
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("pawtune-*.whl")
    place = tmp_path / "environment"
    venv.create(place, with_pip=False)
    (libraries,) = place.glob("lib/python*/site-packages")
    # What the wheel depends on, without this environment's own pawtune.
    (libraries / "dependencies.pth").write_text("\n".join(dependencies()) + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
         "--target", libraries, wheel],
        env=pip, check=True, capture_output=True,
    )  # fmt: skip
    installed = libraries / "pawtune"
    assert all((installed / name).is_dir() for name in FOLDERS)
    assert not [path for path in installed.rglob("*") if path.is_symlink()]
    assert not [name for name in FOLDERS if (libraries / name).exists()]
    search_from(place / "bin" / "python", hostile, ["-P", "-m", "pawtune"])


def dependencies() -> list[str]:
    """The folders of this environment that hold libraries."""
    return [path for path in sys.path if Path(path).name == "site-packages"]


def test_this_checkout_is_what_is_tested() -> None:
    assert Path(pawtune.__file__).resolve().parent == REPOSITORY / "pawtune"
