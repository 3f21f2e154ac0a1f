"""Decoded pixels: made once for a search, kept for the next, and whole or absent."""

import os
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.file_lock import build_lock
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.images.pixel_cache import ARRAY, PixelWriter, load_pixels, pixels_key
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.shared_work import pixels as shared_work
from pawtune.search.shared_work.pixels import decode_pixels

SIZE = 32

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def images(tiny_images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_images, tmp_path / "images"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "SHARD_IMAGES", 16)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "pixels").glob("[!.]*"))


def assert_pixels_of(manifest: Manifest, refs: shared_work.PixelRefs, root: Path) -> None:
    for split, reference in (("train", refs.train), ("validation", refs.validation)):
        expected = decode_split(root, manifest.split(split), SIZE)
        np.testing.assert_array_equal(reference.open(), expected)


def test_the_next_search_decodes_nothing(images: Path, cache: Path, tmp_path: Path) -> None:
    manifest = build_manifest(images)
    steps: list[tuple[int, int]] = []
    first = decode_pixels(manifest, images, SIZE, cache, progress=lambda *step: steps.append(step))
    assert_pixels_of(manifest, first, images)
    total = len(manifest.split("train")) + len(manifest.split("validation"))
    assert steps[0] == (0, total)
    assert steps[-1] == (total, total)
    assert len(kept(cache)) == 1

    steps.clear()
    gone = tmp_path / "gone"
    second = decode_pixels(manifest, gone, SIZE, cache, progress=lambda *step: steps.append(step))
    assert_pixels_of(manifest, second, images)
    assert steps == []


def test_of_two_searches_at_once_one_decodes_and_the_other_says_that_it_waits(
    images: Path, cache: Path
) -> None:
    manifest = build_manifest(images)
    entries = [*manifest.split("train"), *manifest.split("validation")]
    folder = cache / "pixels" / pixels_key((entry.sha256 for entry in entries), SIZE)
    steps: list[tuple[object, ...]] = []
    waits = threading.Event()

    def progress(*step: object) -> None:
        steps.append(step)
        waits.set()

    with ThreadPoolExecutor() as pool:
        with build_lock(folder):
            other = pool.submit(decode_pixels, manifest, images, SIZE, cache, progress=progress)
            assert waits.wait(timeout=20)
            with closing(PixelWriter(folder, len(entries), SIZE)) as writer:
                writer.write(0, decode_split(images, entries, SIZE))
                writer.finish()
        assert_pixels_of(manifest, other.result(timeout=20), images)
    total = len(entries)
    waiting = "waits for another search, which is making the same"
    assert steps == [(0, total, waiting), (total, total)]


def test_another_size_or_split_is_another_array(images: Path, cache: Path) -> None:
    for manifest, size in (
        (build_manifest(images), SIZE),
        (build_manifest(images), SIZE + 1),
        (build_manifest(images, seed=1), SIZE),
    ):
        decode_pixels(manifest, images, size, cache)
    assert len(kept(cache)) == 3


def test_the_key_knows_the_order_of_the_images() -> None:
    assert pixels_key(["a", "b"], 32) == pixels_key(iter(["a", "b"]), 32)
    others = [(["b", "a"], 32), (["a", "b"], 33), (["a"], 32), (["ab"], 32)]
    assert len({pixels_key(hashes, size) for hashes, size in others}) == 4
    assert pixels_key(["a", "b"], 32) not in {pixels_key(h, s) for h, s in others}


def test_an_image_that_has_changed_ends_it_before_any_trial(images: Path, cache: Path) -> None:
    manifest = build_manifest(images)
    changed = images / manifest.split("validation")[-1].path
    changed.write_bytes(changed.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"{changed.name}: changed since the manifest was made"):
        decode_pixels(manifest, images, SIZE, cache)
    assert kept(cache) == []
    assert list((cache / "pixels").glob(".*.partial")) == []


def test_without_room_in_the_cache_it_goes_on_and_says_so(images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    manifest = build_manifest(images)
    said: list[str] = []
    refs = decode_pixels(manifest, images, SIZE, cache, say=said.append)
    assert_pixels_of(manifest, refs, images)
    (line,) = said
    assert line.startswith("decoded pixels are not kept for the next search: ")
    assert str(cache) in line


def test_a_disk_that_fails_meanwhile_costs_the_cache_only(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems where reserved room is no promise."""
    manifest = build_manifest(images)
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: None)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    said: list[str] = []
    try:
        refs = decode_pixels(manifest, images, SIZE, cache, say=said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert_pixels_of(manifest, refs, images)
    assert ["File too large" in line for line in said] == [True]
    assert kept(cache) == []
    assert list((cache / "pixels").glob(".*.partial")) == []


def test_a_cache_that_is_cleared_meanwhile_harms_nothing(images: Path, cache: Path) -> None:
    manifest = build_manifest(images)

    def progress(done: int, total: int, waits: str = "") -> None:
        if done == total:
            shutil.rmtree(cache)

    assert_pixels_of(
        manifest, decode_pixels(manifest, images, SIZE, cache, progress=progress), images
    )


def test_what_a_killed_search_left_goes_away(images: Path, cache: Path) -> None:
    manifest = build_manifest(images)
    decode_pixels(manifest, images, SIZE, cache)
    (folder,) = kept(cache)
    shutil.rmtree(folder)
    left = folder.parent / f".{folder.name}.0123abcd.partial"
    left.mkdir()
    (left / ARRAY).write_bytes(b"half")
    decode_pixels(manifest, images, SIZE, cache)
    assert not left.exists()
    assert kept(cache) == [folder]


def test_a_damaged_array_is_refused_with_the_remedy(images: Path, cache: Path) -> None:
    manifest = build_manifest(images)
    decode_pixels(manifest, images, SIZE, cache)
    (folder,) = kept(cache)
    with (folder / ARRAY).open("rb+") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="no whole decoded images .*delete the folder"):
        decode_pixels(manifest, images, SIZE, cache)


def test_of_two_that_write_one_array_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "pixels" / "key"
    with (
        closing(PixelWriter(folder, 2, SIZE)) as slow,
        closing(PixelWriter(folder, 2, SIZE)) as fast,
    ):
        sevens = np.full((1, SIZE, SIZE, 3), 7, np.uint8)
        for writer in (fast, slow):
            writer.write(1, sevens)
            writer.write(0, sevens)
        fast.finish()
        assert (slow.finish() == 7).all()
    assert [path.name for path in folder.parent.iterdir()] == ["key"]
    assert load_pixels(folder, 2, SIZE).flags.writeable is False
