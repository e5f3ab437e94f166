"""Memory that is kept from one step to the next.

glibc takes blocks above 32 MiB from the kernel each time they are asked for, and gives them back when they are freed.
On a CPU that is most tensors of the size of an embedding, several in a step; the kernel clears their pages anew,
page fault by page fault, which took a sixth of a step (docs/benchmarks.md). GPUs have an allocator of their own
that keeps what is freed. Here glibc is told to do the same, for as long as the training lasts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import torch

# Of glibc's malloc.h, for mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4

KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
"""No block straight from the kernel, and nothing back to it."""

USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20}
"""Where glibc's own thresholds, which follow the sizes that it is asked for, soon arrive in a training."""


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Freed memory is kept for the next block of its size; at the end it goes back to the kernel.

    For the whole process, and only where the device is a CPU and the C library is glibc with nothing about its
    allocator in the environment: whoever has chosen something there wants it so.
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc" or chosen:
        yield
        return
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)  # what preparation has left lies where a training seldom has use for it
    _set(libc, KEEPING)
    try:
        yield
    finally:
        _set(libc, USUAL)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    # mallopt answers whether it knows the parameter; without it training is slower, and as right.
    for parameter, value in values.items():
        libc.mallopt(parameter, value)
