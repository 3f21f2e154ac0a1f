"""What this machine's processor can do, asked without loading TensorFlow."""

import os
import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
# TensorFlow's oneDNN uses no instructions beyond a level that is named in this variable; below
# these it has no bfloat16 convolutions at all.
_ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
_BFLOAT16_LEVELS = ("DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX")


def cpu_has_bfloat16(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware, and TensorFlow may have it do so.

    False where the system does not say.
    """
    limit = os.environ.get(_ISA_LIMIT, "DEFAULT").upper()
    if not limit.startswith((*_BFLOAT16_LEVELS, "AVX10")):
        return False
    return not _BFLOAT16_FLAGS.isdisjoint(_first("flags", cpu_info).split())


def cpu_model() -> str:
    """The processor's name, such as "AMD EPYC 9B14"; "unknown" where the system does not say."""
    return _first("model name", _CPU_INFO) or platform.processor() or "unknown"


def _first(key: str, cpu_info: Path) -> str:
    """What the system says under a key of the first processor; "" where it does not say."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
