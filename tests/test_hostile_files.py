"""A folder with everything in it goes through preview, run and predict: nothing crashes, nothing
is dropped without a word, and the table in docs/reliability.md says what becomes of each file."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.data_pipeline.splitting.manifest_io import escape
from pawtune.search.cli.preview import SHOWN_REJECTS, Preview
from pawtune.search.results.delivery.inference import count_passed_over
from tests import hostile_files
from tests.command_line import pawtune
from tests.hostile_files import (
    HostileFile,
    count_files,
    make_corpus,
    permissions_that_count,
    rewritten,
    table,
)
from tests.image_files import decode_image

FILES = hostile_files.hostile_files()
# `images.decode` holds Pillow's warnings back; pytest makes errors of them nevertheless.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = make_corpus(tmp_path_factory.mktemp("hostile") / "photos", FILES)
    with permissions_that_count():
        yield root
    (root / "cat" / "locked").chmod(0o700)


def listed(file: HostileFile) -> str:
    """A file's path below the root, as a manifest holds it."""
    return os.path.normpath(f"{file.here}/{os.fsdecode(file.name)}")


def check_fates(used: set[str], reasons: dict[str, str], files: list[HostileFile]) -> None:
    for file in files:
        path = listed(file)
        if file.reason is None:
            assert path in used, (path, reasons.get(path))
        else:
            assert re.search(file.reason, reasons.get(path, "not listed")), path


def test_there_are_enough_files() -> None:
    distinct = {(file.here, file.name) for file in FILES}
    assert len(distinct) == len(FILES) >= 60


def test_every_file_is_used_with_its_pixels_or_left_out_with_its_reason(corpus: Path) -> None:
    manifest = build_manifest(corpus)
    used = {entry.path for entry in manifest.entries}
    check_fates(used, {reject.path: reject.reason for reject in manifest.rejects}, FILES)
    assert len(manifest.entries) + len(manifest.rejects) == count_files(corpus)
    for file in FILES:
        path = file.path(corpus)
        if file.pixels is not None:
            decoded = decode_image(path)
            assert decoded.shape == file.pixels.shape, path
            apart = np.abs(decoded.astype(float) - file.pixels).mean()
            assert apart <= file.tolerance, path


def test_the_page_says_what_becomes_of_each_kind(corpus: Path) -> None:
    page = hostile_files.PAGE.read_text(encoding="utf-8")
    stale = "docs/reliability.md is stale; write it again: python -m tests.hostile_files"
    assert page == rewritten(page, table(FILES, build_manifest(corpus))), stale


def test_preview_shows_what_is_left_out_line_by_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = pawtune(capsys, "preview", corpus, "--out", tmp_path, "--image-size=32", "--json")
    assert told.code == 0
    used = sum(sum(labels.values()) for labels in told.json["counts"].values())
    assert used + len(told.json["rejects"]) == told.json["files"] == count_files(corpus)
    manifest = build_manifest(corpus)
    Preview(manifest, ()).show(Console(width=120))
    shown = capsys.readouterr().out
    assert f"{told.json['files']} files: {used} used" in shown
    lines = [line for line in shown.splitlines() if line.startswith("left out: ")]
    assert len(lines) == SHOWN_REJECTS
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.slow
def test_run_then_predict(
    corpus: Path, runs_dir: Path, ray_cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = pawtune(
        capsys, "run", "--data", corpus, "--name=hostile", "--families=conv", "--trials=1",
        "--epochs=1", "--no-baselines", "--image-size=32", "--runs-dir", runs_dir, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    manifest = Manifest.load(runs_dir / "hostile")
    used = {entry.path for entry in manifest.entries}
    check_fates(used, {reject.path: reject.reason for reject in manifest.rejects}, FILES)
    assert len(used) + len(manifest.rejects) == count_files(corpus)

    model = corpus.parent / "best.keras"
    run = runs_dir / "hostile"
    assert pawtune(capsys, "best", run, "--out", model).code == 0
    ended = pawtune(capsys, "predict", model, corpus, "--json")
    assert ended.code == 3  # some files are not readable
    records = {record["path"]: record for record in ended.json}
    passed_over = count_passed_over([corpus])
    assert len(records) == len(ended.json) == count_files(corpus) - passed_over
    for file in FILES:
        record = records.get(escape(str(corpus / listed(file))))
        if record is None:
            assert file.reason is not None
            passed_over -= 1
            continue
        if file.reason is None or file.only_in_run:
            assert record["label"] in ("cat", "dog"), record
            assert record["confidence"] == max(record["probabilities"].values())
        else:
            assert record["label"] is None
            assert re.search(file.reason, record["reason"]), record
    assert passed_over >= 0
    labelled = sum(record["label"] is not None for record in ended.json)
    whole, rest = f"{len(records)} files: {labelled} labelled", f"{len(records) - labelled} not"
    assert f"{whole}, {rest} readable" in ended.err

    lines = pawtune(capsys, "predict", model, corpus)
    header, *rows = lines.out.splitlines()
    assert header == "path\tlabel\tconfidence\treason"
    assert len(rows) == len(records)
    assert sum(row.split("\t")[3] == "" for row in rows) == labelled
    assert all(line.isprintable() for line in lines.out.replace("\t", " ").splitlines())
