"""What glibc does with freed memory, seen in the page faults of a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from lmtasks.training.cpu_memory import kept_memory

COUNT = """
import contextlib, resource, sys
import torch
from lmtasks.training.cpu_memory import kept_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def blocks():
    before = faults()
    for mebibytes in SIZES:
        torch.ones(mebibytes << 18)
    return faults() - before

with kept_memory(torch.device("cpu")) if sys.argv[1] == "kept" else contextlib.nullcontext():
    torch.ones(256 << 18)
    inside = blocks()
after = blocks()
print(inside, after)
"""

SIZES = (160, 144, 128, 112, 96, 80)
"""In MiB. More than glibc keeps by itself, and each fits where the one before it was."""


def counted(how: str) -> tuple[int, int]:
    """Page faults of the same blocks inside ``kept_memory``, or in nothing, and after it."""
    program = [sys.executable, "-c", f"SIZES = {SIZES}\n{COUNT}", how]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    inside, after = done.stdout.split()
    return int(inside), int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, whose allocator is left alone")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_afterwards() -> None:
    plain, _ = counted("plain")
    assert plain >= sum(SIZES) / 2, "a page is 2 MiB at most"
    kept, after = counted("kept")
    assert kept < plain / 10
    assert after > plain * 0.95


@pytest.mark.parametrize("why", ["a GPU", "another C library", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_where_it_gains_nothing_or_somebody_has_chosen_nothing_is_touched(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", "") if why == "another C library" else ("glibc", "2.36"))
    if "_" in why:
        monkeypatch.setenv(why, "glibc.malloc.arena_max=2" if why == "GLIBC_TUNABLES" else "2")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("touched"))
    with kept_memory(torch.device("cuda" if why == "a GPU" else "cpu")):
        pass


def test_what_fails_inside_comes_out() -> None:
    with pytest.raises(MemoryError, match="no more"), kept_memory(torch.device("cpu")):
        raise MemoryError("no more")
