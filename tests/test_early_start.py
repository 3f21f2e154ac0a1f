"""Ray starts beside the look through the images, in a real process."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, threading, time
import ray
from pawtune.search.cluster.early_start import load_beside_ray
from pawtune.search.errors import UserError

def none(stage, done, total): pass
def load(total, then):
    def loaded(progress):
        progress("hash", 0, total)
        return then(progress)
    return loaded

here = threading.current_thread
assert load_beside_ray(load(10, lambda _: here()), none, None, print) is not here()
assert not ray.is_initialized(), "a few images start no Ray"

def refused(progress): raise UserError("two classes")
try:
    load_beside_ray(refused, none, None, print)
except UserError:
    print("refused")
assert not ray.is_initialized()

def until_ray(progress):
    deadline = time.monotonic() + 60
    while not ray.is_initialized():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return "loaded"
assert load_beside_ray(load(500, until_ray), none, None, print) == "loaded"
assert load_beside_ray(load(500, lambda _: here()), none, None, print) is here(), "Ray runs already"
ray.shutdown()

ended = []
def endless(progress):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            progress("hash", 0, 10)
            time.sleep(0.01)
    finally:
        ended.append(True)
try:
    load_beside_ray(endless, none, None, print)
except KeyboardInterrupt:
    print("interrupted", ended)
"""


LEAN = """
import os
from pathlib import Path
from pawtune.search.cluster.connection import connect, leaving_ray
from pawtune.search.cluster.ray_internals import session_folder

with leaving_ray():
    connect("local", print)
    session = str(session_folder())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split(chr(0))
        except OSError:
            continue
        if any(session in part for part in command):
            print(*(os.path.basename(part) for part in command[:3]))
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc to read processes in")
def test_a_ray_for_one_search_has_no_process_that_the_search_does_not_need(tmp_path: Path) -> None:
    """Its monitor, dashboard and log monitor cost 2 s at its start and 1 s at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LEAN], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "raylet" in done.stdout
    assert "gcs_server" in done.stdout
    for name in ("monitor.py", "dashboard.py", "log_monitor.py"):
        assert name not in done.stdout, done.stdout


def test_ray_starts_beside_the_load_of_many_images(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["refused", "interrupted [True]"]
