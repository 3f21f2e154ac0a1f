"""Whether a search fits into Ray's object store: told beforehand, and it runs all the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.sources.sample import make_sample
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.memory_budget import bytes_to_share, smallest_store, too_small
from pawtune.search.shared_work.pixels import decode_pixels

ROOT = Path(__file__).resolve().parent.parent
STORE_BYTES = 80_000_000  # Ray's least is 75 MB


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    per_class = {"train": 60, "validation": 30}
    images = make_sample(tmp_path_factory.mktemp("data"), per_class=per_class, size_px=32)
    return build_manifest(images)


def test_what_a_search_shares_is_counted(manifest: Manifest) -> None:
    train, validation = (len(manifest.split(name)) for name in ("train", "validation"))
    images = (train + validation) * 3
    backbone = StoredBackbone(Path("w"), "hash", num_weights=9, num_features=10)
    features = (train * 17 + validation) * 10 * 2 * 2
    assert bytes_to_share(manifest, [32], {}, 17) == images * 32**2
    assert bytes_to_share(manifest, [], {("MobileNetV2", 64): backbone}, 17) == (
        images * 64**2 + features
    )
    both = bytes_to_share(manifest, [32, 64], {("MobileNetV2", 64): backbone}, 17)
    assert both == images * (32**2 + 64**2) + features


def test_a_store_that_is_too_small_is_told_with_the_remedy() -> None:
    assert too_small(10**9, 10**9) is None
    line = too_small(3_210_000_000, 10**9)
    assert line is not None
    assert "shares up to 3.2 GB" in line
    assert "holds 1.0 GB" in line
    assert "--object-store-memory" in line
    assert "\n" not in line


@pytest.mark.slow
def test_pixels_larger_than_the_store_go_to_disk_and_come_back(
    manifest: Manifest, tmp_path: Path
) -> None:
    """In a process of its own: the store is as large as when Ray started."""
    command = [sys.executable, "-m", "tests.test_memory_budget", manifest.root, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def decode_more_than_fits(root: Path, cache: Path) -> None:
    """Decodes a split that is larger than the store, and looks at what comes back."""
    size = 512  # 0.79 MB an image
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
    )
    manifest = build_manifest(root)
    assert smallest_store() == STORE_BYTES
    assert too_small(bytes_to_share(manifest, [size], {}, 17), smallest_store())
    train = ray.get(decode_pixels(manifest, root, size, cache).train)
    assert train.nbytes > STORE_BYTES
    some = manifest.split("train")[-3:]
    np.testing.assert_array_equal(train[-3:], decode_split(root, some, size))


if __name__ == "__main__":
    decode_more_than_fits(Path(sys.argv[1]), Path(sys.argv[2]))
