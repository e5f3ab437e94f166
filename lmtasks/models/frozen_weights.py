"""The weights that do not learn in a run, in short: who goes on with it must have the same."""

from __future__ import annotations

import hashlib

import torch

from lmtasks.models.companions import apart, companions

MODEL = "model"
"""What the part is called that stands beside no other."""


def frozen_digests(model: torch.nn.Module) -> dict[str, str]:
    """A digest of what does not learn, of the model itself and of each companion, by name; none where all learns."""
    parts = companions(model)
    with apart(model):
        found = {MODEL: _digest(model), **{name: _digest(one) for name, one in parts.items()}}
    return {name: digest for name, digest in found.items() if digest}


def _digest(part: torch.nn.Module) -> str:
    """32 hexadecimal digits of the weights without gradients; empty where there is none."""
    frozen = {name: one for name, one in part.named_parameters() if not one.requires_grad}
    seen = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(frozen.items()):
        seen.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        seen.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return seen.hexdigest() if frozen else ""
