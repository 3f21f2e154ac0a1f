"""Folders and label files as people have them, through the real command: what is understood, what
is refused, and what is said. docs/data.md has an example of each."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.command_line import Outcome, pawtune
from tests.image_files import write_classes, write_image

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def preview(capsys: Capsys, data: Path | str, *options: object) -> Outcome:
    return pawtune(capsys, "preview", data, "--image-size=32", "--json", *options)


def understood(capsys: Capsys, data: Path | str, *options: object) -> dict[str, Any]:
    shown = preview(capsys, data, *options)
    assert shown.code == 0, shown.err
    found: dict[str, Any] = shown.json
    return found


def refusal(capsys: Capsys, data: Path, *options: object) -> str:
    shown = preview(capsys, data, *options)
    assert shown.code == 2, shown.out
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("pawtune: ")]
    return line


def sums(found: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sum(labels.values()) for labels in found["counts"].values())


def folders(*names: str, each: int = 4) -> dict[str, int]:
    return dict.fromkeys(names, each)


def splits(*names: str, each: int = 4) -> dict[str, int]:
    return folders(*(f"{name}/{label}" for name in names for label in ("cat", "dog")), each=each)


@pytest.mark.parametrize(
    ("counts", "expected", "note"),
    [
        (splits("train", "test", each=20), (34, 6, 40), "15% of each class of train become valid"),
        (splits("training_set", "test_set", each=20), (34, 6, 40), "no validation split"),
        (splits("train", "dev"), (8, 6, 2), "20% of each class of validation become test"),
        (splits("train", "eval"), (8, 6, 2), "no test split"),
        (splits("TRAIN", "valid_set", "Testing"), (8, 8, 8), None),
        (splits("train_data", "Validation_Data", "test-images"), (8, 8, 8), None),
        (splits("train", "eval", "holdout"), (8, 8, 8), None),
        (splits("my pets/train", "my pets/val"), (8, 6, 2), "splits were found in my pets"),
        (splits("seg_train/seg_train", "seg_test/seg_test", each=20), (34, 6, 40), None),
        (splits("photos/v2", each=20), (28, 6, 6), "class folders were found in photos/v2"),
        (folders("cat/train", "cat/test", "dog/train", "dog/test", each=20), (34, 6, 40), "inside"),
        (folders("bus", "train", each=10), (12, 4, 4), None),
        (splits("trainval", "test", each=20), (34, 6, 40), "no validation split"),
    ],
)
def test_usual_names_and_places_are_understood(
    root: Path,
    capsys: Capsys,
    counts: dict[str, int],
    expected: tuple[int, ...],
    note: str | None,
) -> None:
    found = understood(capsys, write_classes(root, counts))
    assert found["class_names"] == (["bus", "train"] if "bus" in counts else ["cat", "dog"])
    if "bus" not in counts:
        assert sums(found) == expected
    assert note is None or any(note in line for line in found["notes"]), found["notes"]
    assert found["rejects"] == []


def test_folders_of_documents_beside_the_data_are_no_classes(root: Path, capsys: Capsys) -> None:
    write_classes(root, splits("train", "val"))
    for name in ("docs/readme.md", "logs/train.log", "scripts.d/a.py"):
        (root / name).parent.mkdir()
        (root / name).write_text("text")
    (root / "checkpoints").mkdir()
    found = understood(capsys, root)
    assert sums(found) == (8, 6, 2)
    outside = "outside the train, validation and test folders"
    assert {reject["reason"] for reject in found["rejects"]} == {outside}


SYSTEM = ("@eaDir", "$RECYCLE.BIN", "lost+found", "__pycache__", ".ipynb_checkpoints", "__MACOSX")


@pytest.mark.parametrize("above", ["", "train/", "train/cat/"])
def test_system_folders_are_listed_and_no_data(root: Path, capsys: Capsys, above: str) -> None:
    write_classes(root, splits("train", "val") if above else folders("cat", "dog", each=10))
    for number, name in enumerate(SYSTEM):
        write_image(root / above / name / "cat" / "x.png", 500 + number)
    found = understood(capsys, root)
    assert found["class_names"] == ["cat", "dog"]
    assert {r["path"] for r in found["rejects"]} == {f"{above}{n}/cat/x.png" for n in SYSTEM}
    assert {r["reason"] for r in found["rejects"]} == {"hidden or system file"}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            splits("siteA", "siteB"),
            "siteA, siteB hold the same folders (cat, dog), so they look like splits and not like "
            "classes; name them train, validation and test, or give one of them with --data",
        ),
        (
            splits("train", "val", "extra"),
            "extra holds the class folders of train, val, but its na",
        ),
        (splits("val", "test"), "found test, val, but no train folder; add it"),
        (
            splits("train", "val", "valid"),
            "two folders for one split among train, val, valid; keep",
        ),
        ({"photos/cat": 3}, "one class only ('cat'); at least 2 class folders are needed"),
        (
            {**splits("images"), "examples": 3},
            "images holds folders (cat, dog) and stands beside examples; did you mean ",
        ),
        ({**splits("copy"), "cat": 3, "dog": 3}, "copy holds folders called like those beside it"),
        (folders("train", "test"), "holds 4 images and no class folders; expected ROOT/<class>"),
        (
            {**splits("train"), "unlabeled": 4},
            "train holds folders (cat, dog) and stands beside unlabeled; did you mean ",
        ),
        (
            {f"patient{n}/{label}": 1 for n in range(12) for label in ("0", "1")},
            "12 folders (patient0, patient1, patient10, patient11, patient2, patient3 and 6 more) "
            "hold the same folders (0, 1), so which of both are the classes is not clear; give",
        ),
        (folders("images", "masks"), "images and masks look like images and their masks, and not"),
        (splits("images", "masks"), "images and masks look like images and their masks, and not"),
        (
            folders("cat/train", "cat/test", "dog"),
            "every class folder must hold the same splits, but cat holds test, train and dog none",
        ),
        (
            folders("cat/train", "cat/val", "dog/train", "dog/val", "dog/test"),
            "splits, but dog holds test, train, validation and cat train, validation; give it",
        ),
        (
            splits("fold_0/train", "fold_0/val", "fold_1/train", "fold_1/val"),
            "fold_0, fold_1 hold the same folders (cat, dog), so they look like splits and not ",
        ),
        (
            {"train/a": 3, "train/b": 3, "val/a": 3, "val/c": 3},
            "every split must have the same class folders; 'b' is in train and not in val (2 such)",
        ),
    ],
)
def test_other_structures_are_refused_with_what_was_seen(
    root: Path, capsys: Capsys, counts: dict[str, int], message: str
) -> None:
    assert message in refusal(capsys, write_classes(root, counts))


def test_images_without_class_folders_are_refused_with_the_table_beside_them(
    root: Path, capsys: Capsys
) -> None:
    write_classes(root, {".": 3})
    (root / "labels.csv").write_text("id,breed\n0,cat\n")
    line = refusal(capsys, root)
    assert "no class folders, but 3 images (labels may be in labels.csv); expected ROOT/" in line
    assert line.endswith("or give the labels with --labels FILE.csv")


@pytest.mark.parametrize("test", ["test", "test/unknown", "test1"])
def test_unlabelled_test_images_are_left_for_predict(root: Path, capsys: Capsys, test: str) -> None:
    write_classes(root, {"train/cat": 10, "train/dog": 10, test: 5})
    found = understood(capsys, root)
    assert sums(found) == (12, 4, 4)
    top = test.partition("/")[0]
    assert found["notes"] == [
        f"{top}: 5 images in no class folder; unlabelled, left for `pawtune predict`",
        "train is the only split with labels: it is split in three",
    ]
    assert {r["reason"] for r in found["rejects"]} == {"unlabelled, left for `pawtune predict`"}


def test_unlabelled_test_images_beside_class_folders(root: Path, capsys: Capsys) -> None:
    found = understood(capsys, write_classes(root, {"cat": 10, "dog": 10, "test": 5}))
    assert found["class_names"] == ["cat", "dog"]


def test_folders_named_as_unlabelled_beside_classes(root: Path, capsys: Capsys) -> None:
    write_classes(root, {"cat": 10, "dog": 10, "unlabeled": 5, "to_predict": 5})
    found = understood(capsys, root)
    assert found["class_names"] == ["cat", "dog"]
    assert [note.partition(":")[0] for note in found["notes"]] == ["to_predict", "unlabeled"]


def test_classes_that_may_be_none_are_named(root: Path, capsys: Capsys) -> None:
    write_classes(root, {"Cat": 10, "cat": 10, "dog ": 10, "docs": 3})
    shutil.copytree(root / "cat", root / "wandb" / "media")
    found = understood(capsys, root)
    assert found["class_names"] == ["Cat", "cat", "docs", "dog "]
    assert found["notes"] == [
        "class names that differ in case, blanks or invisible characters alone: 'Cat', 'cat'; they "
        "stay different classes: use one name if they are one",
        "counted as classes, but named as folders of documents or output: docs (3); move them out "
        "of the data if they are",
    ]


def test_masks_beside_images_are_refused_with_counts(root: Path, capsys: Capsys) -> None:
    names = ("cat/images", "cat/masks", "dog/images", "dog/masks")
    line = refusal(capsys, write_classes(root, folders(*names)))
    assert "class folders must hold images only, but 8 of 16 lie in folders named as masks" in line
    assert "(cat/masks, 2 such); move these folders out of the data" in line


@pytest.mark.parametrize("above", ["", "train/"])
@pytest.mark.parametrize("name", ["masks", "Ground_Truth", "annotations"])
def test_masks_beside_classes_are_refused_with_counts(
    root: Path, capsys: Capsys, above: str, name: str
) -> None:
    counts = {f"{above}cat": 4, f"{above}dog": 4, f"{above}{name}": 8}
    if above:
        counts |= folders("val/cat", "val/dog", f"val/{name}", each=2)
    line = refusal(capsys, write_classes(root, counts))
    assert (
        f"must hold images only, but {above}{name} is named as a folder of masks or annot" in line
    )
    assert f"({'10 of 22' if above else '8 of 16'} images); move it out of the data, or ren" in line


@pytest.mark.parametrize("above", ["", "train/", "photos/"])
def test_thumbnails_are_copies_and_left_out(root: Path, capsys: Capsys, above: str) -> None:
    counts = {f"{above}cat": 10, f"{above}dog": 10, f"{above}cat/thumbnails": 10}
    counts |= {f"{above}dog/.thumbs": 1, "thumbs/cat": 2, "thumbs/dog": 2}
    found = understood(capsys, write_classes(root, counts))
    assert found["class_names"] == ["cat", "dog"]
    assert sums(found) == (12, 4, 4)
    line = "left out: 14 files in a folder of thumbnails, small copies of other images"
    assert line in found["notes"]
    assert len(found["rejects"]) == 15


def test_thumbnails_alone_are_the_images(root: Path, capsys: Capsys) -> None:
    found = understood(capsys, write_classes(root, folders("cat/thumbs", "dog/thumbs", each=10)))
    assert sums(found) == (12, 4, 4)


@pytest.mark.parametrize(
    ("counts", "empty", "expected"),
    [
        (splits("train", "val"), ["test"], (8, 6, 2)),
        (splits("train", "val"), ["test/cat", "test/dog"], (8, 6, 2)),
        (splits("train", each=10), ["test", "val"], (12, 4, 4)),
        (folders("cat", "dog", each=10), ["test"], (12, 4, 4)),
    ],
)
def test_splits_without_images_are_as_if_they_were_not_there(
    root: Path, capsys: Capsys, counts: dict[str, int], empty: list[str], expected: tuple[int, ...]
) -> None:
    write_classes(root, counts)
    for name in empty:
        (root / name).mkdir(parents=True)
    found = understood(capsys, root)
    assert sums(found) == expected
    for name in {name.partition("/")[0] for name in empty}:
        assert f"{name} holds no images; it is as if it were not there" in found["notes"]


def test_train_without_images_is_refused(root: Path, capsys: Capsys) -> None:
    write_classes(root, splits("val", "test"))
    (root / "train").mkdir()
    assert "the train folder must hold images, but train holds none; put" in refusal(capsys, root)


def test_mask_files_beside_images_are_refused_with_counts(root: Path, capsys: Capsys) -> None:
    for number in range(12):
        label = ("benign", "malignant")[number % 2]
        write_image(root / label / f"case ({number}).png", number)
        write_image(root / label / f"case ({number})_mask.png", 100 + number)
    line = refusal(capsys, root)
    assert "but 12 of 24 are named as the mask of another (benign/case (0)_mask.png); move" in line


@pytest.mark.parametrize(
    ("image", "mask"), [("img_{}", "mask_{}"), ("{}_image", "{}_label"), ("{}", "{}-gt1")]
)
def test_mask_files_by_other_names_are_refused(
    root: Path, capsys: Capsys, image: str, mask: str
) -> None:
    for number in range(12):
        label = ("benign", "malignant")[number % 2]
        for seed, name in ((number, image), (100 + number, mask)):
            write_image(root / label / f"{name.format(f'case{number}')}.png", seed)
    assert "but 12 of 24 are named as the mask of another" in refusal(capsys, root)


def test_masks_may_be_classes(root: Path, capsys: Capsys) -> None:
    found = understood(capsys, write_classes(root, folders("mask", "with_mask", "without_mask")))
    assert found["class_names"] == ["mask", "with_mask", "without_mask"]


def test_the_same_subfolders_in_every_class_are_reported_with_counts(
    root: Path, capsys: Capsys
) -> None:
    names = ("cat/front", "cat/side", "dog/front", "dog/side")
    found = understood(capsys, write_classes(root, folders(*names)))
    assert found["notes"] == [
        "every class folder holds the same subfolders, whose images all count for their class: "
        "front 8, side 8"
    ]


@pytest.mark.parametrize("out", ["a file", "a file/below", "/proc/pictures"])
def test_pictures_that_cannot_be_written_are_one_line(
    root: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(root.parent)
    Path("a file").touch()
    line = refusal(capsys, write_classes(root, folders("cat", "dog")), "--out", out)
    assert f"--out must be a folder that can be written, received '{out}': " in line
    assert line.endswith("; give another folder with --out")


@pytest.mark.parametrize("below", ["", "cat"])
def test_a_folder_of_the_data_is_none_for_pictures(root: Path, capsys: Capsys, below: str) -> None:
    write_classes(root, folders("cat", "dog"))
    line = refusal(capsys, root, "--out", root / below)
    assert f"--out must be a folder of its own, received '{root / below}', a folder of the" in line
    assert sorted(path.name for path in root.iterdir()) == ["cat", "dog"]


def test_own_output_is_never_data(
    root: Path, capsys: Capsys, ray_cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd PHOTOS; pawtune preview .; pawtune run --data .`, twice."""
    write_classes(root, folders("blue", "red", each=12))
    monkeypatch.chdir(root)
    assert understood(capsys, ".")["class_names"] == ["blue", "red"]
    assert sorted(path.name for path in root.iterdir()) == ["blue", "preview", "red"]
    for name in ("one", "two"):
        ended = pawtune(
            capsys, "run", "--data", ".", "--name", name, "--families=conv", "--trials=0",
            "--baselines-only", "--epochs=1", "--image-size=32", "--dry-run", "--json",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        run = root / "runs" / name
        run.mkdir(parents=True)
        (run / "search.yaml").write_text("data: .\n")
        (run / "driver.lock").write_text("{}")
        write_image(run / "report" / "0.png", 7)
    found = understood(capsys, ".")
    assert found["class_names"] == ["blue", "red"]
    assert {r["path"]: r["reason"] for r in found["rejects"]} == dict.fromkeys(
        ["preview", "runs/one", "runs/two"], "written by pawtune"
    )


def test_linked_folders_and_files_are_followed(root: Path, capsys: Capsys, tmp_path: Path) -> None:
    write_classes(tmp_path / "store", folders("c", "d", each=10))
    (root / "cat").symlink_to(tmp_path / "store/c")
    (root / "dog").mkdir()
    for path in (tmp_path / "store/d").iterdir():
        (root / "dog" / f"{path.stem}.jpg").symlink_to(path)
    (root / "dog" / "up").symlink_to(root)
    found = understood(capsys, root)
    assert sums(found) == (12, 4, 4)
    assert found["rejects"] == [
        {"path": "dog/up", "reason": "symbolic link to a folder that contains it"}
    ]


def test_a_class_that_vanishes_is_an_error(root: Path, capsys: Capsys, tmp_path: Path) -> None:
    write_classes(root, folders("cat", "dog", each=10))
    (root / "emu").symlink_to(tmp_path / "not mounted")
    line = refusal(capsys, root)
    assert (
        "every class folder must be readable, but emu is not (broken symbolic link); mount" in line
    )


def test_a_split_that_cannot_be_entered_is_an_error(root: Path, capsys: Capsys) -> None:
    """It would be made of another one's images, unsaid."""
    write_classes(root, splits("train", "val"))
    (root / "old").symlink_to("nowhere")
    assert sums(understood(capsys, root)) == (8, 6, 2)
    (root / "test").symlink_to("nowhere")
    assert "every split must be readable, but test is not (broken sym" in refusal(capsys, root)


def test_class_names_are_compared_as_they_are_read(root: Path, capsys: Capsys) -> None:
    composed = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    assert composed[0] != composed[1]
    write_classes(root, folders(f"train/{composed[0]}", "train/tea"))
    write_classes(root, folders(f"val/{composed[1]}", "val/tea"), first_seed=50)
    assert understood(capsys, root)["class_names"] == [composed[0], "tea"]


def test_small_classes_are_named_at_once_and_left_out_on_request(
    root: Path, capsys: Capsys
) -> None:
    sizes = {"ant": 1, "bee": 2, "cat": 10, "dog": 10, "elk": 1, "fox": 2}
    line = refusal(capsys, write_classes(root, sizes))
    assert (
        "at least 3 different images (test and validation are taken from them), but 4 of 6" in line
    )
    assert "'ant' (1), 'bee' (2), 'elk' (1), 'fox' (2); add images, or leave these classes" in line
    assert line.endswith("--min-class-size 3")
    found = understood(capsys, root, "--min-class-size=3")
    assert found["class_names"] == ["cat", "dog"]
    assert found["notes"][0].startswith(
        "left out by --min-class-size 3: 'ant' (1), 'bee' (2), 'elk'"
    )
    reasons = [reject["reason"] for reject in found["rejects"]]
    assert reasons == ["class of fewer than 3 different images"] * 6


# Labels in a table


def write_table(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_labels_in_a_table_without_extensions(root: Path, capsys: Capsys, tmp_path: Path) -> None:
    write_classes(root, {".": 21})
    rows = [f"{number},{'cat' if number % 2 else 'dog'}" for number in range(20)]
    table = write_table(tmp_path / "labels.csv", "id,breed", [*rows, "99,cat"])
    found = understood(capsys, root, "--labels", table)
    assert found["class_names"] == ["cat", "dog"]
    assert sums(found) == (12, 4, 4)
    assert found["notes"] == [
        "labels from labels.csv: images in column 'id', labels in 'breed'; 20 of 21 rows are used, "
        "1 name no file"
    ]
    assert found["rejects"] == [
        {"path": "20.png", "reason": "not in labels.csv"},
        {"path": "99", "reason": "row at line 22 of labels.csv: no such file"},
    ]


def test_a_table_with_splits_and_other_columns(root: Path, capsys: Capsys) -> None:
    write_classes(root, {"images": 24})
    rows = [
        f"images/{n}.png;{'NORMAL' if n % 2 else 'ILL'};{n};{('TRAIN', 'valid', 'test')[n % 3]}"
        for n in range(24)
    ]
    write_table(root / "meta.csv", "file;Finding;age;Split", rows)
    line = refusal(capsys, root, "--labels", "meta.csv")
    assert line.endswith("give it with --label-column (Finding, age)")
    found = understood(capsys, root, "--labels=meta.csv", "--label-column=Finding")
    assert sums(found) == (8, 8, 8)
    assert "labels in 'Finding', splits in 'Split'; 24 of 24 rows are used" in found["notes"][0]


@pytest.mark.parametrize(
    ("header", "row", "options", "message"),
    [
        (
            "id,breed",
            "{n},cat",
            (),
            "at least 2 labels are needed, and column 'breed' has only 'ca",
        ),
        (
            "id,breed",
            "{n},cat,dog",
            (),
            "t.csv line 2: every row must have 2 values as the first l",
        ),
        (
            "id,breed",
            "{n},cat",
            ("--label-column=kind",),
            "--label-column must be a column of t.csv",
        ),
        (
            "id,breed,split",
            "{n},cat,fold1",
            (),
            "column 'split' must hold train, validation and te",
        ),
        ("id", "{n}", (), "the first line must name two or more columns, each once"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    root: Path,
    capsys: Capsys,
    header: str,
    row: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    write_classes(root, {".": 8})
    table = write_table(root / "t.csv", header, [row.format(n=n) for n in range(8)])
    assert message in refusal(capsys, root, "--labels", table, *options)


# Kinds of images


def deep_grey(root: Path, scale: int) -> Path:
    """16-bit PNGs whose values go up to about 150 times the scale."""
    for number in range(20):
        rng = np.random.default_rng(number)
        coarse = rng.integers(40, 110, (6, 6), dtype=np.uint8)
        grey = np.asarray(Image.fromarray(coarse).resize((32, 32), 3)).astype(np.uint16)
        grey[8:16, 8:16] += 40 * (number % 2)
        path = root / ("clear", "lesion")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey * np.uint16(scale)).save(path)
    return root


@pytest.mark.parametrize(("scale", "bits", "full"), [(1, 8, "255"), (16, 12, "4,095")])
def test_deep_grey_is_scaled_from_the_range_of_the_set(
    root: Path, capsys: Capsys, tmp_path: Path, scale: int, bits: int, full: str
) -> None:
    found = understood(capsys, deep_grey(root, scale), "--out", tmp_path / "out")
    told = f"16-bit greyscale images use {bits} bits (0 to {full}) and are scaled from that range"
    assert told in found["notes"]
    drawn = np.asarray(Image.open(tmp_path / "out" / "samples.png").convert("L"))
    assert 20 < np.median(drawn[drawn < 250]) < 200  # neither black nor white


def test_one_bright_image_does_not_leave_the_others_black(root: Path, capsys: Capsys) -> None:
    deep_grey(root, 16)
    Image.fromarray(np.full((32, 32), 65535, np.uint16)).save(root / "clear" / "burnt.png")
    line = refusal(capsys, root)
    assert "must share one range, but 20 of 21 use 12 bits or fewer (such as clear/0.png)" in line
    assert "and clear/burnt.png uses 16, which would leave them nearly black; scale the f" in line


def test_near_duplicates_are_confirmed_on_pixels(root: Path, capsys: Capsys) -> None:
    """Films of one composition: near by their hashes, each with its own noise and spot."""
    y, x = np.mgrid[:96, :96] / 96
    chest = 60 + 60 * y + 90 * np.exp(-(((x - 0.5) / 0.2) ** 2 + ((y - 0.5) / 0.3) ** 2))
    for number in range(48):
        rng = np.random.default_rng(number)
        film = np.clip(chest + rng.normal(0, 8, (96, 96)), 0, 255).astype(np.uint8)
        split = "validation" if number % 4 == 0 else "train"
        label = "NORMAL" if number % 8 < 4 else "PNEUMONIA"
        (root / split / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(film).save(root / split / label / f"{number}.png")
    twin = Image.open(root / "train/NORMAL/1.png")
    twin.save(root / "validation/NORMAL/twin.jpg", quality=90)
    found = understood(capsys, root)
    assert found["rejects"] == []
    assert sum(sums(found)) == 49
    (warning,) = found["warnings"]
    assert warning.startswith(
        "1 images of validation or test are nearly the same as one of another"
    )
    assert "validation/NORMAL/twin.jpg and train/NORMAL/1.png: they stay" in warning


def test_a_class_that_loses_images_is_reported(root: Path, capsys: Capsys) -> None:
    write_classes(root, splits("train", "val", each=6))
    for number in range(3):
        shutil.copy(root / f"train/cat/{number}.png", root / f"val/cat/copy{number}.png")
    (warning,) = understood(capsys, root)["warnings"]
    assert warning == (
        "3 of 9 images of class 'cat' in validation are left out (val/cat/copy0.png: duplicate of "
        "train/cat/0.png, in another split)"
    )


@pytest.mark.parametrize(
    ("suffix", "feature"), [("avif", "avif"), ("jp2", "jpg_2000"), ("ico", None)]
)
def test_newer_formats_are_decoded(
    root: Path, capsys: Capsys, suffix: str, feature: str | None
) -> None:
    if feature is not None and not features.check(feature):
        pytest.skip(f"this Pillow is built without {feature}")
    write_classes(root, folders("cat", "dog", each=10))
    Image.open(root / "cat/0.png").resize((32, 32)).save(root / "cat" / f"more.{suffix}")
    found = understood(capsys, root)
    assert sum(sums(found)) == 21
    assert found["rejects"] == []


HEIC = b"\0\0\0\x18ftypheic" + bytes(64)
DICOM = bytes(128) + b"DICM" + bytes(64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEIC, "HEIC, a format that is not read: convert it to JPEG or PNG, or pip install"),
        (DICOM, "DICOM, a format that is not read: convert it to JPEG or PNG"),
        (b"8BPS" + bytes(64), "Photoshop, a format that is not read: convert it"),
    ],
)
def test_formats_that_are_not_read_are_named(
    root: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    from pawtune.data_pipeline.images import decode

    monkeypatch.setattr(decode, "formats", lambda: ("JPEG", "PNG"))  # whatever is installed
    write_classes(root, folders("cat", "dog", each=10))
    (root / "cat" / "a.heic").write_bytes(content)
    (reject,) = understood(capsys, root)["rejects"]
    assert reject["path"] == "cat/a.heic"
    assert reject["reason"].startswith(reason)


def test_uneven_classes_are_shown_with_their_share(root: Path, capsys: Capsys) -> None:
    write_classes(root, {"ill": 4, "well": 36})
    found = understood(capsys, root)
    assert found["majority"] == {"class": "well", "share": pytest.approx(5 / 6)}
    shown = pawtune(capsys, "preview", root, "--image-size=32")
    assert "validation is 83.3% well: a constant answer scores that" in shown.out


@pytest.mark.slow
def test_a_name_wins_over_a_folder_called_so(tmp_path: Path) -> None:
    """`run`, `preview` and `submit` alike, in processes of their own."""
    write_classes(tmp_path / "sample", folders("cat", "dog", each=10))
    command = [sys.executable, "-m", "pawtune", "run", "--data", "sample", "--dry-run", "--json"]
    command += ["--families=conv", "--baselines-only"]
    done = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["counts"]["train"]) == {"dalmatian", "tabby"}


def test_names_and_tables_travel_with_a_job(tmp_path: Path) -> None:
    from pawtune.search.config.search_config import SearchConfig, load_config
    from pawtune.search.driver import with_absolute_paths
    from pawtune.search.jobs.ray_jobs import CONFIG_FILE, pack, placed

    write_classes(Path("sample"), folders("cat", "dog"))
    table = write_table(tmp_path / "breeds.csv", "id,breed", ["0,cat"])
    config = SearchConfig(data="sample", labels="breeds.csv")
    assert with_absolute_paths(config).data == "sample"
    assert with_absolute_paths(config).labels == str(table)
    assert placed(config, here=True, shared=False).data == "sample"
    (tmp_path / "job").mkdir()
    pack(tmp_path / "job", config)
    sent = load_config(tmp_path / "job" / CONFIG_FILE)
    assert sent.labels == "labels.csv"
    assert (tmp_path / "job" / "labels.csv").read_text() == table.read_text()


@pytest.mark.slow
def test_a_search_with_a_table_predicts_in_the_range_that_it_saw(
    root: Path, capsys: Capsys, ray_cluster: dict[str, Any], runs_dir: Path, tmp_path: Path
) -> None:
    deep_grey(tmp_path / "set", 16)
    rows = []
    for path in sorted((tmp_path / "set").rglob("*.png")):
        shutil.copy(path, root / path.name)
        rows.append(f"{path.stem},{path.parent.name}")
    table = write_table(tmp_path / "labels.csv", "id,label", rows)
    ended = pawtune(
        capsys, "run", "--data", root, "--labels", table, "--name=deep", "--families=conv",
        "--trials=1", "--epochs=1", "--no-baselines", "--image-size=32", "--runs-dir", runs_dir,
        "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    run = runs_dir / "deep"
    assert (run / "labels.csv").read_text() == table.read_text()
    assert json.loads((run / "manifest.json").read_text())["grey_bits"] == 12
    assert pawtune(capsys, "best", run, "--out", tmp_path / "best.keras").code == 0
    beyond = np.full((32, 32), 5000, np.uint16)
    Image.fromarray(beyond).save(tmp_path / "beyond.png")
    told = pawtune(
        capsys,
        "predict",
        tmp_path / "best.keras",
        root / "0.png",
        tmp_path / "beyond.png",
        "--json",
    )
    inside, outside = told.json
    assert inside["label"] in ("clear", "lesion")
    assert outside["reason"] == (
        "16-bit image with values up to 5000; the images that were searched on use 12 bits "
        "(0 to 4095)"
    )


def test_a_picture_is_no_data_and_its_folder_is_named(root: Path, capsys: Capsys) -> None:
    picture = write_image(root / "cat" / "1.png", 1)
    assert refusal(capsys, picture).endswith(
        f"received the picture '{picture}'; give the folder that it is in, {picture.parent}, or "
        "the one above"
    )


FLAT = "holds 4 images and no class folders"
NO_TABLE = ", which is no CSV table: write one)"


@pytest.mark.parametrize(
    ("counts", "files", "message"),
    [
        ({"train": 4}, ["train/metadata.csv"], f"train {FLAT} (labels may be in train/metadata.c"),
        (
            {"train": 4},
            ["train/metadata.jsonl"],
            f"(labels may be in train/metadata.jsonl{NO_TABLE}",
        ),
        (
            {"jpg": 4},
            ["imagelabels.mat"],
            f"jpg {FLAT} (labels may be in imagelabels.mat{NO_TABLE}",
        ),
        ({"images": 4}, [f"labels/{n}.txt" for n in range(4)], f"in labels/0.txt{NO_TABLE}; exp"),
        (
            {"images/train": 4, "images/val": 4},
            [
                "data.yaml",
                *(f"labels/{split}/{n}.txt" for split in ("train", "val") for n in "0123"),
            ],
            f"train {FLAT} (labels may be in labels/train/0.txt{NO_TABLE}; expected",
        ),
        (
            {"train/a/images": 4, "train/b/images": 4, "val/images": 4, "test/images": 4},
            ["val/val_annotations.txt", "words.txt"],
            f"val {FLAT} (labels may be in val/val_annotations.txt{NO_TABLE}; expected",
        ),
        ({"cars_train/cars_train": 4, "cars_test/cars_test": 4}, [], f"cars_train {FLAT}; expec"),
        ({"JPEGImages": 4}, ["Annotations/0.xml", "ImageSets/x/a.md"], f"JPEGImages {FLAT}; exp"),
    ],
)
def test_images_without_class_folders_are_refused_with_where_labels_may_be(
    root: Path, capsys: Capsys, counts: dict[str, int], files: list[str], message: str
) -> None:
    write_classes(root, counts)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    said = refusal(capsys, root)
    assert message in said
    alone = f"or give {root}/train alone with --data"
    assert said.endswith(alone) == ("val/images" in counts)


def test_labels_in_the_names_of_files_are_named(root: Path, capsys: Capsys) -> None:
    for number in range(4):
        write_image(root / "train" / f"{('cat', 'dog')[number % 2]}.{number}.jpg", number)
    write_classes(root, {"test1": 2}, first_seed=10)
    (root / "sampleSubmission.csv").write_text("id,label\n1,0\n")
    said = refusal(capsys, root)
    assert f"train {FLAT} (file names begin with cat, dog: if these are the classes, move" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data/train-00000-of-00002.parquet", b"PAR1", "Parquet; images must be files: write eac"),
        ("3.0.0/flowers-train.tfrecord-00000-of-00002", b"x", "TFRecord; images must be files"),
        ("cifar-10-batches-py/data_batch_1", b"\x80\2}", "a pickle of Python; images must be f"),
        ("MNIST/raw/train-images-idx3-ubyte", b"\0\0\x08\3", "arrays in the IDX format of MNIS"),
        ("train/X.npy", b"\x93NUMPY", "a NumPy array; images must be files"),
        ("photos.zip", b"PK\3\4", "a zip archive; unpack it yourself and give the folder"),
    ],
)
def test_what_stands_in_place_of_images_is_named(
    root: Path, capsys: Capsys, name: str, content: bytes, message: str
) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    (root / "README.md").write_text("text")
    said = refusal(capsys, root)
    assert "no class folders with images, but " in said
    assert f" such as {name}, {message}" in said


def test_a_class_that_holds_no_readable_file_does_not_vanish(root: Path, capsys: Capsys) -> None:
    """An archive that was not unpacked, or scans as PDF, in the place of a class's images."""
    write_classes(root, folders("cat", "dog", each=10))
    (root / "bird").mkdir()
    (root / "bird" / "1.zip").write_bytes(b"PK\3\4")
    assert "'bird' (0) (1 left out; bird/1.zip: a zip archive: unpack it)" in refusal(capsys, root)
    (root / "bird" / "1.zip").rename(root / "bird" / "1.xml")
    assert understood(capsys, root)["notes"] == [
        "left out, as they hold no images: bird (1 files such as bird/1.xml)"
    ]


def test_pointers_of_git_lfs_are_named(root: Path, capsys: Capsys) -> None:
    write_classes(root, folders("cat", "dog", each=10))
    for number in range(2):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{number}\nsize 9\n"
        (root / "cat" / f"p{number}.jpg").write_text(pointer)
    found = understood(capsys, root)
    assert [reject["reason"] for reject in found["rejects"]] == [
        "a pointer of Git LFS in place of the file: run `git lfs pull`"
    ] * 2
    assert "2 of 12 images of class 'cat' are left out" in found["warnings"][0]


def test_hidden_folders_are_named_where_one_class_remains(root: Path, capsys: Capsys) -> None:
    write_classes(root, folders(".cat", "dog"))
    assert "(hidden and system folders are none: .cat)" in refusal(capsys, root)


def test_empty_splits_are_refused(root: Path, capsys: Capsys) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (root / name).mkdir(parents=True)
    assert "no class folders with images; expected" in refusal(capsys, root)


def test_refusals_of_what_was_unpacked_name_the_archive(root: Path, capsys: Capsys) -> None:
    archive = shutil.make_archive(str(root), "zip", write_classes(root, {"cat": 3}))
    said = refusal(capsys, Path(archive))
    assert said.startswith(f"pawtune: {archive}: ")
    assert "one class only" in said


@pytest.mark.parametrize("names", [("Cat", "cat"), ("golden retriever", "golden_retriever")])
def test_one_class_under_two_names_is_named(
    root: Path, capsys: Capsys, names: tuple[str, str]
) -> None:
    first, second = names
    write_classes(root, {f"train/{first}": 4, "train/dog": 4, f"val/{second}": 4, "val/dog": 4})
    said = refusal(capsys, root)
    assert f"{first!r} is in train and {second!r} in val: give folders of one class one" in said


def test_folders_of_images_and_of_segmentations_are_refused(root: Path, capsys: Capsys) -> None:
    write_classes(root, folders("JPEGImages", "SegmentationClass", "SegmentationObject"))
    assert "JPEGImages and Segmentation" in refusal(capsys, root)


def test_a_python_environment_beside_the_classes_is_no_class(root: Path, capsys: Capsys) -> None:
    write_classes(root, folders("cat", "dog", "venv/share/jupyter/kernels", each=6))
    (root / "venv" / "pyvenv.cfg").touch()
    found = understood(capsys, root)
    assert found["class_names"] == ["cat", "dog"]
    assert found["rejects"] == [{"path": "venv", "reason": "a Python environment"}]
