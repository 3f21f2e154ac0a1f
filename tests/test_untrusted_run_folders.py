"""A run folder, a model file or a configuration from a stranger runs no code and is refused in a
line by every command that reads it."""

import io
import json
import os
import pickle
import platform
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import optuna
import pytest

from pawtune.models.families.conv import ConvSpec
from pawtune.search.results.delivery.model_file import save_complete
from pawtune.search.run import open_run
from pawtune.search.storage.run_folder import RunFolder
from tests.command_line import pawtune
from tests.run_folders import RunMaker

Craft = Callable[[RunFolder], object]
CANARY = "pwned"
READERS = ("leaderboard", "show", "status", "report", "plot", "best", "export", "test")
ALL = (*READERS, "resume", "tensorboard")
OF_MANIFEST = ("best", "export", "test", "resume")
OF_LEDGER = ("report", "plot", "best", "export", "test")
OF_FACTS = (*READERS, "tensorboard")
OF_WEIGHTS = ("best", "export", "test")
OPTIONS = {
    "show": ["0001"],
    "plot": ["--out", "curves.png"],
    "best": ["--out", "best.keras"],
    "export": ["--out", "exported.keras"],
    "resume": ["--quiet"],
}


class Canary:
    """Whoever unpickles this runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> RunFolder:
    """A run of two trials with weights, which every command reads without complaint."""
    maker = RunMaker(tmp_path_factory.mktemp("sound"), tiny_images, image_size=32, trials=2)
    for number in (1, 2):
        maker.add_net(ConvSpec(image_size=32, filters=(4,)), seed=number)
    maker.look_at_test()
    return maker.finish()


@pytest.fixture
def run(sound: RunFolder, tmp_path: Path) -> Iterator[RunFolder]:
    """A copy to spoil; whatever is done to it, no code of its runs."""
    yield RunFolder(Path(shutil.copytree(sound.root, tmp_path / "runs" / "strange")))
    assert not list(tmp_path.rglob(CANARY))


def edit(name: str, /, **values: object) -> Craft:
    """Changes some values of a JSON file."""

    def craft(run: RunFolder) -> None:
        file = run.root / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return craft


def text(name: str, content: str | bytes) -> Craft:
    """Writes a file again."""
    data = content.encode() if isinstance(content, str) else content
    return lambda run: (run.root / name).write_bytes(data)


def swapped(name: str, old: str, new: str) -> Craft:
    """Replaces the first occurrence of something in a text file."""

    def craft(run: RunFolder) -> None:
        content = (run.root / name).read_text()
        assert old in content
        (run.root / name).write_text(content.replace(old, new, 1))

    return craft


def in_place_of(name: str, make: Callable[[Path], object]) -> Craft:
    """Puts something else in the place of a file."""

    def craft(run: RunFolder) -> None:
        (run.root / name).unlink(missing_ok=True)
        make(run.root / name)

    return craft


def linked(path: Path) -> None:
    path.symlink_to("/etc/passwd")


TAG = f"!!python/object/apply:os.system ['touch {CANARY}']"
LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nversions: {v: *c}\n"
SPEC, STATUS, METRICS = (
    f"trials/0001/{name}" for name in ("spec.json", "status.json", "metrics.csv")
)
FACTS = "trials/0001/facts.json"
DEEP = "[" * 200_000


def too_large(run: RunFolder) -> None:
    for trial in run.trials():
        edit(f"trials/{trial.trial_id}/spec.json", model=BIG)(run)


BIG = {"family": "conv", "image_size": 1024, "filters": [512], "dense_width": 512}

CRAFTED: dict[str, tuple[Craft, tuple[str, ...], str]] = {
    "yaml tag": (text("search.yaml", f"data: {TAG}\n"), ALL, "tags are not taken"),
    "yaml tag in versions": (text("search.yaml", f"data: x\nversions: {TAG}\n"), ALL, "tags"),
    "billion laughs": (text("search.yaml", f"data: x\n{LAUGHS}"), ALL, "aliases are not taken"),
    "yaml of huge numbers": (text("search.yaml", "data: x\ntrials: " + "9" * 5000), ALL, "trials"),
    "yaml of wrong types": (text("search.yaml", "data: [1]\nspace: 3\n"), ALL, "data"),
    "yaml nested deeply": (text("search.yaml", f"data: {DEEP[:1200]}"), ALL, "nested too deeply"),
    "yaml too large": (text("search.yaml", "#" * 200_000), ALL, "100,000 bytes at most"),
    "yaml no text": (text("search.yaml", b"\xff\xfe\0"), ALL, "must be UTF-8"),
    "spec no json": (text(SPEC, "{"), ALL, "spec.json must be readable JSON"),
    "spec a list": (text(SPEC, "[]"), ALL, "must hold a JSON object, received list"),
    "spec nested deeply": (text(SPEC, DEEP), ALL, "nested too deeply"),
    "spec of nothing": (text(SPEC, "{}"), ALL, "spec.json is not valid"),
    "spec of another model": (edit(SPEC, model={"family": "evil"}), ALL, "family must be conv or"),
    "spec of wrong types": (edit(SPEC, name=["x"]), ALL, "spec.json is not valid: name"),
    "spec with NaN": (swapped(SPEC, '"epochs": 2', '"epochs": NaN'), ALL, "NaN is no number"),
    "spec past any memory": (too_large, OF_WEIGHTS, "at most 20,000,000 weights"),
    "spec a pipe": (in_place_of(SPEC, os.mkfifo), ALL, "not a regular file"),
    "spec a link": (in_place_of(SPEC, linked), ALL, "a symbolic link, which is not followed"),
    "trial of another name": (
        lambda run: (run.trials_dir / "0001").rename(run.trials_dir / "[red]x"),
        ALL,
        "must be called by its number",
    ),
    "status unknown": (
        edit(STATUS, status="rooted"),
        ALL,
        "status must be one of pending, running, completed, stopped, failed, received 'rooted'",
    ),
    "status no object": (text(STATUS, '"x"'), ALL, "must hold a JSON object, received str"),
    "status no json": (text(STATUS, "{"), ALL, "status.json must be readable JSON"),
    "metrics of words": (swapped(METRICS, "\n1,", "\none,"), ALL, "csv must hold numbers only"),
    "metrics past 1": (swapped(METRICS, "\n1,", "\n1,0.5,9,"), ALL, "metrics.csv"),
    "metrics without a column": (
        swapped(METRICS, "val_accuracy", "val_luck"),
        ALL,
        "val_accuracy must be a number from 0 to 1, received nan",
    ),
    "metrics of one huge cell": (text(METRICS, "epoch\n" + "1" * 200_000), ALL, "field larger"),
    "metrics out of order": (swapped(METRICS, "\n1,", "\n7,"), ALL, "epochs must count upwards"),
    "metrics no text": (text(METRICS, b"\0\xff\n\0"), ALL, "metrics.csv"),
    "metrics a link": (in_place_of(METRICS, linked), ALL, "a symbolic link"),
    "facts of words": (edit(FACTS, num_weights="many"), OF_FACTS, "num_weights must be a whole"),
    "facts past any number": (edit(FACTS, num_weights=10**400), OF_FACTS, "num_weights must be"),
    "summary of words": (edit("summary.json", seconds="long"), ("status", "report"), "seconds"),
    "summary without reason": (edit("summary.json", reason=[1]), ("status", "report"), "reason"),
    "summary no json": (text("summary.json", "NaN"), ("status", "report"), "readable JSON"),
    "manifest climbs": (
        swapped("manifest.csv", "blue/", "../blue/"), OF_MANIFEST, "must stay below the root"
    ),
    "manifest is absolute": (
        swapped("manifest.csv", "blue/", "/etc/"), OF_MANIFEST, "must stay below the root"
    ),
    "manifest of no file name": (
        swapped("manifest.csv", "blue/", "\\udc00/"), OF_MANIFEST, "no file can have the name"
    ),
    "manifest of one huge cell": (
        swapped("manifest.csv", "blue/", "b" * 200_000), OF_MANIFEST, "field larger"
    ),
    "manifest changed": (
        swapped("manifest.csv", ",train,", ",test,"), OF_MANIFEST, "does not have the fingerprint"
    ),
    "manifest with a class that draws": (
        edit("manifest.json", class_names=["blue\x1b[2J", "red"]), OF_MANIFEST, "must be printable"
    ),
    "manifest nested deeply": (text("manifest.json", DEEP), OF_MANIFEST, "manifest.json"),
    "manifest a link": (in_place_of("manifest.csv", linked), OF_MANIFEST, "a symbolic link"),
    "ledger no json": (text("test.jsonl", "accuracy 1\n"), OF_LEDGER, "test.jsonl"),
    "ledger of words": (text("test.jsonl", '{"accuracy": "<b>"}\n'), OF_LEDGER, "must be a look"),
    "ledger nested deeply": (text("test.jsonl", DEEP), OF_LEDGER, "nested too deeply"),
    "ledger a link": (in_place_of("test.jsonl", linked), OF_LEDGER, "a symbolic link"),
    "weights no HDF5": (
        text("trials/0001/best/core.weights.h5", pickle.dumps(Canary())),
        OF_WEIGHTS,
        "weights must fit its specification",
    ),
}  # fmt: skip


def read(
    capsys: pytest.CaptureFixture[str], verb: str, run: RunFolder, *more: object
) -> tuple[int, list[str]]:
    """A command's exit code and lines of stderr."""
    ended = pawtune(capsys, verb, run.root, *OPTIONS.get(verb, []), *more)
    return ended.code, ended.err.splitlines()


def refuse(capsys: pytest.CaptureFixture[str], verb: str, run: RunFolder, told: str) -> None:
    code, lines = read(capsys, verb, run)
    assert code == 2, (verb, lines)
    assert any(told in line for line in lines), (verb, lines)
    assert lines[0].startswith("pawtune: "), lines
    assert all(line.isprintable() and len(line) < 1500 for line in lines), (verb, lines)


@pytest.mark.parametrize("verb", READERS)
def test_the_sound_run_is_read(
    verb: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(capsys, verb, run)[0] == 0


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_run_folders_are_refused_in_a_line(
    case: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first and the last of the commands that read the file; below, by every one."""
    craft, verbs, told = CRAFTED[case]
    craft(run)
    for verb in (verbs[0], verbs[-1]):
        refuse(capsys, verb, run, told)


@pytest.mark.slow
@pytest.mark.parametrize("case", CRAFTED)
def test_every_command_refuses_crafted_run_folders(
    case: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    craft, verbs, told = CRAFTED[case]
    craft(run)
    for verb in verbs:
        refuse(capsys, verb, run, told)


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


def with_header(shape: str, descr: str = "'<f4'") -> bytes:
    """An array file by hand, whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    padded = header + b" " * (118 - len(header) - 1) + b"\n"
    return b"\x93NUMPY\x01\0" + len(padded).to_bytes(2, "little") + padded + bytes(64)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved(np.array([Canary()], object), allow_pickle=True), "expected floats"),
        (pickle.dumps(Canary()), "it is no array of NumPy's"),
        (with_header("(1000000000000, 2)"), "expected the shape"),
        (with_header("(12, 2)"), "it is cut short"),
        (with_header("(12, 2)", "'<U9999999'"), "expected floats"),
        (with_header("(" + "9" * 90 + ",)"), "expected the shape"),
        (with_header("__import__('os').system('touch pwned')"), "it is no array of NumPy's"),
        (saved(np.zeros((3, 2), np.float32)), "expected the shape"),
        (saved(np.full((12, 2), 7, np.float32)), "must be probabilities"),
        (saved(np.full((12, 2), np.nan, np.float32)), "must be probabilities"),
        (b"PK\3\4", "it is no array of NumPy's"),
    ],
)
def test_crafted_predictions_are_told_and_not_used(
    content: bytes, told: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in run.trials():
        trial.best_predictions.write_bytes(content)
    assert read(capsys, "leaderboard", run)[0] == 0
    assert open_run(run.root).validation() is None
    assert pawtune(capsys, "report", run.root, "--out", "r.html").code == 0
    page = Path("r.html").read_text()
    assert told.replace("'", "&#39;") in page


def external_link(path: Path, secret: Path) -> None:
    with h5py.File(secret, "w") as file:
        file["vars/0"] = np.zeros((3, 3, 3, 4), np.float32)
    with h5py.File(path, "r+") as file:
        del file["layers"]
        file["layers"] = h5py.ExternalLink(str(secret), "/")


def external_data(path: Path, secret: Path) -> None:
    secret.write_bytes(bytes(10_000))
    replace_kernel(path, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def replace_kernel(path: Path, shape: tuple[int, ...] = (3, 3, 3, 4), **options: Any) -> None:
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visititems(
            lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
        )
        name = next(name for name in found if file[name].shape == (3, 3, 3, 4))
        del file[name]
        file.create_dataset(name, shape, "f4", **options)


@pytest.mark.parametrize(
    "craft",
    [
        external_link,
        external_data,
        lambda path, _: replace_kernel(path, (5, 5, 3, 4)),
        lambda path, _: replace_kernel(
            path, (10**6, 10**6), chunks=(1000, 1000), compression="gzip"
        ),
        lambda path, _: path.write_bytes(path.read_bytes()[:2000]),
        lambda path, _: path.unlink(),
    ],
    ids=["link", "external", "shape", "bomb", "truncated", "missing"],
)
def test_crafted_weights_are_refused(
    craft: Callable[[Path, Path], object],
    run: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for trial in run.trials():
        craft(trial.best_weights, tmp_path / "secret.h5")
    for verb in OF_WEIGHTS:
        refuse(capsys, verb, run, "weights must fit its specification")


# Model files


@pytest.fixture(scope="module")
def model_file(sound: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "best.keras"
    open_run(sound.root).save_best(out)
    return out


def repacked(source: Path, target: Path, **members: bytes | None) -> Path:
    """A copy of a model file with some members replaced, added, or left out (None)."""
    named = {name.replace("__", "."): content for name, content in members.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if info.filename not in named:
                new.writestr(info.filename, old.read(info.filename))
        for name, content in named.items():
            if content is not None:
                new.writestr(name, content)
    return target


def lambda_model(out: Path, card: dict[str, Any]) -> Path:
    """A model whose Lambda layer runs a command when it is called."""
    import keras

    raw = keras.Input((None, None, 3), dtype="uint8")
    code = keras.layers.Lambda(lambda x: [__import__("os").system("touch pwned"), x][1])
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(code(raw), "float32"))
    model = keras.Model(raw, keras.layers.Dense(2, activation="softmax")(x))
    Path(CANARY).unlink(missing_ok=True)  # it ran while the model was made, here
    save_complete(model, card, out)
    return out


def test_a_model_with_code_is_not_loaded(
    model_file: Path, tmp_path: Path, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads(model_file.with_suffix(".json").read_text())
    evil = lambda_model(tmp_path / "evil.keras", card)
    ended = pawtune(capsys, "predict", evil, tiny_images)
    assert ended.code == 2
    assert "it may run code, so it was not loaded" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not Path(CANARY).exists()


def config_with(model_file: Path, old: str, new: str) -> bytes:
    with zipfile.ZipFile(model_file) as archive:
        content = archive.read("config.json").decode()
    assert old in content
    return content.replace(old, new, 1).encode()


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"config__json": ('"class_name": "Dense"', '"class_name": "TFSMLayer"')}, "'TFSMLayer'"),
        ({"config__json": ('"module": "keras.layers"', '"module": "os"')}, "of 'os'"),
        (
            {"config__json": ('"class_name": "Round"', '"class_name": "function"')},
            "it may run code",
        ),
        ({"config__json": b"{}"}, "its model cannot be loaded"),
        ({"config__json": b"["}, "Expecting value"),
        ({"config__json": b"[" * 100_000}, "recursion"),
        ({"model__weights__h5": b"no weights"}, "its model cannot be loaded"),
        ({"model__weights__h5": bytes(80 * 2**20)}, "says it unpacks to"),
        ({"model__weights__h5": None}, "it lacks model.weights.h5"),
        ({"pawtune__json": None}, "it lacks pawtune.json"),
        ({"pawtune__json": b'{"class_names": 3, "spec": {"model": {"image_size": 32}}}'}, "list"),
        (
            {"pawtune__json": b'{"class_names": ["a"], "spec": {"model": {"image_size": 1e9}}}'},
            "image_size must be",
        ),
        (
            {
                "pawtune__json": b'{"class_names": ["a", "b", "c"], '
                b'"spec": {"model": {"image_size": 32}}}'
            },
            "2 outputs for 3 class names",
        ),
        ({"assets/evil.py": b"x"}, "it holds 'assets/evil.py'"),
        ({"../../evil.py": b"x"}, "it holds '../../evil.py'"),
    ],
)
def test_crafted_model_files_are_refused(
    members: dict[str, Any],
    told: str,
    model_file: Path,
    tmp_path: Path,
    tiny_images: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ready = {
        name: config_with(model_file, *content) if isinstance(content, tuple) else content
        for name, content in members.items()
    }
    evil = repacked(model_file, tmp_path / "evil.keras", **ready)
    ended = pawtune(capsys, "predict", evil, tiny_images)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert told in line
    assert "make one with `pawtune best" in line


def test_the_plain_model_file_is_taken(
    model_file: Path, tmp_path: Path, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = repacked(model_file, tmp_path / "again.keras")
    assert pawtune(capsys, "predict", again, tiny_images / "red").code == 0


def test_no_model_file_at_all(
    tmp_path: Path, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pickle.keras").write_bytes(pickle.dumps(Canary()))
    os.mkfifo(tmp_path / "pipe.keras")
    for name in ("pickle.keras", "pipe.keras", "missing.keras", "."):
        ended = pawtune(capsys, "predict", tmp_path / name, tiny_images)
        assert ended.code == 2
        assert "MODEL must be a file that `pawtune best` or `pawtune export` wrote" in ended.err
    assert not Path(CANARY).exists()


# The study, the lock, links


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table studies (study_id integer, study_name blob)")
        database.execute("insert into studies values (1, ?)", (pickle.dumps(Canary()),))
    database.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(pickle.dumps(Canary())),
        foreign_database,
        linked,
        lambda path: path.symlink_to(path.parent / "elsewhere.db"),
    ],
    ids=["pickle", "foreign", "link", "dangling"],
)
def test_a_study_file_is_never_read_but_made_again(
    make: Callable[[Path], object], run: RunFolder
) -> None:
    from pawtune.search.objective import Objective
    from pawtune.search.storage.history import read_history
    from pawtune.search.tuning.optuna_searcher import OptunaSearcher

    make(run.study_file)
    past = read_history(run, Objective())
    config = open_run(run.root).config()
    OptunaSearcher(config, run, families=["conv"], num_classes=2, past=past).close()
    assert not run.study_file.is_symlink()
    assert not (run.root / "elsewhere.db").exists()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.study_file}")
    assert len(study.trials) == 2


ENDLESS = json.dumps({"host": platform.node(), "pid": float("inf"), "process": "", "since": ""})


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"host": 1}', DEEP, '{"pid": "x"}', "\xff", ENDLESS]
)
def test_a_crafted_lock_is_taken_over(content: str, run: RunFolder) -> None:
    from pawtune.search.storage.run_lock import RunLock

    file = run.root / "driver.lock"
    file.write_text(content)
    with RunLock(run):
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_manifest_that_names_an_endless_file_is_refused(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of images elsewhere: `test` hashes what the manifest names."""
    for entry in open_run(run.root).manifest().entries:
        (tmp_path / "images" / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / entry.path).symlink_to("/dev/zero")
    ended = pawtune(capsys, "test", run.root, "--data", tmp_path / "images")
    assert ended.code == 2
    assert "cannot be read: not a regular file" in ended.err


def test_an_error_text_that_is_a_link_is_not_followed(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its content would be in the report, which is passed on."""
    in_place_of("trials/0001/error.txt", linked)(run)
    refuse(capsys, "show", run, "a symbolic link, which is not followed")


def test_what_a_terminal_would_act_upon_is_shown_escaped(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(SPEC, name="\x1b]0;owned\x07[/red]\n", params={"[bold]": "\x1b[2J"})(run)
    edit(FACTS, host="[/red]\x1b[2J")(run)
    edit(STATUS, status="failed", reason="\x1b[2J[/red]\nsecond line")(run)
    for verb in ("leaderboard", "show", "status", "report", "plot"):
        ended = pawtune(capsys, verb, run.root, *OPTIONS.get(verb, []))
        assert ended.code == 0, ended.err
        assert "\x1b]" not in ended.out
        assert "\x1b[2J" not in ended.out
    assert "\x1b" not in run.spec_of("0001").name


def test_a_foreign_cluster_is_not_joined(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs the cluster that a search joins can run code here."""
    swapped("search.yaml", "address: null", "address: 203.0.113.7:6379")(run)
    refuse(capsys, "resume", run, "--address 203.0.113.7:6379")
