"""The memory at the height of a training step, foreseen from a step of one example and one of two.

Every tensor that torch makes or lets go of is noted in both. What a batch of any size would make then follows: as much
as one example does, and for each further one as much as the second has added. The two do the same operations, but for
copies that a single example does without, and where the work is cut by the number of targets. On a CPU, what the
allocator takes for these tensors is found by doing to a heap of numbers what it does.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from lmtasks.api import Batch, Recipe, loss_terms, require_counted, target_counts, weighted_sum
from lmtasks.errors import InputError
from lmtasks.models.cross_entropy import keeping
from lmtasks.models.forward import measuring, repeated
from lmtasks.training.heap import Heap
from lmtasks.training.speed import cheap

MOMENTS = 2
"""Numbers that Adam keeps for each weight that is trained."""

BESIDE = 48 << 20
"""On a CPU, bytes for what is no tensor, as ``benchmarks/plan_memory.py`` saw them."""

APART = 0.08
"""Share by which a heap is higher, as seen there: small blocks, which nobody notes, hold free ones apart."""

ROUNDS = 3
"""Steps after which the heap of a training grows no more: the moments come with the first, and its holes stay."""


@dataclass
class Trace:
    """The tensors of a step, in order, each by a number.

    Args:
        made: the operation that made a tensor, and its bytes, by its number.
        events: numbers of tensors as they come, and once more as they go.
        learned: how many events there are until the gradients are whole.
        noted: numbers of those tensors that autograd knows, custom functions' included.
    """

    made: list[tuple[str, int]] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    learned: int = 0
    noted: set[int] = field(default_factory=set)


def step_memory(model: PreTrainedModel, recipe: Recipe, example: Batch, batch_size: int, *, bf16: bool = False) -> int:
    """Estimated bytes at the height of a training step: weights, gradients, moments, and what is kept or passing.

    Args:
        example: a batch of one example.
        batch_size: examples that go through the model at once.
        bf16: whether products are in bfloat16.
    """
    with measuring(model, training=True, gradients=True):
        one, two = (_traced(model, recipe, repeated(example, count), bf16, count / batch_size) for count in (1, 2))
    parameters = [*model.parameters()]
    weights = sum(int(one.nbytes) for one in parameters)
    moments = [int(one.nbytes) for one in parameters if one.requires_grad] * MOMENTS
    step = of_batch(one, two, batch_size)
    if next(model.parameters()).device.type == "cpu":
        return weights + round(heap_height(step, moments) * (1 + APART)) + BESIDE
    return weights + sum(moments) + height(step)


def of_batch(one: Trace, two: Trace, batch_size: int) -> Trace:
    """The step of a batch of any size, by those of one and of two examples.

    A tensor grows with each example as much as it has with the second; what only two examples make, as if by halves.
    """
    names = [[name for name, _ in trace.made] for trace in (one, two)]
    sizes = [size * batch_size // 2 for _, size in two.made]
    matching = SequenceMatcher(None, names[0], names[1], autojunk=False)
    for first, second, count in matching.get_matching_blocks():
        for step in range(count):
            (_, before), (_, after) = one.made[first + step], two.made[second + step]
            sizes[second + step] = max(0, before + (batch_size - 1) * (after - before))
    return replace(two, made=[(name, size) for (name, _), size in zip(two.made, sizes, strict=True)])


def height(step: Trace) -> int:
    """The most bytes that are held at once."""
    held, most, there = 0, 0, set[int]()
    for number in step.events:
        there ^= {number}
        held += step.made[number][1] * (1 if number in there else -1)
        most = max(most, held)
    return most


def heap_height(step: Trace, moments: Sequence[int]) -> int:
    """The most bytes that a heap takes for some steps, holes included; the moments are made after the first."""
    heap, count = Heap(), len(step.made)
    for turn in range(ROUNDS):
        there = set[int]()
        for place, number in enumerate(step.events):
            if place == step.learned:
                heap.give_edges()
                for more, size in enumerate(moments if turn == 0 else ()):
                    heap.take(count + more, size)
            there ^= {number}
            if number in there:
                heap.take(number, step.made[number][1])
            else:
                heap.give(number, edge=place >= step.learned or number not in step.noted)
    return heap.height


def _traced(model: PreTrainedModel, recipe: Recipe, batch: Batch, bf16: bool, share: float) -> Trace:
    """The tensors of a step forwards and backwards.

    Args:
        share: of the whole batch that this one is.
    """
    device = next(model.parameters()).device
    trained = [one for one in model.parameters() if one.requires_grad]
    ledger = _Ledger()
    with cheap(device), keeping(share), ledger:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            said = recipe.loss(model, batch)
        require_counted(recipe.name, loss_terms(said)[0], target_counts(recipe.targets(batch)))
        # To the end of this: as parameters keep their gradients until the step is done.
        if not (total := weighted_sum(said)).requires_grad:
            raise InputError(
                f"the loss of {recipe.name} has no gradient: nothing would be learned",
                "compute it from what the model gives, without detach(), item() or torch.no_grad()",
            )
        gradients = torch.autograd.grad(total, trained, allow_unused=True)
        del said, total
        ledger.trace.learned = len(ledger.trace.events)
        del gradients
    return ledger.trace


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The tensors that were made since this was opened, and when they went; what stays to the end goes with it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self._known: dict[int, int] = {}

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        for key in [*self._known]:
            self._remove(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        inputs = [one for one in tree_leaves((args, kwargs)) if torch.is_tensor(one)]
        given = {one.untyped_storage()._cdata for one in inputs}
        learned = {one.untyped_storage()._cdata for one in inputs if one.requires_grad}
        self.trace.noted |= {self._known[key] for key in learned & self._known.keys()}
        # What is written to and was not made here comes from elsewhere, as draws do, and is let go of as well.
        there = set() if function._schema.is_mutable else given
        for tensor in filter(torch.is_tensor, tree_leaves(made)):
            if (key := tensor.untyped_storage()._cdata) not in self._known.keys() | there:
                self._add(key, tensor.untyped_storage(), str(function))
        return made

    def _add(self, key: int, storage: torch.UntypedStorage, name: str) -> None:
        self._known[key] = len(self.trace.made)
        self.trace.events.append(len(self.trace.made))
        self.trace.made.append((name, storage.nbytes()))
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        if (number := self._known.pop(key, None)) is not None:
            self.trace.events.append(number)
