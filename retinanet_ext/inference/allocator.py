"""The C library's memory: what large tensors give back is kept for the next ones."""

from __future__ import annotations

import ctypes
import math
import os

__all__ = ["fits_into_memory", "keep_freed_memory", "total_memory"]

# Parameters of glibc's mallopt, see malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
MOST_KEPT = 2**29
"""Bytes that are free at the end of the heap before some are returned."""
LEAST_MEMORY = 8 * 2**30
"""Bytes of a machine on which more may be kept than is needed."""
LEAST_BYTES = 15
"""Of a pixel that a network sees: three of 8 bits, and the same in float32."""
SETTINGS = ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
"""Variables of the environment by which a user decides."""


def total_memory() -> float:
    """Bytes of memory that the machine has; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return math.inf


def fits_into_memory(height: int, width: int) -> bool:
    """Whether the machine can hold a picture of this size as a network sees it, if nothing else."""
    return height * width * LEAST_BYTES <= total_memory()


def keep_freed_memory() -> bool:
    """Have the process keep the memory that its tensors gave back, for the tensors of next layers.

    By default glibc gets each block of more than 32 MiB from the system and returns it when it is
    freed; the system clears every page of it again. On a CPU, a sixth of an inference's time is
    that. In exchange, the process holds up to two fifths more memory.

    It is a setting of the whole process, for programs to make. Nothing changes with other C
    libraries, on machines of less than 8 GiB, and where the environment has one of
    :data:`SETTINGS`.

    Returns:
        Whether it is set.
    """
    if any(name in os.environ for name in SETTINGS) or total_memory() < LEAST_MEMORY:
        return False
    try:
        os.confstr("CS_GNU_LIBC_VERSION")  # raises where the C library is another one
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, ValueError, AttributeError):
        return False
    # One arena, since those of threads cannot hold large blocks.
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: MOST_KEPT, M_ARENA_MAX: 1}
    done = [mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(done)
