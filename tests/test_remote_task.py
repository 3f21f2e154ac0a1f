"""Shared tasks on GPUs, logical ones: the process is gone, and all that TensorFlow took there."""

import subprocess
import sys

import pytest

CODE = """
import os, time
import ray
from pawtune.search.cluster.remote_task import remote_task

def whoami():
    return os.getpid(), ray.get_gpu_ids()

def ended(pid):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False

ray.init(
    address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False,
    logging_level="ERROR", object_store_memory=100 * 2**20, _node_ip_address="127.0.0.3",
)
for share in (1, 0.5):
    on_gpu = remote_task(whoami, num_cpus=1, num_gpus=share, max_retries=3)
    (pid, cards), (other, _) = [ray.get(on_gpu.remote()) for _ in range(2)]
    print(len(cards), ended(pid), ended(other), pid != other)
on_cpu = remote_task(whoami, num_cpus=1, num_gpus=0)
print(len({ray.get(on_cpu.remote())[0] for _ in range(3)}))
"""


@pytest.mark.slow
def test_a_task_with_a_gpu_ends_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["1 True True True"] * 2 + ["1"], done.stderr
