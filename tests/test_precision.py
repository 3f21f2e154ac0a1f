"""Precision that hardware has, and threads."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from pawtune.models import precision
from pawtune.models.cpu_info import cpu_has_bfloat16
from pawtune.models.model_spec import Precision
from pawtune.models.precision import resolve_precision
from pawtune.search.process import load_tensorflow


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_tile amx_bf16", True),
        ("fpu avx2 avx512f avx512_fp16", False),
    ],
)
def test_a_cpu_is_known_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: avx512_bf16\nflags\t\t: {flags}\n")
    assert cpu_has_bfloat16(info) is expected


def test_a_system_that_does_not_say_has_none(tmp_path: Path) -> None:
    assert not cpu_has_bfloat16(tmp_path / "missing")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert not cpu_has_bfloat16(tmp_path / "arm")


@pytest.mark.parametrize("asked", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_what_is_asked_is_taken(asked: Precision) -> None:
    assert resolve_precision(asked, has_gpu=True) == asked
    assert resolve_precision(asked, has_gpu=False) == asked


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has_bfloat16)
    expected = "mixed_bfloat16" if has_bfloat16 else "float32"
    assert resolve_precision("auto", has_gpu=False) == expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16")]
    + [((6, 1), "float32"), ((0, 0), "float32")],
)
def test_auto_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(precision, "_compute_capability", lambda: capability)
    assert resolve_precision("auto", has_gpu=True) == expected


def test_a_policy_ends_with_its_block() -> None:
    with precision.precision("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_a_policy_ends_with_an_error() -> None:
    block = precision.precision("mixed_bfloat16")
    with pytest.raises(KeyError), block:
        raise KeyError
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_threads_are_limited_once_a_process() -> None:
    code = """
import tensorflow as tf
from pawtune.models.precision import limit_threads
limit_threads(1)
tf.constant(1) + 1
limit_threads(1)
print(tf.config.threading.get_intra_op_parallelism_threads())
try:
    limit_threads(2)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "1"
    assert "cannot be modified after initialization" in second


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A command of that name that says this, and what it was asked."""
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\necho \"$@\" > {folder}/asked\nprintf '{text}'\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


def test_a_part_of_a_gpu_is_that_part_of_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "24576\\n16384\\n")
    assert precision.memory_limits(2, 0.5) == [11776, 7680]
    assert (tmp_path / "asked").read_text().strip().endswith("--id=3,5")
    assert precision.memory_limits(3, 0.5) == [11776, 7680, None]
    assert precision.memory_limits(0, 0.5) == []


@pytest.mark.parametrize("share", [None, 1.0])
def test_whole_gpus_are_taken_as_they_are_needed(
    share: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "24576\\n16384\\n")
    assert precision.memory_limits(2, share) == [None, None]


@pytest.mark.parametrize("text", ["", "[N/A]\\n[N/A]\\n"])
def test_a_gpu_that_does_not_say_how_large_it_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, text)
    assert precision.memory_limits(2, 0.5) == [None, None]


def test_a_gpu_that_was_hidden_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial without a GPU on a node that has one: TensorFlow still lists the machine's."""
    card = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [card])
    precision.share_gpus(0)
    assert not precision.has_gpu()
    assert precision._compute_capability() == (0, 0)


def test_a_model_that_is_loaded_beside_a_search_takes_memory_as_it_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Python as on the command line, where an environment variable says so."""
    cards = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(2)]
    grows = []

    def set_growth(card: Any, grow: bool) -> None:
        grows.append((card, grow))
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: cards)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_growth)
    load_tensorflow()
    assert grows == [(card, True) for card in cards]


@pytest.mark.parametrize(
    "share",
    ["0.5", *(pytest.param(share, marks=pytest.mark.slow) for share in ("0.0", "1.0", "None"))],
)
def test_a_process_without_gpus_takes_any_share(share: str) -> None:
    code = (
        "from pawtune.models import precision as p\n"
        f"p.share_gpus({share}); p.share_gpus({share}); print(p.has_gpu())"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("total", "share", "limit"), [(24576, 0.5, 11776), (24576, 0.25, 5632), (1000, 0.1, 256)]
)
def test_limit_of_a_share(total: int, share: float, limit: int) -> None:
    assert precision.memory_limit(total, share) == limit


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, True), ("default", True), ("AVX512_CORE_BF16", True), ("AVX512_CORE_AMX", True),
     ("AVX2", False), ("avx512_core", False), ("AVX512_CORE_VNNI", False), ("SSE41", False)],
)  # fmt: skip
def test_a_limit_on_instructions_is_kept(
    limit: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN below that level cannot even make a bfloat16 convolution."""
    file = tmp_path / "cpuinfo"
    file.write_text("flags : fpu avx512_bf16\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert cpu_has_bfloat16(file) is expected
