"""Ray starts beside the look through the images, in a real process."""

import subprocess
import sys
from pathlib import Path

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


def test_ray_starts_beside_the_load_of_many_images(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["refused", "interrupted [True]"]
