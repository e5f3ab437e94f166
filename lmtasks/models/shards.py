"""A model of which each process holds a part (FSDP2): every forward pass, and every look at its weights, is of all."""

from __future__ import annotations

from typing import Any

import torch


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether the weights are spread over processes."""
    # Whoever has not imported it has none.
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole_weights(model: torch.nn.Module) -> dict[str, Any] | None:
    """The weights of a model whose parts all processes bring together; None where it is whole anyway.

    All of them have to ask. Only the main process gets tensors, in its CPU's memory.
    """
    if not is_sharded(model):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))
