"""The memory at the height of a training step, foreseen from a step of one example and one of two.

Every tensor that torch makes or lets go of is counted, operation by operation, in both. What a batch of any size would
hold at an operation then follows: what one example holds there, and for each further one as much as the second has
added. The two do the same operations, but for copies that a single example does without, and where the work is cut by
the number of targets.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from lmtasks.api import Batch, Recipe, loss_terms, require_counted, target_counts, weighted_sum
from lmtasks.models.cross_entropy import keeping
from lmtasks.models.forward import in_mode
from lmtasks.training.speed import cheap

MOMENTS = 2
"""Numbers that Adam keeps for each weight that is trained."""

HOLES, BESIDE = 0.3, 48 << 20
"""On a CPU, the share by which an allocator takes more than it hands out, and bytes for what is no tensor.

Both are what ``benchmarks/plan_memory.py`` saw.
"""

Moment = tuple[str, int]
"""An operation, and the bytes that are held after it."""


def step_memory(model: PreTrainedModel, recipe: Recipe, example: Batch, batch_size: int, *, bf16: bool = False) -> int:
    """Estimated bytes at the height of a training step: weights, gradients, moments, and what is kept or passing.

    Args:
        example: a batch of one example.
        batch_size: examples that go through the model at once.
        bf16: whether products are in bfloat16.
    """
    with _untouched(model):
        one, two = (_moments(model, recipe, _times(example, count), bf16, count / batch_size) for count in (1, 2))
    parameters = [*model.parameters()]
    weights: int = sum(one.nbytes for one in parameters)
    moments: int = MOMENTS * sum(one.nbytes for one in parameters if one.requires_grad)
    held = moments + height(one, two, batch_size)
    on_cpu = next(model.parameters()).device.type == "cpu"
    return weights + held + (int(HOLES * held) + BESIDE if on_cpu else 0)


def height(one: Sequence[Moment], two: Sequence[Moment], batch_size: int) -> int:
    """The most bytes that a batch holds at any operation, by what one and two examples hold.

    Args:
        one, two: the operations of each, in order. What only one example does is taken to add what the last operation
            did that both do.
    """
    added: list[int] = []
    matching = SequenceMatcher(None, [name for name, _ in one], [name for name, _ in two], autojunk=False)
    for first, second, count in matching.get_matching_blocks():
        added += (added[-1:] or [0]) * (first - len(added))
        added += [two[second + step][1] - one[first + step][1] for step in range(count)]
    return max(held + (batch_size - 1) * more for (_, held), more in zip(one, added, strict=True))


def _times(example: Batch, count: int) -> Batch:
    """A batch of the same example so many times; what has no row for each example stays as it is."""
    rows = {name: value for name, value in example.items() if torch.is_tensor(value) and value.shape[:1] == (1,)}
    return {**example, **{name: torch.cat([value] * count) for name, value in rows.items()}}


def _moments(model: PreTrainedModel, recipe: Recipe, batch: Batch, bf16: bool, share: float) -> list[Moment]:
    """The operations of a step forwards and backwards.

    Args:
        share: of the whole batch that this one is.
    """
    device = next(model.parameters()).device
    trained = [one for one in model.parameters() if one.requires_grad]
    ledger = _Ledger()
    with torch.random.fork_rng(), cheap(device), keeping(share), ledger, torch.enable_grad():
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            said = recipe.loss(model, batch)
        require_counted(recipe.name, loss_terms(said)[0], target_counts(recipe.targets(batch)))
        # To the end of this: as parameters keep their gradients until the step is done.
        gradients = torch.autograd.grad(weighted_sum(said), trained, allow_unused=True)
        del said, gradients
    return ledger.moments


@contextmanager
def _untouched(model: PreTrainedModel) -> Iterator[None]:
    """While this is open the model is in training; some remember what they have seen, such as ranges of activations."""
    memory = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with in_mode(model, training=True):
        yield
    for buffer, before in memory:
        buffer.copy_(before)


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is held after each operation that changes it, of all that was made since this was opened."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments: list[Moment] = []
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if torch.is_tensor(one)}
        for tensor in tree_leaves(made):
            if torch.is_tensor(tensor) and (key := tensor.untyped_storage()._cdata) not in self._known | given:
                self._add(key, tensor.untyped_storage())
        if not self.moments or self.moments[-1][1] != self._held:
            self.moments.append((str(function), self._held))
        return made

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._known.add(key)
        self._held += size
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size
