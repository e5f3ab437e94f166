"""GELU by its approximation with a hyperbolic tangent, as one operation on a CPU.

transformers writes it out for some models (GPT-2, ALBERT): eight passes over the widest numbers of a layer, each of
which keeps what it has made for the way back. torch has it as one, rounded once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.activations import AccurateGELUActivation, FastGELUActivation, NewGELUActivation

from lmtasks.models.replaced import replaced

WRITTEN_OUT = (AccurateGELUActivation, FastGELUActivation, NewGELUActivation)


@contextlib.contextmanager
def cheap_gelu(device: torch.device) -> Iterator[None]:
    """GELU of any model is one operation while this is open, where the device is a CPU."""
    kinds = WRITTEN_OUT if device.type == "cpu" else ()
    with replaced(*((kind, "forward", _gelu) for kind in kinds)):
        yield


def _gelu(_: Any, input: Tensor) -> Tensor:
    return functional.gelu(input, approximate="tanh")
