"""What the processor computes in. Nothing here imports TensorFlow."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FLAGS = {"amx_bf16", "avx512_bf16"}  # as `lscpu` lists them


def has_bfloat16() -> bool:
    """Whether it multiplies bfloat16 numbers itself: others emulate it, and are slower so than in float32."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    return any(_FLAGS & set(line.partition(":")[2].split()) for line in lines if line.startswith("flags"))
