"""`pawtune predict`: what it writes, where to, and how it ends."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.transfer import TransferSpec
from pawtune.search.results.delivery.inference import count_passed_over, find_files
from pawtune.search.results.delivery.model_file import MODULES, _parts
from tests.command_line import pawtune
from tests.image_files import write_image
from tests.networks import keyed, network_of
from tests.run_folders import RunMaker


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    from pawtune.search.run import open_run

    scratch = tmp_path_factory.mktemp("model")
    maker = RunMaker(scratch, tiny_images, image_size=32)
    maker.add_net(ConvSpec(image_size=32, filters=(8, 8)))
    return open_run(maker.finish().root).save_best(scratch / "best.keras")[1]


def test_what_is_no_model_is_refused_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.log").write_text("no model\n")
    image = write_image(tmp_path / "0.png", 0)
    for name in ("notes.log", "."):
        done = pawtune(capsys, "predict", tmp_path / name, image)
        assert done.code == 2
        assert "no .keras, .tflite or .onnx file, nor a SavedModel's folder" in done.err
        assert "Errno" not in done.err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(5):
        write_image(folder / f"{number}.png", number)
    write_image(folder / "two\nlines.png", 9)
    write_image(folder / "return\r.png", 11)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(
        write_image(folder / "z.png", 10).read_bytes()
    )
    (folder / "damaged.jpg").write_bytes((folder / "0.png").read_bytes()[:90])
    for name in ("notes.txt", "labels.csv", ".DS_Store", "README", "@eaDir/0.png/thumb.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no picture")
    return folder


def test_contents_count_where_a_picture_is_named_as_a_document(photos: Path) -> None:
    before = count_passed_over([photos])
    (photos / "picture.txt").write_bytes((photos / "0.png").read_bytes())
    found = [Path(file.path).name for file in find_files([photos])]
    assert "picture.txt" in found
    assert "notes.txt" not in found
    assert count_passed_over([photos]) == before


COUNTS = "10 files: 9 labelled, 1 not readable; 5 passed over (documents, hidden and system files)"


def test_csv_holds_a_row_for_every_file(
    model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "labels.csv"
    ended = pawtune(capsys, "predict", model_file, photos, "--out", out)
    assert (ended.code, ended.out) == (3, "")  # one has no label
    assert ended.err.splitlines()[-1] == COUNTS
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "label", "confidence", "reason"]
    by_name = {Path(row["path"]).name: row for row in rows}
    assert len(by_name) == len(rows) == 10
    assert {"two\nlines.png", "return\r.png", "caf\\udce9.png"} <= set(by_name)
    assert by_name["damaged.jpg"]["reason"].startswith("corrupt image")
    assert by_name["damaged.jpg"]["label"] == ""
    assert 0.5 <= float(by_name["0.png"]["confidence"]) <= 1


def test_json_goes_to_a_file_or_to_stdout_with_the_same_records(
    model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "labels.json"
    assert pawtune(capsys, "predict", model_file, photos, "--out", out).code == 3
    records = json.loads(out.read_text())
    assert pawtune(capsys, "predict", model_file, photos, "--json").json == records
    assert pawtune(capsys, "predict", model_file, photos, "--format=json").json == records
    assert len(records) == 10
    assert all((record["label"] is None) == ("reason" in record) for record in records)
    printed = pawtune(capsys, "predict", model_file, photos, "--format=csv").out
    assert printed.splitlines()[0] == "path,label,confidence,reason"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "labels.xlsx"], "--format must be csv or json, received 'xlsx'"),
        (["--format", "xml"], "--format must be csv or json, received 'xml'"),
        (["--out", "/proc/x/labels.csv"], "--out must be a file that can be written"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    model_file: Path,
    photos: Path,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = pawtune(capsys, "predict", model_file, photos, *options)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert told in line


def test_a_pipe_or_device_is_never_replaced(
    model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "labels.csv"
    os.mkfifo(out)
    ended = pawtune(capsys, "predict", model_file, photos, "--out", out, "--force")
    assert ended.code == 2
    assert f"--out must be a file, received '{out}', a device or pipe; give the name" in ended.err
    assert out.is_fifo()


def test_nothing_readable_at_all_is_exit_code_1(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    ended = pawtune(capsys, "predict", model_file, tmp_path / "a.jpg")
    header, line = ended.out.splitlines()
    assert (ended.code, header) == (1, "path\tlabel\tconfidence\treason")
    path, label, confidence, reason = line.split("\t")
    assert (path, label, confidence) == (str(tmp_path / "a.jpg"), "", "")
    assert reason.startswith("not an image")
    assert ended.err.splitlines()[-1] == "1 file: 0 labelled, 1 not readable"


def test_lines_have_a_header_and_exit_code_0_says_that_all_were_read(
    model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = pawtune(capsys, "predict", model_file, photos / "0.png", photos / "1.png")
    assert ended.code == 0
    header, first, _ = ended.out.splitlines()
    assert header == "path\tlabel\tconfidence\treason"
    path, label, confidence, reason = first.split("\t")
    assert (path, reason) == (str(photos / "0.png"), "")
    assert label
    assert 0.5 <= float(confidence) <= 1


def test_documents_in_a_folder_are_no_failure_but_a_named_file_is_read(
    model_file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "damaged.jpg").unlink()
    ended = pawtune(capsys, "predict", model_file, photos)
    assert (ended.code, len(ended.out.splitlines())) == (0, 10)
    assert ended.err.splitlines()[-1] == COUNTS.replace("10 f", "9 f").replace("1 n", "0 n")
    ended = pawtune(capsys, "predict", model_file, photos / "notes.txt", photos / "0.png")
    assert ended.code == 3
    assert ended.err.splitlines()[-1] == "2 files: 1 labelled, 1 not readable"


@pytest.mark.parametrize("name", ["missing", "x" * 300, "empty"])
def test_paths_that_lead_nowhere_are_refused(
    model_file: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    ended = pawtune(capsys, "predict", model_file, tmp_path / name)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "must exist, received" in ended.err or "must hold images, received" in ended.err


@pytest.mark.slow
def test_a_pipe_gets_no_bar(model_file: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "pawtune", "predict", str(model_file), str(photos)]
    ended = subprocess.run(
        [*command, "--out", str(photos.parent / "labels.csv")], capture_output=True, text=True
    )
    assert ended.returncode == 3
    assert ended.stderr == f"{COUNTS}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    ["MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny", "ResNet50", "NASNetMobile"]
    + ["DenseNet121", "InceptionResNetV2", "Xception"],
)
def test_models_on_other_backbones_consist_of_known_parts(backbone: str) -> None:
    check_parts(TransferSpec(backbone=backbone, image_size=96))


def test_own_models_consist_of_known_parts() -> None:
    check_parts(TransferSpec(image_size=32, pooling="max", dense_width=4))
    check_parts(ConvSpec(image_size=32, filters=(4,), batch_norm=True, dense_width=4))


def check_parts(spec: ConvSpec | TransferSpec) -> None:
    from pawtune.models.backbones.frozen_backbone import load_backbone
    from pawtune.models.complete_model import compose_complete

    backbone = None
    if isinstance(spec, TransferSpec):
        backbone = load_backbone(spec.backbone, spec.image_size, None)
    core = network_of(spec, 2, seed=0, backbone=backbone).core
    model = compose_complete(spec, 2, core, keyed(spec, backbone))
    for part in _parts(json.loads(model.to_json())):
        allowed = MODULES.get(str(part["module"]), frozenset())
        assert allowed is None or part["class_name"] in allowed, part
