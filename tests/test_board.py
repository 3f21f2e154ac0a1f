"""search.shared_work.board: shared work is made once, by those who wait for it, and kept."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from filelock import FileLock

from pawtune.models.errors import ModelError
from pawtune.search.shared_work import board as boards
from pawtune.search.shared_work.board import (
    ArrayWriter,
    Board,
    Job,
    Made,
    Shard,
    load_arrays,
    obtain,
    start_board,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")


def squares(tmp_path: Path, rows: int = 10, shard_rows: int = 4) -> Job:
    return Job("squares", tmp_path / "cache" / "key", rows, shard_rows)


def make(start: int, stop: int) -> dict[str, np.ndarray]:
    numbers = np.arange(start, stop)
    return {"square": numbers**2, "pair": np.stack([numbers, -numbers], axis=1).astype("float16")}


@ray.remote(num_cpus=0)
class Worker:
    """Helps with a job and says which shards it made."""

    def work(self, board: object, job: Job, meeting: Path, workers: int) -> tuple[list[int], int]:
        """With its first shard in hand it waits until all of the workers have one."""
        starts = []

        def make_noted(start: int, stop: int) -> dict[str, np.ndarray]:
            starts.append(start)
            (meeting / str(os.getpid())).touch()
            deadline = time.monotonic() + 300
            while len(list(meeting.iterdir())) < workers:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            return make(start, stop)

        return starts, int(obtain(board, job, make_noted)["square"].sum())

    def die_at_work(self, board: object, job: Job) -> None:
        obtain(board, job, lambda start, stop: os._exit(1))


def test_workers_make_a_job_together_and_once(tmp_path: Path) -> None:
    board, job = start_board(), squares(tmp_path, rows=40)
    workers = [Worker.remote() for _ in range(2)]
    (meeting := tmp_path / "meeting").mkdir()
    answers = ray.get([worker.work.remote(board, job, meeting, 2) for worker in workers])
    starts = [start for made, _ in answers for start in made]
    assert sorted(starts) == list(range(0, 40, 4))
    assert all(made for made, _ in answers)
    assert {total for _, total in answers} == {sum(n * n for n in range(40))}
    assert [(p.name, p.done, p.total) for p in ray.get(board.progress.remote())] == [
        ("squares", 40, 40)
    ]


def test_a_later_search_finds_it_in_the_cache(tmp_path: Path) -> None:
    job = squares(tmp_path)
    first = obtain(start_board(), job, make)
    os.utime(job.folder, (0, 0))

    def never(start: int, stop: int) -> dict[str, np.ndarray]:
        raise AssertionError("made twice")

    second = obtain(start_board(), job, never)
    np.testing.assert_array_equal(first["pair"], second["pair"])
    assert second["pair"].dtype == np.float16
    assert job.folder.stat().st_mtime > 0  # its use is on record
    assert [path.name for path in job.folder.parent.iterdir() if "partial" in path.name] == []


def test_a_job_of_one_shard_may_have_arrays_of_any_shape(tmp_path: Path) -> None:
    job = squares(tmp_path, rows=1, shard_rows=1)
    made = obtain(
        start_board(), job, lambda start, stop: {"a": np.eye(3), "b": np.zeros((2, 5), np.int8)}
    )
    assert (made["a"].shape, made["b"].shape) == ((3, 3), (2, 5))


def test_what_a_dead_worker_held_is_made_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, job = Board(), squares(tmp_path)
    lost = board.claim(job)
    assert lost == Shard(0, 4)
    for start in (4, 8):
        assert isinstance(board.claim(job), Shard)
        board.submit(job, start, make(start, min(start + 4, 10)))
    assert board.claim(job) is None
    for limit in ("PATIENCE", "PATIENCE_S"):
        monkeypatch.setattr(boards, limit, 0.0)
    assert board.claim(job) == lost
    board.submit(job, 0, make(0, 4))
    board.submit(job, 0, make(0, 4))  # the first worker was not dead, only slow
    assert isinstance(board.claim(job), Made)


def test_a_worker_that_fails_gives_its_shard_back(tmp_path: Path) -> None:
    board, job = start_board(), squares(tmp_path)

    def fail(start: int, stop: int) -> dict[str, np.ndarray]:
        raise ModelError("no such backbone")

    with pytest.raises(ModelError, match="no such backbone"):
        obtain(board, job, fail)
    assert obtain(board, job, make)["square"][9] == 81


def test_another_search_that_makes_the_same_is_waited_for(tmp_path: Path) -> None:
    board, job = start_board(), squares(tmp_path)
    job.folder.parent.mkdir(parents=True)
    with FileLock(job.folder.parent / ".key.lock"):
        assert ray.get(board.claim.remote(job)) is None
        (progress,) = ray.get(board.progress.remote())
        assert progress.waits == "waits for another search, which is making the same"
    assert obtain(board, job, make)["square"][9] == 81


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    job = squares(tmp_path)
    obtain(start_board(), job, make)
    (job.folder / "square.npy").write_bytes(b"half")
    with pytest.raises(ModelError, match="must hold whole arrays, received .*delete the folder"):
        obtain(start_board(), job, make)


def test_of_two_writers_of_one_key_the_first_stays(tmp_path: Path) -> None:
    job = squares(tmp_path, rows=4)
    job.folder.parent.mkdir()
    writers = [ArrayWriter(job, make(0, 4)) for _ in range(2)]
    inodes = []
    for writer in writers:
        writer.write(0, make(0, 4))
        writer.finish()
        inodes.append((job.folder / "square.npy").stat().st_ino)
    assert inodes[0] == inodes[1]
    assert [path.name for path in job.folder.parent.iterdir()] == ["key"]
    assert np.array_equal(load_arrays(job.folder)["square"], make(0, 4)["square"])


def test_no_pickle_is_read_from_the_cache(tmp_path: Path) -> None:
    job = squares(tmp_path, rows=4)
    job.folder.parent.mkdir()
    writer = ArrayWriter(job, make(0, 4))
    writer.finish()
    np.save(job.folder / "square.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ModelError, match="must hold whole arrays, received"):
        load_arrays(job.folder)
