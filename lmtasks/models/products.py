"""Linear layers in float32 on AMD's processors, by the faster of two libraries that torch comes with.

torch multiplies numbers in float32 by MKL, which on these takes up to twice as long as oneDNN to multiply a few rows by
a large weight, as for each new token, and a tenth longer for whole blocks (docs/benchmarks.md). oneDNN, which torch has
for bfloat16, keeps memory for each number of rows that it has seen, little for few rows and the size of the weight for
many: so it gets few of these numbers. Which library it is depends on sizes alone, and so does the last digit.

Processors of other makers have not been measured, and are left with what torch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from lmtasks.models.activations import cheap_gelu
from lmtasks.models.replaced import Replacement, replaced

FEW = 16
"""Rows of a product, up to which each number of them is taken: sequences that get a token at once."""

MANY = (256, 512, 1024, 2048, 4096)
"""Rows beyond that are multiplied so in an evaluation, whose batches mostly have one of these numbers."""

LARGE = 1 << 17
"""Numbers of a weight, or of what it is multiplied by, from which it pays: less takes no longer than a call."""

CPU_INFO = Path("/proc/cpuinfo")

plain_linear, plain_conv1d = functional.linear, Conv1D.forward


@contextmanager
def cheap_forward(device: torch.device, *, blocks: bool = False) -> Iterator[None]:
    """Forward passes without gradients are cheaper while this is open, on a CPU; elsewhere nothing is changed.

    Args:
        blocks: whether one number of rows comes again and again, as in an evaluation.
    """
    quick = device.type == "cpu" and on_amd() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    with cheap_gelu(device), replaced(*_layers(blocks)) if quick else nullcontext():
        yield


@cache
def on_amd() -> bool:
    """Whether AMD has made the processor, as far as the system says."""
    return CPU_INFO.is_file() and "AuthenticAMD" in CPU_INFO.read_text(encoding="utf-8", errors="replace")


def _layers(blocks: bool) -> tuple[Replacement, ...]:
    """Linear layers as torch has them, and as GPT-2 has them, whose weight lies the other way round."""

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        made = _by_onednn(input, weight, bias, blocks)
        return plain_linear(input, weight, bias) if made is None else made

    def conv1d(layer: Conv1D, x: Tensor) -> Tensor:
        made = _by_onednn(x, layer.weight.t(), layer.bias, blocks)
        return plain_conv1d(layer, x) if made is None else made

    return (functional, "linear", linear), (Conv1D, "forward", conv1d)


def _by_onednn(input: Tensor, weight: Tensor, bias: Tensor | None, blocks: bool) -> Tensor | None:
    """The product, where oneDNN can make it and is the quicker one."""
    if not _pays(input, weight, bias, blocks):
        return None
    made: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return made


def _pays(input: Tensor, weight: Tensor, bias: Tensor | None, blocks: bool) -> bool:
    """Whether it is a product that oneDNN can make, and is quicker with."""
    numbers = [input, weight] if bias is None else [input, weight, bias]
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if max(weight.numel(), input.numel()) < LARGE or not all(map(_is_plain, numbers)):
        return False
    # What does not fit torch widens or refuses; oneDNN would read what lies behind it.
    if input.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        return False
    rows = input.numel() // input.shape[-1]
    return 0 < rows <= FEW or (blocks and rows in MANY)


def _is_plain(numbers: Tensor) -> bool:
    """Whether these are numbers in float32 that lie in this machine's memory, and nobody's own kind of tensor."""
    own = type(numbers) not in (Tensor, nn.Parameter)
    return not own and numbers.dtype == torch.float32 and numbers.is_cpu and numbers.layout == torch.strided
