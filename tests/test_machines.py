"""Odd machines, through the real command: folders that cannot be used, names, streams, signals.

One process start meets several oddities where each alone would fail, for a search takes seconds.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
from pawtune.search.cluster.local_ray import MAX_BYTES
from pawtune.search.cluster.worker_start import worker_error
from pawtune.search.doctor.checks import check_data
from tests.command_line import begun, pawtune
from tests.hostile_files import permissions_that_count
from tests.image_files import write_classes
from tests.run_folders import RunMaker
from tests.waiting import wait_until

PAWTUNE = (sys.executable, "-m", "pawtune")
ODD = "why? a%20b/job%2Fmain"
ASCII: dict[str, str | None] = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}


def search(data: Path, *options: object) -> tuple[str, ...]:
    settings = ("--families=conv", "--trials=1", "--epochs=1", "--image-size=32", "--quiet")
    return ("run", "--data", str(data), *settings, *map(str, options))


def command(
    *arguments: object,
    environment: dict[str, str | None] | None = None,
    shell: str = "",
    stdout: int | IO[Any] = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Runs `pawtune`; None in the environment unsets, `shell` redirects (`2>&-`)."""
    changed = {**os.environ, "RAY_TMPDIR": None, **(environment or {})}
    kept = {name: value for name, value in changed.items() if value is not None}
    words = [*PAWTUNE, *map(str, arguments)]
    if shell:
        words = ["sh", "-c", f'"$@" {shell}', "sh", *words]
    done = subprocess.run(
        words, env=kept, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("photos"), {"café": 12, "thé": 12})


def foreign_keras(home: Path) -> Path:
    """A folder whose keras.json is against everything here."""
    home.mkdir()
    settings = {"floatx": "float16", "epsilon": 1e-3, "backend": "jax"}
    content = json.dumps({**settings, "image_data_format": "channels_first"})
    (home / "keras.json").write_text(content)
    return home


@pytest.fixture(scope="module")
def odd_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search with too long a temporary folder, no home, no PATH, ASCII, warnings as errors."""
    place = tmp_path_factory.mktemp("odd")
    long = place / ("x" * MAX_BYTES)
    long.mkdir()
    foreign_keras(place / "keras")
    done = command(
        *search(photos, "--name=one", "--runs-dir", place / ODD, "--epochs=2"),
        environment={
            "TMPDIR": str(long),
            "HOME": os.devnull,
            "XDG_CACHE_HOME": None,
            "RAY_AUTH_TOKEN_PATH": None,
            "PATH": "",
            "PYTHONWARNINGS": "error",
            **ASCII,
            "KERAS_HOME": str(place / "keras"),
            "KERAS_BACKEND": "jax",
            "KERAS_MAX_EPOCHS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    return place / ODD / "one", done.stderr


@pytest.mark.slow
def test_a_long_temporary_folder_and_no_home(odd_run: tuple[Path, str]) -> None:
    run, said = odd_run
    (line,) = [line for line in said.splitlines() if line.startswith("Ray uses ")]
    assert line.endswith(f"bytes, and sockets there may have {MAX_BYTES}")
    assert sorted(label for label in json.loads((run / "manifest.json").read_text())["class_names"])


def test_a_python_without_docstrings_is_refused() -> None:
    done = command("status", "one", environment={"PYTHONOPTIMIZE": "2"})
    assert done.returncode == 2
    assert "must keep docstrings" in done.stderr
    assert "PYTHONOPTIMIZE=2" in done.stderr


@pytest.mark.slow
def test_a_search_writes_names_alike_in_every_locale(odd_run: tuple[Path, str]) -> None:
    manifest = json.loads((odd_run[0] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["class_names"] == ["café", "thé"]


def test_file_names_are_read_alike_in_every_locale(photos: Path) -> None:
    words = ("run", "--data", photos, "--families=conv", "--dry-run", "--json")
    done = command(*words, environment=ASCII)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["counts"]["train"]) == {"café", "thé"}


@pytest.mark.slow
def test_nothing_is_pasted_into_a_url(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    assert sorted(path.name for path in run.parent.parent.parent.iterdir()) == [
        "keras",
        "why? a%20b",
        "x" * MAX_BYTES,
    ]
    assert [path.name for path in run.parent.iterdir()] == ["one"]
    assert (run / "study.db").stat().st_size > 0
    for verb in (("status",), ("report",), ("best", "--out=best.keras")):
        done = command(verb[0], run, *verb[1:], environment={"PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0, done.stderr
    assert "\\u2192 best.keras" in done.stdout  # what an encoding lacks is escaped
    check_anywhere(Path("best.keras"), run.parent.parent.parent / "keras")


LOAD = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
pixels = np.arange(2 * 40 * 48 * 3).reshape(2, 40, 48, 3) % 251
print(keras.config.floatx(), model.predict(pixels.astype("uint8"), verbose=0).tolist())
"""


def check_anywhere(model: Path, home: Path) -> None:
    """A delivered model answers alike whatever keras.json says."""
    answers = {}
    for settings in (home, home / "none"):
        words = [sys.executable, "-c", LOAD, str(model)]
        environment = {**os.environ, "KERAS_HOME": str(settings), "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        floatx, _, answer = done.stdout.partition(" ")
        answers[floatx] = json.loads(answer)
    assert answers["float16"] == answers["float32"]


@pytest.mark.slow
def test_settings_of_keras_are_ours(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    assert len((run / "trials" / "0001" / "metrics.csv").read_text().splitlines()) == 3
    home = run.parent.parent.parent / "keras"
    environment: dict[str, str | None] = {"KERAS_HOME": str(home), "KERAS_BACKEND": "jax"}
    photos = sorted(run.parents[3].glob("photos0/*/*.png"))
    assert command("best", run, "--out=x.keras", environment=environment).returncode == 0
    done = command("predict", "x.keras", *photos, environment=environment)
    assert done.stderr == f"{len(photos)} files: {len(photos)} labelled, 0 not readable\n"


@pytest.mark.slow
def test_every_kind_of_preprocessing_is_saved_with_its_axis(tmp_path: Path) -> None:
    """DenseNet scales each channel, VGG16 shifts each: layers that must not ask keras.json."""
    import keras

    from pawtune.models.backbones.frozen_backbone import preprocess
    from pawtune.models.raw_pixels import raw_input, resized

    home = foreign_keras(tmp_path / "keras")
    for name in ("DenseNet121", "VGG16", "MobileNetV2"):
        raw = raw_input()
        pooled = keras.layers.GlobalAveragePooling2D()(preprocess(name, resized(raw, 32)))
        keras.Model(raw, pooled).save(tmp_path / f"{name}.keras")
        check_anywhere(tmp_path / f"{name}.keras", home)


@pytest.mark.slow
def test_odd_names_resume(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    done = command("resume", run, "--trials", "+1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(list((run / "trials").iterdir())) == 2


def test_files_have_the_permissions_of_the_umask(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images)
    maker.proposals(1, ["conv"])
    run = maker.finish().root
    for umask, mode in ((0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            assert command("report", run, "--out", f"{umask}.html").returncode == 0
        finally:
            os.umask(before)
        assert Path(f"{umask}.html").stat().st_mode & 0o777 == mode


def test_streams_that_cannot_be_written(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images)
    maker.proposals(1, ["conv"])
    run = maker.finish().root
    for shell in (">&-", "<&- >&- 2>&-", "2>/dev/full"):
        assert command("leaderboard", run, shell=shell).returncode == 0
    assert json.loads(command("leaderboard", run, "--json", shell="<&- 2>&-").stdout)
    asked = command("runs", "delete", run, shell="<&-")
    assert (asked.returncode, asked.stderr.count("give --yes")) == (2, 1)
    with open("/dev/full", "w") as full:
        done = command("leaderboard", run, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "pawtune: stdout must be writable: No space left on device; what the command made is kept\n"
    )
    done = command("leaderboard", run, "--json", shell="| true")
    assert done.stderr == ""


@pytest.mark.slow
def test_a_search_without_any_stream(photos: Path) -> None:
    done = command(*search(photos, "--name=deaf"), shell="<&- >&- 2>&-")
    assert done.returncode == 0
    assert json.loads(Path("runs/deaf/summary.json").read_text())["counts"] == {"completed": 1}


def test_a_dry_run_refuses_what_the_search_would(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    for options, phrase in (
        (("--address=127.0.0.1:1",), "--address must be that of a running Ray cluster, received "),
        (("--runs-dir", tmp_path / "file"), "--runs-dir must be a folder that can be written, "),
        (("--runs-dir", tmp_path / "file" / "runs"), "--runs-dir must be a folder that can be "),
        (("--cpus-per-trial=1e9",), "--cpus-per-trial must fit on one node, received 1e+09: "),
        (("--name=taken",), "--name must be new, received 'taken', which exists in "),
    ):
        done = command(*search(photos, "--dry-run", *options))
        assert done.returncode == 2
        assert phrase in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize("hidden", ["runs", "TMPDIR"])
def test_a_failed_start_leaves_nothing(photos: Path, tmp_path: Path, hidden: str) -> None:
    """`--runs-dir` below a file; no folder that Ray's sockets fit into."""
    (tmp_path / "file").touch()
    if hidden == "runs":
        done = command(*search(photos, "--runs-dir", tmp_path / "file" / "runs"))
        assert "--runs-dir must be a folder that can be written, received " in done.stderr
        assert done.stderr.rstrip().endswith("give another --runs-dir")
    else:
        done = command(*search(photos, "--address=local", "--cpus-per-trial=1000"))
        assert "--cpus-per-trial must fit on one node" in done.stderr
    assert done.returncode == 2
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_misspelt_backbone_is_refused_at_once(photos: Path) -> None:
    for option, meant in [
        ("space.backbone.choices=[MobilNetV2]", "MobileNetV2"),
        ("space.backbone.choices=[efficientnet-b0]", "EfficientNetB0"),
        ("space.backbone=[Resnet5O]", "ResNet50"),
        ("space.backbone=XceptionNet", "Xception"),
    ]:
        done = command("run", "--data", photos, "--set", option, "--name=none")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("pawtune: space.backbone"), line
        assert f"did you mean {meant!r}?" in line
    assert not Path("runs").exists()


def test_a_backbone_in_another_case_is_the_same(photos: Path) -> None:
    option = "space.backbone.choices=[mobilenetv2]"
    done = command("run", "--data", photos, "--set", option, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_closed_window_ends_a_search_in_order(photos: Path, tmp_path: Path) -> None:
    words = [*PAWTUNE, *search(photos, "--name=window", "--trials=40", "--epochs=400")]
    run = tmp_path / "runs" / "window"
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it
        os.execv(words[0], words)
    try:
        wait_until(lambda: any(run.glob("trials/*/metrics.csv")), 120)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    assert json.loads((run / "summary.json").read_text())["reason"] == "interrupted"
    assert not (run / "driver.lock").exists()


@pytest.mark.slow
def test_status_knows_a_dead_driver(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "killed"
    with begun(*search(photos, "--name=killed", "--trials=40", "--epochs=400")):
        wait_until(lambda: any(run.glob("trials/*/metrics.csv")), 120)
    state = command("status", "killed").stdout
    said = f"its driver is gone, and no end is on record (continue: pawtune resume {run}); trials: "
    assert said in state
    assert " interrupted" in state
    assert " running" not in state


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_verb_that_is_stopped_says_so_and_leaves_nothing(
    photos: Path, tmp_path: Path, tiny_images: Path, number: signal.Signals
) -> None:
    """Of a verb at work: SIGTERM ended it without a word, and left what was half written."""
    (tmp_path / "waits").mkdir()
    (tmp_path / "waits" / "keras.py").write_text(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    )
    maker = RunMaker(tmp_path, tiny_images, "one")
    maker.proposals(1, ["conv"])
    run = maker.finish().root
    path = os.pathsep.join([str(tmp_path / "waits"), os.environ["PYTHONPATH"]])
    before = sorted(run.rglob("*"))
    how = {"stderr": subprocess.PIPE, "env": {**os.environ, "PYTHONPATH": path}}
    kept = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it
    try:
        with begun("export", run, "--out", "new/best.keras", **how) as working:
            wait_until(Path("begun").exists, 120)
            working.send_signal(number)
            said = working.communicate(timeout=60)[1]
    finally:
        signal.signal(signal.SIGHUP, kept)
    assert working.returncode == 130
    assert said == "pawtune: interrupted before its end; give the command again\n"
    assert not Path("new").exists()
    assert sorted(run.rglob("*")) == before


def test_a_library_that_ends_the_process_is_named(
    tmp_path: Path, broken_python: dict[str, str | None], tiny_images: Path
) -> None:
    maker = RunMaker(tmp_path, tiny_images, "one")
    maker.proposals(1, ["conv"])
    run = maker.finish().root
    (Path(tmp_path) / "broken/tensorflow/__init__.py").write_text(
        "import os\nos.write(2, b'one\\nUnknown flag\\n')\nos._exit(1)\n"
    )
    done = command("best", run, "--out", "best.keras", environment=broken_python)
    assert done.returncode == 1
    assert done.stderr == (
        "pawtune: this process was ended while a library was loaded, received: Unknown flag; "
        "`pawtune doctor` checks what it needs\n"
    )


LIBRARY = "ImportError: libcudart.so.12: cannot open shared object file"


@pytest.fixture
def broken_python(tmp_path: Path) -> dict[str, str | None]:
    """An environment in which Ray's workers end at their start, and TensorFlow aborts."""
    folder = tmp_path / "broken"
    (folder / "tensorflow").mkdir(parents=True)
    (folder / "tensorflow/__init__.py").write_text("import os\nos.abort()\n")
    (folder / "sitecustomize.py").write_text(
        "import sys\nif any('default_worker' in word for word in sys.orig_argv):\n"
        f"    sys.exit({LIBRARY!r})\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}


@pytest.mark.parametrize(
    "line",
    [
        f"SystemExit: {LIBRARY}",
        "MemoryError",
        "google.protobuf.message.DecodeError: truncated",
        "python3: error while loading shared libraries: libz.so.1: cannot open shared object file",
        "Fatal Python error: init_import_site: Failed to import the site module",
        "what():  std::bad_alloc",
        "/bin/sh: 1: exec: /opt/venv/bin/python: Permission denied",
        "bash: conda: command not found",
    ],
)
def test_the_last_error_of_a_worker_is_found(tmp_path: Path, line: str) -> None:
    log = tmp_path / "logs" / "raylet.err"
    log.parent.mkdir()
    log.write_text("[2026-01-01 E 1 1] (raylet) a worker has not registered in time\n")
    assert worker_error(tmp_path) is None
    log.write_bytes(log.read_bytes() + b"OSError: first\n  " + line.encode() + b"\n\xff and more\n")
    assert worker_error(tmp_path) == line


@pytest.mark.slow
def test_a_search_whose_workers_cannot_start_ends_with_their_error(
    photos: Path, broken_python: dict[str, str | None]
) -> None:
    began = time.monotonic()
    done = command(*search(photos, "--name=none"), environment=broken_python)
    assert done.returncode == 2
    assert f"no worker starts: SystemExit: {LIBRARY}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - began < 90  # 20 s of them for a second try of Ray's
    assert not Path("runs/none").exists()


@pytest.mark.slow
def test_the_doctor_names_what_is_wrong(
    tmp_path: Path, broken_python: dict[str, str | None]
) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    words = ("doctor", "--json", "--data", tmp_path / "photos")
    done = command(*words, environment={**broken_python, "TMPDIR": "/" + "x" * MAX_BYTES})
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(found) == [
        "Python", "temporary folder", "disk", "memory", "weights", "TensorFlow", "Ray", "data",
    ]  # fmt: skip
    assert {name for name, check in found.items() if check["state"] == "wrong"} == {
        "TensorFlow", "Ray", "data",
    }  # fmt: skip
    assert found["TensorFlow"]["found"].startswith("it was ended by SIGABRT")
    assert found["Ray"]["found"] == f"no worker starts: SystemExit: {LIBRARY}"
    assert found["weights"]["remedy"].startswith("without a network: --weights PATH")
    assert all(check["remedy"] for check in found.values() if check["state"] != "ok")


def test_the_doctor_says_of_the_data_what_preview_says(tmp_path: Path) -> None:
    sizes = {"train/cat": 20, "train/dog": 20, "test/cat": 4, "test/dog": 4}
    photos = write_classes(tmp_path / "photos", sizes)
    (photos / "train" / "cat" / "damaged.png").write_bytes(b"\x89PNG")
    copy = next((photos / "train" / "cat").glob("[0-9]*"))
    with Image.open(copy) as image:
        image.resize((60, 60)).save(photos / "test" / "cat" / "near.png")
    found = check_data(str(photos))
    assert found.state == "note"
    assert found.found.startswith("2 classes; ")
    assert "; 1 left out (train/cat/damaged.png: " in found.found
    assert found.found.endswith(
        "; there is no validation split: 15% of each class of train become validation"
    )
    assert "nearly the same as one of another split" in found.remedy
    assert found.remedy.endswith(f"; see pawtune preview {photos}")


def test_the_doctor_takes_a_table_of_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_classes(tmp_path / "photos", {"all": 40})
    table = tmp_path / "labels.csv"
    names = sorted(path.name for path in photos.glob("all/*"))
    rows = [f"{name},{'cat' if place % 2 else 'dog'}" for place, name in enumerate(names)]
    table.write_text("\n".join(["id,breed", *rows]) + "\n")
    assert check_data(str(photos)).state == "wrong"  # one class folder
    found = check_data(str(photos), LabelFile(table))
    assert (found.state, found.found[:11]) == ("ok", "2 classes; ")
    table.write_text("id,breed\n")
    assert check_data(str(photos), LabelFile(table)).remedy.endswith(f" --labels {table}")
    alone = pawtune(capsys, "doctor", "--labels", table)
    assert alone.code == 2
    assert "add --data FOLDER" in alone.err


def test_a_run_that_cannot_be_written_is_named_before_a_look(
    tiny_images: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = RunMaker(runs_dir, tiny_images)
    maker.proposals(1, ["conv"])
    run = maker.finish().root
    for folder in (run, run / "trials"):
        folder.chmod(0o555)
    with permissions_that_count():
        looked = pawtune(capsys, "test", run)
        reported = pawtune(capsys, "report", run)
    run.chmod(0o755)
    remedy = "Permission denied; make it so, or copy the run elsewhere"
    assert looked.err == f"pawtune: a run folder must be writable, received {run}: {remedy}\n"
    assert (looked.code, reported.code) == (2, 2)
    assert len(reported.err.splitlines()) == 1
    assert not (run / "test.jsonl").exists()


@pytest.mark.slow
def test_the_doctor_finds_this_machine_well(photos: Path) -> None:
    done = command("doctor", "--data", photos)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK     data: 2 classes; " in done.stdout
    assert "a worker answers after " in done.stdout
