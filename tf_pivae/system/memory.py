"""How much memory the machine has, and what the process does with what TensorFlow gives back."""

import ctypes
import os

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1
_GROWTH = 64 << 20


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for the next tensor instead of returning it to the system.

    A training step frees and allocates the same tensors again and again. By default glibc unmaps each large one, and
    the system clears every page of the next: 5 to 7 % of a step of Table 1's nets. The process keeps the most that
    it has ever needed at once. Without glibc, or where MALLOC_* variables are set already, nothing is changed.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in ((_MMAP_THRESHOLD, _NEVER), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH)):
        mallopt(parameter, value)
