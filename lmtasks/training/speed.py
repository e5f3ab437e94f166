"""What makes the steps of a training faster, and does not change what it learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from transformers import PreTrainedModel, TrainingArguments

from lmtasks.models.activations import cheap_gelu
from lmtasks.models.lm_head import separated
from lmtasks.training.cpu_memory import kept_memory
from lmtasks.training.dropout import cheap_dropout
from lmtasks.training.lora import cheap_lora


@contextlib.contextmanager
def eased(device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """Memory is kept and steps are :func:`cheap` while this is open, on a CPU; elsewhere nothing is changed.

    Args:
        compiled: whether torch compiles the model, draws included, in a way of its own.
    """
    with kept_memory(device), contextlib.nullcontext() if compiled else cheap(device):
        yield


@contextlib.contextmanager
def cheap(device: torch.device) -> Iterator[None]:
    """Dropout draws cheaply, and a layer with LoRA or GELU is one operation, while this is open, on a CPU."""
    with cheap_dropout(device), cheap_lora(device), cheap_gelu(device):
        yield


def compile_body(model: PreTrainedModel, arguments: TrainingArguments, accelerator: Accelerator) -> None:
    """Compile the body alone where that is asked for and the head runs apart; accelerate would take both as one."""
    if arguments.torch_compile and separated(model):
        how = {"backend": arguments.torch_compile_backend, "mode": arguments.torch_compile_mode}
        model.lmtasks_head.compile_body(partial(torch.compile, **how))
        accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
