"""In which precision a run computes when nobody says.

Weights, optimiser and published figures are float32 always; this is about the matrix products of
training. bfloat16 has the range of float32, so nothing overflows, and hardware that has it natively
multiplies several times faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

NARROW = 256
"""Hidden size below which converting costs more than the products gain (measured on AMX)."""

NARROW_WITHOUT_AMX = 128
"""The same of processors whose bfloat16 is of AVX512 alone (measured at this size and twice as wide)."""


def with_precision(training: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """The training arguments, by name, with ``bf16`` decided where it is None, and what else it takes.

    The width of the model decides, and the hardware, which always give the same answer: a run can be repeated.
    """
    asked = training.get("bf16")
    on_cpu = bool(training.get("use_cpu")) or not torch.accelerator.is_available()
    native = native_on_cpu() if on_cpu else native_on_accelerator()
    wide = getattr(model.config, "hidden_size", 0) >= narrow(on_cpu)
    chosen = native and wide and not training.get("fp16") if asked is None else bool(asked)
    # The Trainer takes bfloat16 on a CPU for a mistake unless it is told that the CPU is meant.
    return {**training, "bf16": chosen, **({"use_cpu": True} if chosen and on_cpu else {})}


def narrow(on_cpu: bool) -> int:
    """Hidden size from which on bfloat16 is the faster one on this hardware."""
    return NARROW_WITHOUT_AMX if on_cpu and not _has("amx_bf16") else NARROW


def native_on_cpu() -> bool:
    """Whether the processor has instructions for bfloat16 products (AMX or AVX512-BF16)."""
    return _has("amx_bf16") or _has("avx512_bf16")


def _has(instructions: str) -> bool:
    # torch before 2.10 or so has no public way to ask; without one, float32 is right everywhere.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(instructions, False))


def native_on_accelerator() -> bool:
    """Whether the GPU has tensor cores for bfloat16 (NVIDIA Ampere and later, AMD CDNA)."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
