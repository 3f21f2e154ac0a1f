"""Which part may know which: imports run one way, and what must be quick loads nothing heavy."""

import ast
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_pipeline", "models", "search")
HEAVY = ("keras", "matplotlib", "optuna", "pandas", "ray", "tensorboard", "tensorflow")

# A room of search/, or a file beside them, and which of the others its lines may import, late and
# typing imports included. Those of the vocabulary are open to all.
VOCABULARY = {"errors", "markdown", "objective", "process", "streams", "trial_report"}
BASE = {"config", "storage"}
ROOMS = {
    "config": set[str](),
    "sampling": BASE,
    "storage": {"config"},
    "cluster": BASE,
    "results": {"storage"},
    "tensorboard": BASE | {"results", "report"},
    "progress": BASE | {"cluster", "results"},
    "shared_work": BASE | {"cluster"},
    "worker": BASE | {"cluster", "shared_work"},
    "tuning": BASE | {"cluster", "sampling", "tensorboard", "progress"},
    "retraining": BASE | {"cluster", "worker", "shared_work", "results", "progress"},
    "out_of_fold": BASE | {"results", "shared_work"},
    "run": BASE | {"out_of_fold", "progress", "results", "retraining", "sampling"},
    "report": BASE | {"run", "sampling", "results"},
    "jobs": BASE | {"run"},
    "integrations": BASE | {"run", "results"},
    "driver": BASE
    | {"cluster", "progress", "results", "run", "sampling", "shared_work", "tuning", "worker"},
    "doctor": {"cluster", "config"},
    "dry_run": BASE | {"cluster", "driver", "progress", "shared_work"},
}
ABOVE_ALL = "cli"  # imports any room; imported by the console script alone

# Which of the packages outside each may be imported, beyond its own.
FORBIDDEN = {
    "data_pipeline": ("models", "search", "tensorflow", "keras", "ray", "typer"),
    "models": ("data_pipeline", "search", "ray", "typer", "matplotlib"),
    "models/spec.py": ("keras", "tensorflow", "numpy"),
    "models/model_spec.py": ("keras", "tensorflow", "numpy"),
    "search": ("tests", "benchmarks"),
}
HOMES = {  # of search/ alone
    "ray": (
        "cluster",
        "shared_work",
        "worker",
        "tuning",
        "retraining",
        "jobs",
        "integrations/serve_app.py",
        "driver.py",
        "doctor",
    ),
    "typer": ("cli",),
    "matplotlib": ("report",),
}
# What the move into rooms has left to mend: each line goes with its cause.
KNOWN_WRONG = set[str]()
MOST_MODULES = 14  # of a folder


def modules(part: str) -> list[Path]:
    path = ROOT / part
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def dotted(path: Path) -> str:
    """Name of a file's module, without `pawtune`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> Iterator[str]:
    """All that a file imports, at whatever depth: `a.b` for `import a.b`, `a.b.c` for a name c.

    Of our own packages without `pawtune`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("pawtune.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            module = (node.module or "").removeprefix("pawtune.")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all imports in a file; `search`, not `pawtune`, for one of our own."""
    for name in imported(path.read_text(encoding="utf-8")):
        yield name.partition(".")[0]


def test_the_walk_sees_late_and_conditional_imports() -> None:
    source = (
        "import a.b\nif x:\n    from c.d import e\ndef f():\n    import g\n"
        "from pawtune.search import run\n"
    )
    assert sorted(imported(source)) == ["a.b", "c.d.e", "g", "search.run"]


@pytest.mark.parametrize("part", FORBIDDEN)
def test_packages_import_one_way(part: str) -> None:
    assert modules(part), f"{part} holds no module"
    wrong = {
        str(path.relative_to(ROOT)): sorted(set(imports(path)) & set(FORBIDDEN[part]))
        for path in modules(part)
    }
    assert {path: names for path, names in wrong.items() if names} == {}


def room_of(module: str) -> str:
    """`search.cluster.capacity` is in cluster; `search.driver` stands for itself."""
    return module.split(".")[1]


def search_modules() -> Iterator[tuple[str, Path]]:
    for path in modules("search"):
        if dotted(path) != "search":
            yield room_of(dotted(path)), path


def test_every_room_has_its_rule() -> None:
    assert {room for room, _ in search_modules()} == {*ROOMS, *VOCABULARY, ABOVE_ALL}


def test_rooms_import_what_their_rule_allows() -> None:
    wrong = set()
    for room, path in search_modules():
        if room == ABOVE_ALL:
            continue
        for name in imported(path.read_text(encoding="utf-8")):
            if name.startswith("search."):
                other = room_of(name)
                allowed = set() if room in VOCABULARY else ROOMS[room] | VOCABULARY | {room}
                if other not in allowed:
                    wrong.add(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == KNOWN_WRONG


def test_a_room_says_what_it_imports() -> None:
    """In the last sentence of its text; and the map of the rooms has them all."""
    named = {room for room in ROOMS if (ROOT / "search" / room).is_dir()}
    for room in named:
        text = " ".join((ROOT / "search" / room / "__init__.py").read_text("utf-8").split())
        said = re.search(r"Of search it imports ([^.;]+)[.;]", text)
        assert said is not None, room
        assert set(re.findall(r"\w+", said[1])) & ROOMS.keys() == ROOMS[room], room
    for page in (ROOT / "README.md", ROOT / "search" / "__init__.py"):
        assert named <= set(re.findall(r"\w+", page.read_text("utf-8"))), page


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_used_in_its_rooms_only(library: str) -> None:
    homes = tuple(str(ROOT / "search" / home) for home in HOMES[library])
    users = [path for path in modules("search") if library in set(imports(path))]
    assert users
    assert [str(path.relative_to(ROOT)) for path in users if not str(path).startswith(homes)] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {dotted(path): path for part in PACKAGES for path in modules(part)}
    graph = {
        name: {
            target
            for imported_name in imported(path.read_text(encoding="utf-8"))
            for target in (imported_name, imported_name.rpartition(".")[0])
            if target in files and target != name
        }
        for name, path in files.items()
    }
    while True:  # what imports nothing that is left is in no circle
        free = [name for name, targets in graph.items() if not targets & graph.keys()]
        if not free:
            break
        for name in free:
            del graph[name]
    assert graph == {}


def test_only_a_family_names_its_specification() -> None:
    """A family is one file: what serves all families reads the table."""
    names = re.compile(
        r"\b(ConvSpec|TransferSpec|FinetuneSpec|ConvFamily|TransferFamily|FinetuneFamily)\b"
    )
    paths = [path for part in PACKAGES for path in modules(part)]
    naming = {dotted(p) for p in paths if names.search(p.read_text(encoding="utf-8"))}
    assert naming == {f"models.families.{name}" for name in ("conv", "transfer", "finetune")}


def private_names(source: str) -> set[str]:
    """Underscored modules that a file imports, and underscored attributes that it does not define.

    Those of a class are defined by a method, a field, or an assignment to an attribute.
    """
    tree = ast.parse(source)
    nodes = [*ast.walk(tree)]
    defined = {
        getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "attr", None)
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        or isinstance(getattr(node, "ctx", None), ast.Store)
    }
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - defined
    inherited = {  # overriding a private method is use of it
        node.func.attr if isinstance(node.func, ast.Attribute) else ""
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("super()._")
    }
    modules = {part for name in imported(source) for part in name.split(".")}
    modules |= {name for name in imported(source) if "keras.src" in name or ".execution" in name}
    found = used | inherited | modules
    private = {x for x in found if re.match("_[a-z]", x) or "keras.src" in x or ".execution" in x}
    return private - {"_replace", "_asdict", "_exit"}  # public in spite of the underscore


def test_private_parts_of_others_are_in_one_file() -> None:
    assert private_names("from a._b import c\nx = y._z\nself._q = self._r\n") == {"_b", "_z", "_r"}
    using = {
        dotted(path): names
        for part in PACKAGES
        for path in modules(part)
        if (names := private_names(path.read_text(encoding="utf-8")))
    }
    assert using.pop("search.cluster.ray_internals")
    # Python's reader of archives has no public place to refuse a header before it is read.
    assert using.pop("data_pipeline.sources.archives") == {"_proc_member"}
    assert using == {}


def test_no_folder_is_a_drawer() -> None:
    folders = {path.parent for part in PACKAGES for path in modules(part)}
    counts = {
        str(folder.relative_to(ROOT)): len([p for p in folder.glob("*.py") if p.stem != "__init__"])
        for folder in folders
    }
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


def test_a_package_says_what_it_is_for_and_no_more() -> None:
    for part in PACKAGES:
        for path in (ROOT / part).rglob("__init__.py"):
            (only,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(only, ast.Expr), path


def test_what_docstrings_list_is_named_by_a_noun() -> None:
    """ "seed: Of the draws." leaves the reader to guess what of the draws."""
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for part in PACKAGES
        for path in modules(part)
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s+[a-z_0-9]+: (Of|That|What|Those|Who|As|Which) ", line)
    ]
    assert lines == []


def test_every_package_is_shipped() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "pawtune").iterdir() if path.is_dir()}
    assert {name: links.get(name) for name in PACKAGES} == {name: ROOT / name for name in PACKAGES}
    assert all((folder / "__init__.py").exists() for part in PACKAGES for folder in rooms(part))


def rooms(part: str) -> set[Path]:
    return {path.parent for path in modules(part)}


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
        if name not in sys.stdlib_module_names and name not in {*PACKAGES, "pawtune"}
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
        "from pawtune.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )


def test_packages_are_light_to_import() -> None:
    code = (
        "import pawtune, pawtune.models.spec, pawtune.search.errors\n"
        "import pawtune.search.config.search_config"
    )
    assert loaded_after(code) == set()


def test_the_driver_leaves_tensorflow_to_workers() -> None:
    assert loaded_after("import pawtune.search.driver") & {"tensorflow", "keras"} == set()


def test_public_names_exist() -> None:
    import pawtune

    assert all(getattr(pawtune, name) for name in pawtune.__all__)
    with pytest.raises(AttributeError, match="module 'pawtune' has no attribute 'run_serch'"):
        pawtune.run_serch  # noqa: B018


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(after_command("--help")) == set()


@pytest.mark.parametrize("command", [("leaderboard", "none"), ("show", "none", "0001")])
def test_listings_do_without_tensorflow(command: tuple[str, ...]) -> None:
    assert loaded_after(after_command(*command)) & {"tensorflow", "keras", "ray"} == set()


def cpu_seconds(*arguments: str) -> float:
    """The least processor time of three starts of Python; the first may compile bytecode."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, timeout=300, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def test_help_answers_at_once() -> None:
    """It takes 1.3 times what its own libraries do; NumPy alone would make that 2.4 times."""
    libraries = cpu_seconds("-c", "import typer.rich_utils, rich.markdown, rich.table")
    assert cpu_seconds("-m", "pawtune", "--help") < 2 * libraries


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
    assert [str(path.relative_to(ROOT)) for path in asking] == ["search/results/evaluation.py"]


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
