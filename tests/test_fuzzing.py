"""Whatever the bytes: images, archives and configurations are read or refused in one line.

`pytest --hypothesis-profile=explore tests/test_fuzzing.py` tries 5,000 of each.
"""

import io
import json
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_image
from pawtune.data_pipeline.sources import archives
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.errors import UserError
from pawtune.search.storage.records import (
    EnsembleRecord,
    ProposedTrial,
    Record,
    RefitRecord,
    TrialFacts,
    TrialStatus,
)
from pawtune.search.storage.run_folder import TrialFolder
from tests.hostile_files import encoded
from tests.image_files import picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::UserWarning:zipfile")

KINDS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "MPO")


def seeds() -> dict[str, bytes]:
    """A sound file of every kind, and some of rarer modes."""
    image = Image.fromarray(picture(1))
    found = {kind: encoded(image, kind) for kind in KINDS}
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    found["turned"] = encoded(image, "JPEG", exif=exif)
    found["progressive"] = encoded(image, "JPEG", progressive=True)
    found["inks"] = encoded(image.convert("CMYK"), "JPEG")
    found["palette"] = encoded(image.quantize(8), "PNG", transparency=3)
    found["deep"] = encoded(Image.fromarray(picture(1)[:, :, 0].astype(np.uint16) * 257), "PNG")
    found["deflated"] = encoded(image, "TIFF", compression="tiff_adobe_deflate")
    found["lossless"] = encoded(image, "WEBP", lossless=True)
    frames = [Image.fromarray(picture(number)) for number in range(3)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        found[f"moving {kind}"] = content
    return found


SEEDS = seeds()


@st.composite
def mutations(draw: st.DrawFn, contents: dict[str, bytes]) -> bytes:
    """Bytes of a sound file with some changed, left out, doubled, or swapped for another's."""
    content = bytearray(draw(st.sampled_from(sorted(contents.values()))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                content[at : at + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
                )
            case 2:
                del content[at : at + draw(st.integers(1, 64))]
            case 3:
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case 4:
                other = draw(st.sampled_from(sorted(contents.values())))
                content[at:] = other[at:]
    return bytes(content)


@settings(max_examples=1500)
@given(mutations(SEEDS) | st.binary(max_size=200))
def test_mutated_images_decode_or_are_refused(content: bytes) -> None:
    try:
        image = open_image(content)
    except DataError as error:
        check_line(error)
        return
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)


def sound_archives() -> dict[str, bytes]:
    """Small archives of every kind that can be unpacked."""
    found = {}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as archive:
            archive.writestr("cat/a.txt", b"abc" * 40)
            archive.writestr("dog/b.txt", b"xyz")
        found[f"zip {compression}"] = stream.getvalue()
    for mode in ("w", "w:gz", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for name in ("cat/a.txt", "dog/é" + "long" * 40):
                info = tarfile.TarInfo(name)
                info.size = 120
                tar.addfile(info, io.BytesIO(b"abc" * 40))
        found[mode] = stream.getvalue()
    return found


@settings(max_examples=500)
@given(mutations(sound_archives()))
def test_mutated_archives_unpack_inside_or_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive, folder = Path(scratch, "a"), Path(scratch, "inside", "folder")
        archive.write_bytes(content)
        try:
            archives.unpack(archive, folder)
        except DataError as error:
            check_line(error)
        beside = [path.name for path in Path(scratch).iterdir()]
        assert set(beside) <= {"a", "inside"}
        assert set(folder.parent.glob("*")) <= {folder}
        assert not any(path.is_symlink() for path in folder.rglob("*"))


LINES = st.sampled_from(
    """
    data: photos|trials: 3|trials: -1|trials: 1e99|trials: 99999999999999999999999|epochs: 0
    space: {conv_depth: {low: 1, high: 5}}|space:|  rotation_factor: [0.1, .nan]
      learning_rate: {low: 0, high: 1, log: true}|scheduler: {name: asha, grace_period: 2}
    families: conv|families: [conv, conv]|image_size: [64, 96]|image_size: 10|name: ../up
    name: "a\\nb"|"two\\nlines": 1|? [a]: b|data: !!python/object/apply:os.system [touch pwned]
    data: &a [*a]|a: *b|<<: {data: x}|resources: {gpus_per_trial: 1.5}|weights: /dev/zero
    time_budget_s: .inf|seed: true|data: "\\0"|\tdata: x|- data|%YAML 1.1|---|...|key: [
    """.strip()
    .replace("\n", "|")
    .split("|")
)
WORDS = st.text(max_size=30) | LINES


@settings(max_examples=1000)
@given(st.lists(WORDS, max_size=6).map("\n".join) | st.text(max_size=200))
@example("a\nb: " + "[" * 5000)
@example('"\\e[31m": 1\ndata: x')
def test_any_text_is_a_configuration_or_refused_line_by_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "search.yaml")
        file.write_text(text, encoding="utf-8", errors="replace", newline="")
        check_config(file, [])


@settings(max_examples=500)
@given(st.lists(WORDS | st.tuples(WORDS, WORDS).map("=".join), max_size=3))
def test_any_override_is_taken_or_refused_line_by_line(overrides: list[str]) -> None:
    check_config(None, ["data=x", *overrides])


def check_config(file: Path | None, overrides: list[str]) -> None:
    try:
        config = load_config(file, overrides)
    except UserError as error:
        for line in str(error).split("\n"):
            assert line
            assert line.isprintable(), line
        return
    assert isinstance(config, SearchConfig)


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        "status reason seconds started finished baseline params name model train family filters "
        "num_weights attempts counts members accuracy epochs image_size",
    )
)
RECORDS: dict[str, type[ProposedTrial | Record]] = {
    "spec.json": ProposedTrial,
    "status.json": TrialStatus,
    "facts.json": TrialFacts,
    "refit.json": RefitRecord,
    "ensemble.json": EnsembleRecord,
}


@settings(max_examples=200)
@given(st.sampled_from(sorted(RECORDS)), VALUES | st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_json_in_a_run_folder_is_read_or_refused(name: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, name)
        file.write_text(json.dumps(value))
        check_refusal(lambda: RECORDS[name].read(file))


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.text(max_size=6) | st.floats().map(str), max_size=8), max_size=4),
    st.booleans(),
)
def test_any_metrics_are_read_or_refused(cells: list[list[str]], with_header: bool) -> None:
    header = ["epoch,loss,accuracy,val_loss,val_accuracy,val_balanced_accuracy,seconds"]
    lines = header * with_header + [",".join(row) for row in cells]
    with tempfile.TemporaryDirectory() as scratch:
        folder = TrialFolder(Path(scratch))
        folder.metrics_file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
        check_refusal(folder.read_metrics)


@settings(max_examples=100)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_manifest_is_read_or_refused(table: bytes, header: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "manifest.csv").write_bytes(table)
        Path(scratch, "manifest.json").write_bytes(header)
        with pytest.raises(DataError):
            Manifest.load(Path(scratch))


def check_refusal(read: Any) -> None:
    try:
        read()
    except UserError as error:
        check_line(error)


def check_line(error: Exception) -> None:
    assert str(error).isprintable(), str(error)
