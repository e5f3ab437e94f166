"""The memory that a model takes, known before any of it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from lmtasks.config.request import Request
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.adapters import base_of
from lmtasks.models.config import _fresh
from lmtasks.models.numbers import size_of

GIB = 2**30

_ROOT = Path("/")
"""Where ``proc`` and ``sys`` lie."""


def require_memory(model_class: Any, config: PretrainedConfig, copies: int, settings: ModelSettings) -> None:
    """Refuse a model that does not fit into the memory of this machine, before any of it is taken.

    Args:
        copies: how often a number for each parameter is held: the weights, in training on a CPU their gradients,
            with Adam two moments more.
        settings: say how large a number is.

    Raises:
        InputError: says how much the model takes, and how much there is.
    """
    parameters, free, size = count_parameters(model_class, config), free_memory(), size_of(settings, config)
    if parameters is None or free is None or size * copies * parameters <= free:
        return
    held = ("weights", "gradients", "two moments of Adam")[: min(copies, 3)]
    raise InputError(
        f"a {config.model_type} model of {parameters:,} parameters does not fit into memory: {', '.join(held)}"
        f" take {size * copies * parameters / GIB:,.1f} GiB, {free / GIB:,.1f} GiB are free",
        "take a smaller model, or a machine with more memory",
    )


def copies_of(request: Request, training: bool) -> int:
    """How many numbers, for each parameter of the model, the memory of this machine must hold at the same time."""
    settings = request.training
    elsewhere = torch.accelerator.is_available() and not settings.get("use_cpu")
    if not training or elsewhere or any(settings.get(name) for name in ("fsdp", "deepspeed")):
        return 1
    name = request.model.model_name_or_path
    if request.adapter.asked or (name and base_of(name, request.model.revision)):
        return 1
    adam = str(settings.get("optim") or "adamw_torch").startswith("adamw_torch")
    return 4 if adam and "bit" not in str(settings.get("optim")) else 2


def count_parameters(model_class: Any, config: PretrainedConfig) -> int | None:
    """The parameters of the model that a configuration describes; None where only making it would tell."""
    with suppress(InputError), torch.device("meta"):
        return sum(int(parameter.numel()) for parameter in _fresh(model_class, config).parameters())
    return None


def free_memory() -> int | None:
    """Bytes that this process can still take; None where the system does not say.

    The least of what the machine has available, swap included, and of what its control groups and the limit on
    its address space leave.
    """
    return min((free for free in (_of_machine(), *_of_groups(), _of_address_space()) if free is not None), default=None)


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, KeyError, IndexError):
        lines = (line.split() for line in (_ROOT / "proc/meminfo").read_text().splitlines())
        kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
        return 1024 * (kibibytes["MemAvailable"] + kibibytes["SwapFree"])
    return None


def _of_groups() -> Iterator[int]:
    """What each control group that this process is in leaves, with what it could give back at once."""
    with suppress(OSError):
        for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _left(_ROOT / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _left(_ROOT / "sys/fs/cgroup/memory", path, *names)


def _left(root: Path, path: str, most: str, taken: str, reclaimable: str) -> Iterator[int]:
    # Within a container the path may be that of the host, and only the root is there.
    inner = root / path.strip("/")
    for group in (place for place in (inner, *inner.parents) if place == root or root in place.parents):
        with suppress(OSError, ValueError, StopIteration):  # "max" is no limit
            limit, used = int((group / most).read_text()), int((group / taken).read_text())
            counted = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            back = next(int(number) for name, number in counted if name == reclaimable)
            yield max(0, limit - used + back)


def _of_address_space() -> int | None:
    with suppress(ImportError, OSError, ValueError):
        import resource  # which not every system has

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int((_ROOT / "proc/self/statm").read_text().split()[0])
            return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))
    return None
