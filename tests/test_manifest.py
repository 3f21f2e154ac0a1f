"""data_pipeline.manifest: layouts, duplicates, rejects, bad input, files."""

import csv
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import Decoding
from pawtune.data_pipeline.splitting import image_hashes as hashing
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import SPLITS, Manifest, validation_labels
from pawtune.data_pipeline.splitting.manifest_io import LABELS, escape, read_sizes, unescape
from tests.image_files import write_classes, write_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def reasons(manifest: Manifest) -> dict[str, str]:
    return {reject.path: reject.reason for reject in manifest.rejects}


def total(counts: dict[str, dict[str, int]]) -> int:
    return sum(sum(labels.values()) for labels in counts.values())


# Layouts and splits


def test_class_folders_are_split_by_shares(root: Path) -> None:
    manifest = build_manifest(write_classes(root, {"cat": 20, "dog": 40}))
    assert manifest.layout == "classes"
    assert manifest.class_names == ("cat", "dog")
    assert manifest.counts() == {
        "train": {"cat": 14, "dog": 28},
        "validation": {"cat": 3, "dog": 6},
        "test": {"cat": 3, "dog": 6},
    }


def test_missing_test_is_carved_out_of_validation(root: Path) -> None:
    write_classes(root, {"train/cat": 4, "train/dog": 4, "validation/cat": 10, "validation/dog": 5})
    manifest = build_manifest(root)
    assert manifest.layout == "train_validation"
    assert manifest.counts() == {
        "train": {"cat": 4, "dog": 4},
        "validation": {"cat": 8, "dog": 4},
        "test": {"cat": 2, "dog": 1},
    }
    assert all(
        entry.path.startswith("train/" if entry.split == "train" else "validation/")
        for entry in manifest.entries
    )


def test_given_test_folder_stays_as_it_is(root: Path) -> None:
    sizes = {"Training": 3, "val": 2, "test": 1}
    write_classes(root, {f"{split}/{c}": n for split, n in sizes.items() for c in ("x", "y", "z")})
    manifest = build_manifest(root)
    assert manifest.layout == "train_validation_test"
    assert [manifest.counts()[split] for split in SPLITS] == [
        {"x": n, "y": n, "z": n} for n in sizes.values()
    ]


def test_images_below_a_class_folder_count_at_any_depth(root: Path) -> None:
    write_classes(root, {"cat/2020/may": 3, "cat": 1, "dog": 4})
    assert total(build_manifest(root).counts()) == 8


def test_split_and_labels_share_an_order_that_names_do_not_change(root: Path) -> None:
    write_classes(root, {"cat": 9, "dog": 9})
    manifest = build_manifest(root)
    entries = manifest.split("train")
    assert [entry.sha256 for entry in entries] == sorted(entry.sha256 for entry in entries)
    labels = manifest.labels("train")
    assert labels.dtype == "int32"
    assert [manifest.class_names[label] for label in labels] == [e.label for e in entries]
    with pytest.raises(
        DataError, match="split must be one of train, validation, test, received 'dev'"
    ):
        manifest.split("dev")


def test_assignment_depends_on_content_and_seed_only(root: Path, tmp_path: Path) -> None:
    write_classes(root, {"cat": 12, "dog": 12})
    other = tmp_path / "elsewhere"
    for number, path in enumerate(sorted(root.rglob("*.png"), reverse=True)):
        target = other / path.parent.name / f"{'zyx'[number % 3]}{number}.jpeg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first, second = build_manifest(root, seed=3), build_manifest(other, seed=3)
    assert {e.sha256: e.split for e in first.entries} == {e.sha256: e.split for e in second.entries}
    assert first.fingerprint == second.fingerprint
    assert first.split("test")[0].sha256 == second.split("test")[0].sha256
    assert build_manifest(root, seed=4).fingerprint != first.fingerprint


# Duplicates


def test_near_duplicates_share_a_split_and_are_told(root: Path) -> None:
    write_classes(root, {"cat": 12, "dog": 12})
    for number in range(6):
        image = Image.open(root / "cat" / f"{number}.png")
        image.resize((48, 36)).save(root / "cat" / f"{number}.jpg", quality=80)
        shutil.copy(root / "dog" / f"{number}.png", root / "dog" / f"copy of {number}.png")
    for seed in range(5):
        manifest = build_manifest(root, seed=seed)
        groups = manifest.duplicates()
        assert sorted(len(group) for group in groups) == [2] * 12
        assert all(len({entry.split for entry in group}) == 1 for group in groups)
        assert len(manifest.entries) == 36


def test_duplicate_across_given_splits_leaves_the_evaluation_side(root: Path) -> None:
    write_classes(
        root, {f"{s}/{c}": 4 for s in ("train", "validation", "test") for c in ("a", "b")}
    )
    shutil.copy(root / "train/a/0.png", root / "validation/a/copy.png")
    Image.open(root / "train/b/1.png").save(root / "test/b/near.jpg", quality=70)
    shutil.copy(root / "validation/b/2.png", root / "test/b/seen.png")
    manifest = build_manifest(root)
    assert reasons(manifest) == {
        "validation/a/copy.png": "duplicate of train/a/0.png, in another split",
        "test/b/seen.png": "duplicate of validation/b/2.png, in another split",
    }
    assert total(manifest.counts()) == 25
    crossing = "1 images of validation or test are nearly the same as one of another split"
    assert crossing in manifest.warnings[-1]
    assert "example test/b/near.jpg and train/b/1.png: they stay" in manifest.warnings[-1]
    assert manifest.warnings[:-1] == (
        "1 of 6 images of class 'b' in test are left out (test/b/seen.png: duplicate of "
        "validation/b/2.png, in another split)",
        "1 of 5 images of class 'a' in validation are left out (validation/a/copy.png: duplicate "
        "of train/a/0.png, in another split)",
    )


def test_one_content_under_two_labels_is_rejected(root: Path) -> None:
    write_classes(root, {"cat": 5, "dog": 5})
    shutil.copy(root / "cat/0.png", root / "dog/x.png")
    shutil.copy(root / "cat/0.png", root / "cat/y.png")
    assert reasons(build_manifest(root)) == {
        "cat/0.png": "same content under another label: dog/x.png",
        "cat/y.png": "same content under another label: dog/x.png",
        "dog/x.png": "same content under another label: cat/0.png",
    }


def test_near_duplicates_under_two_labels_are_a_warning(root: Path) -> None:
    write_classes(root, {"cat": 5, "dog": 5})
    Image.open(root / "cat/0.png").save(root / "dog/x.jpg", quality=70)
    manifest = build_manifest(root)
    assert manifest.warnings == ("near duplicates under different labels: cat/0.png, dog/x.jpg",)
    (group,) = manifest.duplicates()
    assert len({entry.split for entry in group}) == 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train/a", "train/b", "validation/a", "validation/b"]),
            st.integers(0, 7),
            st.sampled_from([None, 60, 90]),
        ),
        max_size=12,
    ),
    st.integers(0, 3),
)
def test_splits_never_leak(
    tmp_path_factory: pytest.TempPathFactory,
    copies: list[tuple[str, int, int | None]],
    seed: int,
) -> None:
    root = tmp_path_factory.mktemp("leak")
    folders = ("train/a", "train/b", "validation/a", "validation/b")
    write_classes(root, dict.fromkeys(folders, 3))
    for number, (folder, picture_seed, quality) in enumerate(copies):
        write_image(root / folder / f"copy{number}", picture_seed, quality=quality)
    try:
        manifest = build_manifest(root, seed=seed)
    except DataError as refusal:
        message = str(refusal)
        assert "have fewer" in message or "leaves no image" in message
        return
    place = {entry.group: entry.split for entry in manifest.entries}
    crossing = [e.path for e in manifest.entries if place[e.group] != e.split]
    # Only near duplicates that were given in two splits, which a warning says.
    assert not crossing or any("nearly the same" in warning for warning in manifest.warnings)
    owner = {entry.sha256: entry.split for entry in manifest.entries}
    assert all(owner[entry.sha256] == entry.split for entry in manifest.entries)
    files = sum(path.is_file() for path in root.rglob("*"))
    assert len(manifest.entries) + len(manifest.rejects) == files


# Rejects


def test_everything_left_out_is_listed_and_totals_add_up(root: Path, tmp_path: Path) -> None:
    write_classes(root, dict.fromkeys(("train/a", "train/b", "val/a", "val/b"), 3))
    outside = write_image(tmp_path / "outside.png", 77)
    (root / "train/a/notes.txt").write_text("hello")
    (root / "train/a/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "train/a/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "val/a/.cache").mkdir()
    shutil.copy(outside, root / "val/a/.cache/x.png")
    (root / "train/b/empty.jpg").touch()
    (root / "train/b/broken.png").symlink_to(root / "nowhere.png")
    (root / "train/b/outward").symlink_to(tmp_path)
    os.mkfifo(root / "train/b/pipe.jpg")
    shutil.copy(outside, root / "train/loose.png")
    shutil.copy(outside, root / "top.png")
    write_image(root / "unlabelled/1.png", 78)
    manifest = build_manifest(root)
    found = reasons(manifest)
    assert found.pop("train/a/notes.txt").startswith("not an image (read: JPEG, PNG, ")
    assert found.pop("train/a/Thumbs.db").startswith("not an image")
    assert found == {
        "train/a/.DS_Store": "hidden or system file",
        "val/a/.cache/x.png": "hidden or system file",
        "train/b/empty.jpg": "empty file (0 bytes)",
        "train/b/broken.png": "broken symbolic link",
        "train/b/outward": "symbolic link to a folder that contains it",
        "train/b/pipe.jpg": "not a regular file",
        "train/loose.png": "not in a class folder",
        "top.png": "outside the train, validation and test folders",
        "unlabelled/1.png": "outside the train, validation and test folders",
    }
    assert len(manifest.entries) == 12


def test_link_within_the_folder_is_a_copy(root: Path) -> None:
    write_classes(root, {"cat": 4, "dog": 4})
    (root / "cat/link.png").symlink_to(root / "cat/0.png")
    manifest = build_manifest(root)
    assert [len(group) for group in manifest.duplicates()] == [2]


# Bad input


def no_folder(root: Path) -> Path:
    return root / "missing"


def a_file(root: Path) -> Path:
    return write_image(root / "photo.png", 0)


def nothing_inside(root: Path) -> Path:
    return root


def loose_images(root: Path) -> Path:
    write_image(root / "1.png", 0)
    return root


def no_images(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir()
    (root / "cat" / "a.txt").write_text("meow")
    return root


def empty_class(root: Path) -> Path:
    (write_classes(root, {"cat": 3, "dog": 3}) / "emu").mkdir()
    return root


def unusable_class(root: Path) -> Path:
    write_classes(root, {"train/a": 3, "train/b": 3, "val/a": 3})
    (root / "val/b").mkdir()
    (root / "val/b/x.jpg").touch()
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_folder, r"no such folder: .*missing"),
        (a_file, r"photo\.png is a file; give a folder of class folders"),
        (
            nothing_inside,
            r"data: no class folders with images; expected ROOT/<class>/<im",
        ),
        (
            loose_images,
            r"data: no class folders, but 1 images; expected .* or give .*--labels",
        ),
        ({"cat": 3}, r"one class only \('cat'\); at least 2 class folders are needed$"),
        (no_images, r"data: no class folders with images, of 1 files such as cat/a.txt; expected"),
        (empty_class, r"at least 3 .*, but 1 of 3 have fewer: 'emu' \(0\); .*--min-class-size 3"),
        (
            unusable_class,
            r"2 different .*fewer: 'b' \(0\) \(1 left out; val/b/x.jpg: empty",
        ),
        (
            {"train/a": 3, "train/b": 3, "val/a": 3, "val/b": 1},
            r"least 2 different images in validation .* fewer: 'b' \(1\); add",
        ),
        (
            {"cat": 3, "dog\udce9": 3},
            r"class folder 'dog\\udce9' must be printable UTF-8; rename it",
        ),
    ],
)
def test_bad_input_is_refused(
    root: Path, make: Callable[[Path], Path] | dict[str, int], message: str
) -> None:
    folder = write_classes(root, make) if isinstance(make, dict) else make(root)
    with pytest.raises(DataError, match=message):
        build_manifest(folder)


# Hash cache


def test_second_manifest_reads_no_image(root: Path, tmp_path: Path) -> None:
    write_classes(root, {"cat": 10, "dog": 10})
    seen: list[tuple[str, int, int | None]] = []
    first = build_manifest(root, cache=tmp_path, progress=lambda *told: seen.append(told))
    assert seen == [("hash", done, 20) for done in range(21)]
    seen.clear()
    second = build_manifest(root, cache=tmp_path, progress=lambda *told: seen.append(told))
    assert second == first
    assert seen == [("hash", 20, 20)]


def test_a_changed_file_is_read_again(root: Path, tmp_path: Path) -> None:
    write_classes(root, {"cat": 5, "dog": 5})
    build_manifest(root, cache=tmp_path)
    before = os.stat(root / "cat/0.png")
    write_image(root / "cat/0.png", 99)
    os.utime(root / "cat/0.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (root / "cat/1.png").unlink()
    manifest = build_manifest(root, cache=tmp_path)
    assert manifest == build_manifest(root)
    (store,) = (tmp_path / "hashes").iterdir()
    assert len(json.loads(store.read_text())["files"]) == 9


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0}', '{"files": {"a": [1]}}'])
def test_a_broken_store_counts_as_empty(root: Path, tmp_path: Path, content: str) -> None:
    write_classes(root, {"cat": 3, "dog": 3})
    expected = build_manifest(root, cache=tmp_path)
    (store,) = (tmp_path / "hashes").iterdir()
    if "files" in content:
        content = json.dumps({"version": hashing.CACHE_VERSION} | json.loads(content))
    store.write_text(content)
    assert build_manifest(root, cache=tmp_path) == expected


def test_an_interrupted_reading_keeps_what_it_read(root: Path, tmp_path: Path) -> None:
    write_classes(root, {"cat": 10, "dog": 10})

    def interrupt(stage: str, done: int, total: int | None) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_manifest(root, cache=tmp_path, progress=interrupt)
    (store,) = (tmp_path / "hashes").iterdir()
    assert len(json.loads(store.read_text())["files"]) == 8


def test_large_images_are_resized_by_area(root: Path, tmp_path: Path) -> None:
    """Half of them or more, by the shorter side; it is kept, and no cached pixels are mixed up."""
    write_classes(root, {"cat": 10, "dog": 10})
    small = build_manifest(root)
    side = min(small.entries[0].width, small.entries[0].height)
    assert build_manifest(root, area_from=side + 1) == small
    made = build_manifest(root, area_from=side)
    assert made.decoding == Decoding(resizing="area")
    assert any("resized by area" in note for note in made.notes)
    made.save(tmp_path)
    assert Manifest.load(tmp_path) == made
    assert made.fingerprint == small.fingerprint
    assert not {e.pixels_key for e in made.entries} & {e.pixels_key for e in small.entries}
    assert {entry.pixels_key for entry in small.entries} == {e.sha256 for e in small.entries}


# Files


def test_save_and_load_give_back_the_manifest(root: Path, tmp_path: Path) -> None:
    names = [
        'say "cheese", please.png',
        "two\nlines.png",
        "return\r.png",
        "caf\udce9.png",
        r"a\udce9b.png",
    ]
    write_classes(root, {"cat": 6, "dog": 4})
    for number, name in enumerate(names):
        (root / "cat" / f"{number}.png").rename(root / "cat" / name)
    (root / "dog" / "bad\udcff.txt").write_text("x")
    manifest = build_manifest(root)
    manifest.save(tmp_path / "run")
    assert Manifest.load(tmp_path / "run") == manifest
    assert {Path(entry.path).name for entry in manifest.entries} >= set(names)
    with (tmp_path / "run" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} >= {"cat/" + names[0], "cat/caf\\udce9.png"}
    assert list(rows[0])[:4] == ["path", "label", "split", "sha256"]
    content = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert content["rejects"][0]["path"] == "dog/bad\\udcff.txt"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "manifest.csv",
        "manifest.json",
        "validation_labels.npy",
    ]


@given(st.binary().map(os.fsdecode) | st.text("\\udc5ce9").map(lambda tail: "\udce9" + tail))
def test_file_names_survive_escaping(name: str) -> None:
    escape(name).encode()
    assert unescape(escape(name)) == name


def edit_csv(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_json(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: edit_csv(f, "cat/0.png", "../0.png"), "line 2: path: .*stay below the root"),
        (lambda f: edit_csv(f, "cat/0.png", "/etc/x"), "stay below the root, received '/etc/x'"),
        (lambda f: edit_csv(f, "cat/0.png", "a/../../x"), "stay below the root"),
        (lambda f: edit_csv(f, ",train,", ",dev,"), "split: .*'train', 'validation' or 'test'"),
        (lambda f: edit_csv(f, ",cat,", ",emu,"), "label 'emu' of cat/0.png is not among.* cat"),
        (
            lambda f: edit_csv(f, "sha256", "sha"),
            "columns must be path, label, .*; received path, la",
        ),
        (lambda f: edit_csv(f, ",32,24", ",32"), "line 2: height: "),
        (lambda f: edit_csv(f, ",32,24", ",32,24,7"), "line 2: "),
        (lambda f: edit_csv(f, ",32,24\n", ",32,24,moved/cat.png\n"), "line 2: "),
        (lambda f: edit_csv(f, ",32,24", ",0,24"), "width: .*greater than or equal to 1"),
        (lambda f: edit_json(f, seed="1"), "manifest.json: seed: "),
        (lambda f: edit_json(f, format=3), "manifest.json: format: "),
        (lambda f: edit_json(f, extra=2), "manifest.json: extra: "),
        (lambda f: (f / "manifest.csv").unlink(), "manifest.csv: the manifest cannot be read"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: : Invalid JSON"),
        (lambda f: (f / "manifest.csv").write_bytes(b"\xff"), "manifest cannot be read"),
    ],
)
def test_a_spoilt_manifest_is_refused(
    root: Path, tmp_path: Path, edit: Callable[[Path], object], message: str
) -> None:
    write_classes(root, {"cat": 4, "dog": 4})
    build_manifest(root).save(tmp_path / "run")
    edit(tmp_path / "run")
    with pytest.raises(DataError, match=message):
        Manifest.load(tmp_path / "run")


def test_sizes_and_validation_labels_are_known_without_the_table(
    root: Path, tmp_path: Path
) -> None:
    write_classes(root, {"cat": 9, "dog": 30})
    manifest = build_manifest(root)
    manifest.save(tmp_path / "run")

    def known() -> tuple[Any, ...]:
        names, labels = validation_labels(tmp_path / "run")
        return dict(read_sizes(tmp_path / "run")), names, labels.tolist()

    expected = manifest.sizes(), ("cat", "dog"), manifest.labels("validation").tolist()
    assert sum(manifest.sizes().values()) == 39
    table = (tmp_path / "run" / "manifest.csv").read_bytes()
    (tmp_path / "run" / "manifest.csv").unlink()
    assert known() == expected
    # A manifest of an early version has neither; labels that fit no class are not believed.
    (tmp_path / "run" / "manifest.csv").write_bytes(table)
    np.save(tmp_path / "run" / LABELS, np.full_like(manifest.labels("validation"), 7))
    assert known() == expected
    edit_json(tmp_path / "run", sizes=None)
    assert known() == expected
    edit_json(tmp_path / "run", sizes=manifest.sizes() | {"train": 3})
    with pytest.raises(DataError, match="does not have the fingerprint"):
        Manifest.load(tmp_path / "run")


# The real set


@pytest.fixture(scope="module")
def real_photos(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(test_data / "cats_and_dogs_filtered.zip") as photos:
        photos.extractall(folder)
    return folder / "cats_and_dogs_filtered"


@pytest.mark.slow
def test_real_set(real_photos: Path, tmp_path: Path) -> None:
    manifest = build_manifest(real_photos, cache=tmp_path)
    assert manifest.counts() == {
        "train": {"cats": 1000, "dogs": 1000},
        "validation": {"cats": 400, "dogs": 400},
        "test": {"cats": 100, "dogs": 100},
    }
    assert manifest.rejects == ()
    assert manifest.warnings == ()
    pairs = [[entry.path for entry in group] for group in manifest.duplicates()]
    assert pairs == [["train/dogs/dog.180.jpg", "train/dogs/dog.74.jpg"]]
    told: list[tuple[str, int, int | None]] = []
    again = build_manifest(real_photos, cache=tmp_path, progress=lambda *now: told.append(now))
    assert again == manifest
    assert told == [("hash", 3000, 3000)]  # none was read


def test_files_that_the_system_makes_up_are_not_entered(tmp_path: Path) -> None:
    from pawtune.data_pipeline.splitting.folder_tree import SYSTEM_FILES, read_tree

    for place in ("/proc", "/sys", "/dev"):
        if os.path.ismount(place):
            with pytest.raises(DataError, match=f"{place}: {SYSTEM_FILES}"):
                read_tree(Path(place))
    if os.path.ismount("/proc"):
        (tmp_path / "cat").symlink_to("/proc")
        os.mkfifo(tmp_path / "pipe")
        tree = read_tree(tmp_path)
        assert {found.path: found.fault for found in tree.all_found()} == {
            "cat": SYSTEM_FILES,
            "pipe": "not a regular file",
        }
