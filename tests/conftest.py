"""What all tests share: isolation from the machine, a Ray cluster, small generated images."""

import atexit
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
TINY_PER_CLASS = 40

# The same examples every time, and no time limit on an example: machines differ.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("repeatable")

_private = Path(tempfile.mkdtemp(prefix="pawtune-tests-"))
_exit_status: list[int] = []


@atexit.register
def _leave() -> None:
    """End the process here, after everything that was registered since has been cleaned up.

    Threads of Ray's own code may ask for the interpreter while Python takes it down: one whole run
    in some ten ended with a segmentation fault in PyThreadState_New, after all tests had passed or
    failed as they do.
    """
    if _exit_status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_status[0])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run ended."""
    _exit_status.append(int(exitstatus))


def pytest_configure() -> None:
    """Set the environment before TensorFlow, Keras or Ray are imported and read it."""
    token = _private / "ray_token"  # without it ray.init() writes one to the home folder
    token.write_text(secrets.token_hex(32))
    os.environ.update(
        XDG_CACHE_HOME=str(_private / "cache"),
        KERAS_HOME=str(_private / "keras"),  # no keras.json and no cached weights of this machine
        MPLCONFIGDIR=str(_private / "matplotlib"),
        MPLBACKEND="Agg",
        TF_CPP_MIN_LOG_LEVEL="3",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_TOKEN_PATH=str(token),
        # Workers have them from their node alone, as on a cluster; see tests/s3_server.py.
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="secret-of-the-test",
        AWS_EC2_METADATA_DISABLED="true",
        # Workers and subprocesses unpickle functions of test modules by name.
        PYTHONPATH=os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    )
    # A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A worker that finds no compiled TensorFlow takes 5 s to start instead of 2 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_private, ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes to the current folder, ./runs by default, is its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Folder for this test's runs; not made yet."""
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real photographs' archive and the backbone's weights."""
    folder = os.environ.get("PAWTUNE_TEST_DATA")
    if not folder:
        pytest.skip("PAWTUNE_TEST_DATA is not set: no folder with real photographs and weights")
    if not Path(folder).is_dir():
        pytest.skip(f"PAWTUNE_TEST_DATA is {folder}, which is no folder")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, Any]]:
    """A local Ray cluster of 2 CPUs on the loopback interface; yields its resources."""
    import ray

    ray.init(
        address="local",  # left out, Ray would join whatever cluster runs on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
        # Loopback; Ray would turn 127.0.0.1 into the address that other machines reach.
        _node_ip_address="127.0.0.2",
    )
    yield ray.cluster_resources()
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, red and blue, of 40 images each, 48 x 40 px: for reading only.

    No two are near duplicates, and the mean colour tells the classes apart.
    """
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for label, colour in {"blue": (60, 90, 190), "red": (190, 90, 60)}.items():
        folder = root / label
        folder.mkdir()
        for number in range(TINY_PER_CLASS):
            # Coarse blobs: different in the low frequencies, which perceptual hashes look at.
            blobs = rng.normal(0, 40, size=(8, 8, 1)) + rng.normal(colour, 10, size=(1, 1, 3))
            small = Image.fromarray(blobs.clip(0, 255).astype(np.uint8))
            suffix = "png" if number % 4 == 0 else "jpg"
            small.resize((48, 40), Image.Resampling.BILINEAR).save(
                folder / f"{number:02d}.{suffix}"
            )
    return root
