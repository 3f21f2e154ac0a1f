"""data_pipeline.sample: deterministic, fast, balanced, and told by shapes only."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.sources.sample import COATS, PER_CLASS, draw_coat, make_sample
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest

SMALL = {"train": 3, "validation": 2, "test": 1}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.jpg"))
    }


def test_same_seed_same_files_and_another_seed_others(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    first = make_sample(
        tmp_path / "a", 1, per_class=SMALL, size_px=48, progress=lambda *now: told.append(now)
    )
    assert told == [("sample", done, 12) for done in range(1, 13)]
    second = make_sample(tmp_path / "b", 1, per_class=SMALL, size_px=48)
    assert digests(first) == digests(second)
    assert sorted(digests(first))[:2] == [
        "test/dalmatian/dalmatian_0000.jpg",
        "test/tabby/tabby_0000.jpg",
    ]
    larger = make_sample(tmp_path / "c", 1, per_class={"train": 4}, size_px=48)
    assert (
        digests(larger).items()
        >= {
            name: digest for name, digest in digests(first).items() if name.startswith("train")
        }.items()
    )
    other = make_sample(tmp_path / "d", 2, per_class=SMALL, size_px=48)
    assert not set(digests(first).values()) & set(digests(other).values())


@pytest.mark.parametrize("size_px", [32, 97, 160])
def test_a_picture_has_the_size_asked_for(size_px: int) -> None:
    for coat in COATS:
        picture = draw_coat(coat, np.random.default_rng(0), size_px)
        assert picture.shape == (size_px, size_px, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, float]:
    """The sample as `--data sample` makes it, and the CPU seconds that took."""
    start = time.process_time()
    folder = make_sample(tmp_path_factory.mktemp("sample"))
    cpu_s = time.process_time() - start
    return build_manifest(folder), cpu_s


@pytest.mark.slow
def test_the_whole_sample_is_made_in_time(whole: tuple[Manifest, float]) -> None:
    manifest, cpu_s = whole
    assert cpu_s < 60
    assert manifest.counts() == {
        split: dict.fromkeys(COATS, count) for split, count in PER_CLASS.items()
    }
    assert manifest.rejects == ()
    assert manifest.duplicates() == ()
    assert {(entry.width, entry.height) for entry in manifest.entries} == {(160, 160)}


def colour_statistics(manifest: Manifest, split: str) -> NDArray[np.float64]:
    """(N, 3): mean red, green and blue of each image."""
    images = decode_split(Path(manifest.root), manifest.split(split), 64)
    return images.mean(axis=(1, 2))


def test_mean_colour_does_not_tell_the_coats_apart(tmp_path: Path) -> None:
    """Nearest class mean, and least squares on colours, squares and products."""
    manifest = build_manifest(make_sample(tmp_path, size_px=64))
    train, labels = colour_statistics(manifest, "train"), manifest.labels("train")
    held_out = np.concatenate([colour_statistics(manifest, s) for s in ("validation", "test")])
    truth = np.concatenate([manifest.labels(split) for split in ("validation", "test")])

    means = np.stack([train[labels == label].mean(axis=0) for label in (0, 1)])
    nearest = ((held_out[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    assert (nearest == truth).mean() < 0.6

    def terms(colours: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = colours / 128 - 1
        pairs = np.einsum("ni,nj->nij", scaled, scaled)[:, *np.triu_indices(3)]
        return np.concatenate([np.ones((len(colours), 1)), scaled, pairs], axis=1)

    weights, *_ = np.linalg.lstsq(terms(train), labels * 2.0 - 1, rcond=None)
    assert ((terms(held_out) @ weights > 0) == truth).mean() < 0.6
