"""Storage and memory that fail under a running search: see docs/reliability.md."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pawtune.search.shared_work.board import ArrayWriter, Job
from tests.test_faults import EPOCHS, TRIALS, _reap, address, begin, resume  # noqa: F401  # fixtures
from tests.whole_run import assert_whole

PATIENCE_S = 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here (it takes root): {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Takes all that is free; the ballast."""
    ballast = disk / "ballast"
    handle = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    for size in (2**16, 2**12):
        with suppress(OSError):
            while True:
                os.write(handle, b"x" * size)
    os.close(handle)
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("cleared", [True, False])
def test_a_disk_that_is_full(
    cleared: bool,
    address: str,  # noqa: F811
    tiny_images: Path,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    """For a while: the search waits. For longer: it ends with one line, and can be resumed."""
    settings = {"patience_s": 60 if cleared else PATIENCE_S, "weights_kb": 100}
    victim = begin(
        small_disk / "runs", tiny_images, address=address, log_dir=str(tmp_path), **settings
    )
    victim.wait_for(lambda: len(victim.epochs()) >= 3)
    ballast = fill(small_disk)
    full = time.time()
    if cleared:
        time.sleep(5)
        ballast.unlink()
        out, err = victim.process.communicate(timeout=150)
        assert victim.process.returncode == 0, err
        first = min(t for t, *_ in victim.epochs() if t > full + 5)
        print(f"\ndisk full for 5 s: the next epoch {first - full - 5:.1f} s after")
    else:
        out, err = victim.process.communicate(timeout=150)
        print(f"\ndisk full: the driver ended after {time.time() - full:.1f} s: {err}")
        # A worker may notice it first, and the driver yet find room for its small files.
        code, said = victim.process.returncode, out if victim.process.returncode == 1 else err
        assert code in (1, 2), (out, err)
        assert "the run folder could not be used for 4 s: [Errno 28] No space left on d" in said
        assert "pawtune resume" in said
        assert "Traceback" not in err
        ballast.unlink()
        resume(victim)
    assert_whole(victim.run.root, TRIALS, EPOCHS)


@pytest.mark.slow
def test_files_that_may_not_grow(address: str, tiny_images: Path, runs_dir: Path) -> None:  # noqa: F811
    """As a full disk, where no file system can be mounted: workers may write small files only."""
    limits = {"fsize_kb": 50, "weights_kb": 100, "patience_s": PATIENCE_S}
    victim = begin(runs_dir, tiny_images, address=address, **limits)
    out, err = victim.process.communicate(timeout=150)
    assert victim.process.returncode == 1, err  # no epoch was finished
    assert "File too large" in out + err
    (runs_dir / "faults.json").write_text("{}")
    resume(victim)
    assert_whole(victim.run.root, TRIALS, EPOCHS)


@pytest.mark.slow
def test_storage_that_is_away_for_20_s(
    address: str,  # noqa: F811
    tiny_images: Path,
    runs_dir: Path,
) -> None:
    victim = begin(runs_dir, tiny_images, address=address, epoch_s=0.3)
    victim.wait_for(lambda: len(victim.epochs()) >= 5)
    away = victim.run.root.with_name("away")
    os.rename(victim.run.root, away)
    time.sleep(20)
    assert not victim.run.root.exists(), sorted(victim.run.root.rglob("*"))
    os.rename(away, victim.run.root)
    back = time.time()
    out, err = victim.process.communicate(timeout=150)
    assert victim.process.returncode == 0, err
    first = min(t for t, *_ in victim.epochs() if t > back)
    print(f"\nstorage away for 20 s: the next epoch {first - back:.1f} s after it came back")
    assert_whole(victim.run.root, TRIALS, EPOCHS)


@pytest.mark.slow
def test_a_trial_that_needs_too_much_memory(
    address: str,  # noqa: F811
    tiny_images: Path,
    runs_dir: Path,
) -> None:
    """Where the system refuses memory: that trial fails with its reason, the others do not."""
    victim = begin(runs_dir, tiny_images, address=address, hog="0002", limit_mb=1000)
    out, err = victim.process.communicate(timeout=150)
    assert victim.process.returncode == 0, err
    reason = victim.run.trial("0002").read_status().reason
    print(f"\nout of memory: {reason}")
    assert "MemoryError" in reason
    assert_whole(victim.run.root, TRIALS, EPOCHS, failed=1)


@pytest.mark.slow
def test_two_searches_that_need_the_same_bank(
    address: str,  # noqa: F811
    tiny_images: Path,
    tmp_path: Path,
) -> None:
    """One builds it, the other waits; each has its own trials, at its own concurrency."""
    cache = str(tmp_path / "cache")
    options = ("--families=transfer", "--concurrency=1")
    both = [
        begin(tmp_path / name, tiny_images, *options, address=address, cache=cache, bank_s=0.5)
        for name in ("one", "two")
    ]
    for victim in both:
        out, err = victim.process.communicate(timeout=120)
        assert victim.process.returncode == 0, err
        assert_whole(victim.run.root, TRIALS, EPOCHS)
    built = [len(lines(victim.run.root.parent / "shards.log")) for victim in both]
    print(f"\nshards of the bank that each search made: {built}")
    # 56 training images in shards of 4; either search may be the first at one.
    assert sum(built) == 14, "a shard was made twice, or by nobody"
    kept = {path.name for path in (tmp_path / "cache" / "pawtune" / "banks").iterdir()}
    assert sum(not name.startswith(".") for name in kept) == 1
    assert not [name for name in kept if name.endswith(".partial")]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_a_bank_that_does_not_fit_on_the_disk(small_disk: Path) -> None:
    """Told at once: memory that is mapped to a full disk would kill the process later."""
    (small_disk / "banks").mkdir()
    job = Job("feature bank", small_disk / "banks" / "key", rows=100, shard_rows=60)
    with pytest.raises(OSError, match="No space left"):
        ArrayWriter(job, dict.fromkeys(("average", "maximum"), np.zeros((60, 17, 1280), "float16")))
    assert list((small_disk / "banks").iterdir()) == []
