"""Precision that hardware has, and threads."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from models import precision
from models.hardware import cpu_has_bfloat16
from models.precision import resolve_precision
from models.spec import Precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_tile amx_bf16", True),
        ("fpu avx2 avx512f avx512_fp16", False),
    ],
)
def test_a_cpu_is_known_by_its_flags(tmp_path: Path, flags: str, expected: bool) -> None:
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
from models.precision import limit_threads
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
