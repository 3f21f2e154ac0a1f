"""Which part may know which: imports run one way, and what must be quick loads nothing heavy."""

import ast
import re
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_pipeline", "models", "search")
HEAVY = ("keras", "matplotlib", "optuna", "pandas", "ray", "tensorboardX", "tensorflow")

# A package, or one module of it, and what none of its lines may import, not even late.
FORBIDDEN = {
    "data_pipeline": ("models", "search", "tensorflow", "keras", "ray"),
    "models": ("data_pipeline", "search", "ray"),
    "models/spec.py": ("keras", "tensorflow", "numpy"),
    "search": ("tests", "benchmarks"),
}


def modules(part: str) -> list[Path]:
    path = ROOT / part
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all imports in a file, at whatever depth they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays inside its package.
            yield (node.module or "").partition(".")[0] if not node.level else path.parent.name


def test_the_walk_sees_late_and_conditional_imports(tmp_path: Path) -> None:
    source = "import a.b\nif x:\n    from c.d import e\ndef f():\n    import g\nfrom . import h\n"
    path = tmp_path / "module.py"
    path.write_text(source)
    assert sorted(imports(path)) == sorted(["a", "c", "g", tmp_path.name])


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_run_one_way(part: str) -> None:
    assert modules(part), f"{part} holds no module"
    wrong = {
        str(path.relative_to(ROOT)): sorted(set(imports(path)) & set(FORBIDDEN[part]))
        for path in modules(part)
    }
    assert {path: names for path, names in wrong.items() if names} == {}


def test_every_package_is_shipped() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"packages = {list(PACKAGES[::-1])}".replace("'", '"') in text
    # One level: a package inside a package would have to be listed too.
    assert [path for part in PACKAGES for path in (ROOT / part).glob("*/__init__.py")] == []


def declared() -> dict[str, set[str]]:
    """Normalised names of the distributions that pyproject.toml asks for, by kind."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kinds = {"run": project["dependencies"], "dev": project["optional-dependencies"]["dev"]}
    return {kind: {plain(requirement) for requirement in asked} for kind, asked in kinds.items()}


def plain(requirement: str) -> str:
    """Name of a distribution, without its extras and version, as indexes normalise it."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_every_import_is_a_declared_dependency() -> None:
    distributions = packages_distributions()
    foreign = {
        plain(distributions.get(name, [name])[0])
        for part in PACKAGES
        for path in modules(part)
        for name in imports(path)
        if name not in sys.stdlib_module_names and name not in PACKAGES
    }
    assert foreign - declared()["run"] == set()


def test_every_dependency_has_a_stated_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {plain(name) for name in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)}
    assert rows == declared()["run"] | declared()["dev"]


def test_every_dependency_has_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", pin)] == []
    assert declared()["run"] | declared()["dev"] <= {plain(pin) for pin in pins}


def loaded_after(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running code."""
    probe = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )
    return set(ast.literal_eval(done.stdout.strip().splitlines()[-1]))


def after_command(*arguments: str) -> str:
    return (
        f"sys.argv = {['pawtune', *arguments]}\n"
        "from search.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )


def test_packages_are_light_to_import() -> None:
    code = "import data_pipeline, models, search, models.spec, search.config, search.errors"
    assert loaded_after(code) == set()


def test_public_names_of_search_exist() -> None:
    code = "import search\nassert all(getattr(search, name) for name in search.__all__)"
    loaded_after(code)


def test_an_unknown_public_name_is_no_attribute() -> None:
    import search

    with pytest.raises(AttributeError, match="module 'search' has no attribute 'serch'"):
        search.serch  # noqa: B018


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(after_command("--help")) == set()


@pytest.mark.parametrize("command", [("leaderboard", "none"), ("show", "none", "0001")])
def test_listings_do_without_tensorflow(command: tuple[str, ...]) -> None:
    assert loaded_after(after_command(*command)) & {"tensorflow", "keras", "ray"} == set()


def test_help_answers_at_once() -> None:
    """Median of seven under 0.5 s; the first start may still be compiling bytecode."""
    command = [sys.executable, "-m", "search", "--help"]
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds[1:]) < 0.5, seconds


def asks_for_test_images(path: Path) -> bool:
    """Whether a file holds manifest.split("test"), or labels("test")."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("split", "labels")
        and any(isinstance(value, ast.Constant) and value.value == "test" for value in node.args)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_only_the_evaluation_asks_for_test_images() -> None:
    asking = [path for part in PACKAGES for path in modules(part) if asks_for_test_images(path)]
    assert [str(path.relative_to(ROOT)) for path in asking] == ["search/evaluation.py"]


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business, not the repository's."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of files to look through")
    words = [f"{prefix}-url" for prefix in ("index", "extra-index")] + ["find" + "-links"]
    patterns = [argument for word in words for argument in ("-e", word)]
    found = subprocess.run(
        ["git", "grep", "-l", "-i", "-F", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout == ""
    assert found.returncode == 1, found.stderr  # 1: nothing found; more: git failed
