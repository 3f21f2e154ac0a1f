"""The page of `pawtune doctor`: for each thing that a search needs whether it is there."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import silent
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
from pawtune.models.backbones.backbone_weights import cached_weights, weights_file_name
from pawtune.search.cluster.local_ray import MAX_BYTES, folder_trouble
from pawtune.search.cluster.worker_start import ERROR_LINE, PATIENCE_S, worker_error
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.errors import UserError

PYTHONS = ((3, 11), (3, 13))
PROBE_S = 120
LITTLE_DISK_GB, LITTLE_MEMORY_GB = 5, 3

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Check:
    """One line of the page. state: `note` is worth knowing, `wrong` keeps a search from running."""

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(
    data: str | None = None, address: str | None = None, labels: LabelFile | None = None
) -> Iterator[Check]:
    """Checks one thing after another, the quick ones first.

    Args:
        data: Folder of images, as `run --data` takes it; None: no data is checked.
        address: Address of a cluster, as `run --address` takes it; None: a local Ray.
        labels: Table of the images' labels.

    Raises:
        UserError: A table without images.
    """
    if labels is not None and data is None:
        raise UserError(
            f"--labels must come with the images that it labels, received {shown(labels.file)!r} "
            "alone; add --data FOLDER"
        )
    yield check_python()
    yield check_temporary_folder()
    yield check_disk()
    yield check_memory()
    yield check_weights()
    yield check_tensorflow()
    yield check_ray(address)
    if data is not None:
        yield check_data(data, labels)


def check_python() -> Check:
    """The version, which the libraries must know."""
    here, (low, high) = sys.version_info[:2], PYTHONS
    found = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    if low <= here <= high:
        return Check("Python", "ok", found)
    return Check("Python", "wrong", found, "use 3.11 to 3.13, in an environment of its own")


def check_temporary_folder() -> Check:
    """Where Ray puts its sockets."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    trouble = folder_trouble(Path(folder))
    if trouble is None:
        return Check("temporary folder", "ok", _room(folder))
    remedy = f"another is used; or name one of at most {MAX_BYTES} bytes: RAY_TMPDIR=/short/folder"
    return Check("temporary folder", "note", f"{folder} {trouble}", remedy)


def check_disk() -> Check:
    """Room for the cache and for runs."""
    try:
        places = [str(cache_dir()), os.getcwd()]
        least = min(shutil.disk_usage(place).free for place in places) / 1e9
    except (OSError, DataError) as error:
        return Check("disk", "wrong", str(error), "name a folder: XDG_CACHE_HOME=/some/folder")
    found = f"cache {_room(places[0])}; runs {_room(places[1])}"
    if least >= LITTLE_DISK_GB:
        return Check("disk", "ok", found)
    return Check("disk", "note", found, "make room: pawtune cache clear, or pawtune runs delete")


def check_memory() -> Check:
    """What is available now; a worker with TensorFlow takes 0.7 GB, and Ray a share for data."""
    try:
        text = Path("/proc/meminfo").read_text()
        free = int(text.partition("MemAvailable:")[2].split()[0]) / 1e6
        shared = shutil.disk_usage("/dev/shm").free / 1e9
    except (OSError, ValueError, IndexError):
        return Check("memory", "note", "this system does not say")
    found = f"{free:.1f} GB available, {shared:.1f} GB of it shared (/dev/shm)"
    if free < LITTLE_MEMORY_GB:
        return Check("memory", "note", found, "run fewer trials at once: --concurrency 1")
    if shared < 1:
        return Check("memory", "note", found, "in a container: docker run --shm-size=4g")
    return Check("memory", "ok", found)


def check_weights() -> Check:
    """The backbone's ImageNet weights, as a default search looks for them."""
    (size,) = SearchConfig(data="sample").image_size
    file = cached_weights("MobileNetV2", size)
    if file is not None:
        return Check("weights", "ok", str(file))
    name = weights_file_name("MobileNetV2", size)
    return Check("weights", "note", f"no {name} in Keras' cache; a search downloads it",
                 "without a network: --weights PATH, or --families conv")  # fmt: skip


def check_tensorflow() -> Check:
    """Whether it computes, on what, and which precision is the fastest."""
    try:
        found = _probe("tensorflow")
    except ProbeFailed as error:
        return Check("TensorFlow", "wrong", str(error), "pip install --force-reinstall tensorflow")
    steps = found["step_ms"]
    times = ", ".join(f"{name} {value} ms" for name, value in steps.items())
    gpus = f"{found['gpus']} GPUs" if found["gpus"] else "no GPU is seen"
    text = f"{found['version']}, {gpus}; a step of two convolutions: {times}"
    fastest = min(steps, key=lambda name: steps[name])
    if found["gpus"] and steps[found["auto"]] > 1.2 * steps[fastest]:
        remedy = f"auto takes {found['auto']}; faster: --set speed.precision={fastest}"
        return Check("TensorFlow", "note", text, remedy)
    return Check("TensorFlow", "ok", f"{text}; auto takes {found['auto']}")


def check_ray(address: str | None) -> Check:
    """Whether it starts, or is joined, and gives a worker that answers."""
    try:
        found = _probe("ray", *([address] if address else []))
    except ProbeFailed as error:
        remedy = "start it with `ray start --head`" if address else "mend what this line says"
        return Check("Ray", "wrong", str(error), remedy)
    text = f"{found['version']}, a worker answers after {found['seconds']} s; {found['capacity']}"
    return Check("Ray", "ok", text)


def check_data(data: str, labels: LabelFile | None = None) -> Check:
    """What is understood of the images: splits, notes, what is left out, as `preview` says."""
    from pawtune.data_pipeline.sources.resolve import named_as_given, resolve_source
    from pawtune.data_pipeline.splitting.build import build_manifest

    see = f"pawtune preview {shlex.quote(data)}"
    if labels is not None:
        see += f" --labels {shlex.quote(str(labels.file))}"
    try:
        cache = cache_dir()
        root = resolve_source(data, cache=cache, progress=silent)
        with named_as_given(data):
            manifest = build_manifest(root, labels=labels, cache=cache, progress=silent)
    except (DataError, UserError) as error:
        return Check("data", "wrong", str(error), f"see all of it: {see}")
    sums = {split: sum(labels.values()) for split, labels in manifest.counts().items()}
    counts = ", ".join(f"{number} {split}" for split, number in sums.items())
    found = f"{len(manifest.class_names)} classes; {counts}; {len(manifest.rejects)} left out"
    if manifest.rejects:
        found += f" ({shown(manifest.rejects[0].path)}: {manifest.rejects[0].reason})"
    found = "; ".join([found, *(shown(note) for note in manifest.notes)])
    if not manifest.warnings:
        return Check("data", "ok", found)
    more = len(manifest.warnings) - 1
    warning = shown(manifest.warnings[0]) + (f"; {more} more warnings" if more else "")
    return Check("data", "note", found, f"{warning}; see {see}")


class ProbeFailed(Exception):
    """A probe's process ended badly; the text says how."""


def _probe(*what: str) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", "-m", "pawtune.search.doctor.probe", *what]
    # Ray's own files go where those of another search are not: they are read for their errors.
    with tempfile.TemporaryDirectory(
        prefix="doctor", dir=_short_folder(), ignore_cleanup_errors=True
    ) as folder:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "RAY_TMPDIR": folder}
        probe = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + PROBE_S
        while True:
            try:
                out, err = probe.communicate(timeout=PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                error = worker_error(Path(folder) / "ray/session_latest")
                if error or time.monotonic() > deadline:
                    probe.kill()
                    probe.communicate()
                    reason = f"no worker starts: {error}" if error else "nothing answers"
                    raise ProbeFailed(reason) from None
        if probe.returncode == 0:
            found: dict[str, Any] = json.loads(out.splitlines()[-1])
            return found
        reason = _last_error(err) or "it says no reason"
        if probe.returncode < 0:
            reason = f"it was ended by {signal.Signals(-probe.returncode).name}: {reason}"
        raise ProbeFailed(reason)


def _last_error(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    return (errors or lines)[-1][:300] if lines else None


def _short_folder() -> str | None:
    return "/tmp" if os.access("/tmp", os.W_OK) else None


def _room(folder: str) -> str:
    return f"{folder} ({shutil.disk_usage(folder).free / 1e9:.0f} GB free)"
