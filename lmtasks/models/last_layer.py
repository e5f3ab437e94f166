"""The last layer of a model, run only on the rows that are wanted, as far as it takes each row on its own.

Of what the last layer makes, only the rows of targets are read. Its keys and values are needed everywhere; its queries
and all that comes after attention, ten of the twelve parts of its products, only at the targets. Which modules of a
layer these are is measured: each is run on a few rows, with NaN in place of what it would give for the others. If it
reads other rows, or anything reads its own others, what comes out is no number, or another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lmtasks.models.agreement import agree
from lmtasks.models.forward import MODEL_FAILURES, measuring

FEW = 0.5
"""Share of the rows up to which it pays to leave out the others."""

ROWS = 16
"""What a number of rows is filled up to a multiple of, for products by oneDNN, such as those in bfloat16 on a CPU: it
keeps several MiB for each number of rows that it has ever seen, and batches of a masked model have hundreds.
"""

LEAST = 5
"""Positions of an example on which something can be told: of fewer, as many as are wanted could be all."""

Parts = dict[nn.Module, bool]
"""Modules that may run on some rows, and whether what they make is put back among all rows."""


@contextmanager
def only(parts: Parts, wanted: Tensor | None, kind: torch.dtype) -> Iterator[None]:
    """While this is open the modules, of this kind of numbers, run on the wanted rows, where these are few.

    Args:
        wanted: bool [examples, length]; of what the modules put back, all other rows are zero. All when not given.
    """
    with nullcontext() if wanted is None else _Rows(wanted, kind=kind).within(parts):
        yield


def missing_rows(count: int, device: torch.device, kind: torch.dtype | None) -> int:
    """How many rows of numbers of a kind fill up so many to a multiple of ``ROWS``, where their number costs memory."""
    cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return -count % ROWS if device.type == "cpu" and torch.bfloat16 in (kind, cast) else 0


def row_wise_parts(body: nn.Module, hidden: Callable[[], Tensor], read: Callable[[Tensor], Tensor]) -> Parts:
    """The modules of a body's last layer that may run on some rows; none where it is not found to be right.

    Args:
        hidden: one forward pass of the body: the hidden states [examples, length, size] of at least two examples.
        read: what is made of the states [rows, size] of some rows.
    """
    with _calls(body) as calls:
        states = hidden()
    if not calls or states.shape[1] < LEAST:
        return {}
    layer, given, named = calls[-1]
    if any(called is layer for called, _, _ in calls[:-1]):  # ALBERT's is every layer
        return {}
    wanted = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
    wanted[[0, 0, 1], [1, -2, states.shape[1] // 2]] = True

    def of_layer() -> Tensor:
        made = layer(*given, **named)
        return (made if torch.is_tensor(made) else made[0])[wanted]

    parts = _found(layer, of_layer, wanted)
    right = _right(parts, lambda: read(hidden()[wanted]), read(states[wanted]), wanted)
    return parts if right and _right_in_training(parts, layer, of_layer, wanted) else {}


@contextmanager
def _calls(body: nn.Module) -> Iterator[list[tuple[nn.Module, Any, Any]]]:
    """The layers that are called while this is open, with their arguments."""
    lists = [part for part in body.modules() if isinstance(part, nn.ModuleList)]
    within = {part for layers in lists for layer in layers for part in layer.modules()}
    calls: list[tuple[nn.Module, Any, Any]] = []
    with ExitStack() as hooks:
        for layer in (layer for layers in lists if layers not in within for layer in layers):
            hooks.enter_context(layer.register_forward_pre_hook(lambda *call: calls.append(call), with_kwargs=True))
        yield calls


def _found(layer: nn.Module, run: Callable[[], Tensor], wanted: Tensor) -> Parts:
    """The outermost modules of a layer that make the same of the wanted rows alone."""
    expected = run()
    parts: Parts = {}

    def look(whole: nn.Module) -> None:
        for module in whole.children():
            if not any(one.ndim > 1 for one in module.parameters()):
                continue  # nothing is multiplied
            if _is_plain(module) and _right({**parts, module: True}, run, expected, wanted) and _is_read(module, run):
                parts[module] = True
            else:
                look(module)

    look(layer)
    for part in parts:
        if _right({**parts, part: False}, run, expected, wanted):  # the next one takes just these rows
            parts[part] = False
    return parts


def _is_plain(module: nn.Module) -> bool:
    """Whether all its weights are vectors and matrices: those of convolutions and experts have more dimensions.

    Buffers may keep something about its rows.
    """
    return not any(True for _ in module.buffers()) and all(one.ndim <= 2 for one in module.parameters())


def _is_read(module: nn.Module, run: Callable[[], Tensor]) -> bool:
    """Whether all wanted rows depend on what it makes; else nothing is told, as by what takes part in longer texts."""
    with module.register_forward_hook(lambda module, given, made: torch.full_like(made, math.nan)):
        return bool(run().isnan().any(-1).all())


def _right(parts: Parts, run: Callable[[], Tensor], expected: Tensor, wanted: Tensor) -> bool:
    """Whether the modules run on the wanted rows, and all is as expected there whatever the others hold."""
    found = _tried(parts, run, wanted)
    # Half of the digits have to be right: kernels add up few rows in another order than many.
    return found is not None and agree(found, expected, spread=math.sqrt(torch.finfo(expected.dtype).eps))


def _right_in_training(parts: Parts, layer: nn.Module, run: Callable[[], Tensor], wanted: Tensor) -> bool:
    """Whether then, too, nothing in the layer reads other rows, as BatchNorm does only then."""
    with measuring(layer, training=True):
        found = _tried(dict.fromkeys(parts, True), run, wanted)  # what is between two of them has all rows to read
    return found is not None and not bool(found.isnan().any())


def _tried(parts: Parts, run: Callable[[], Tensor], wanted: Tensor) -> Tensor | None:
    """What is made with the modules on the wanted rows, and NaN for the others; None if they do not run so."""
    rows = _Rows(wanted, others=math.nan)
    try:
        with rows.within(parts):
            found = run()
    except MODEL_FAILURES:
        return None
    return found if rows.taken == set(parts) else None


class _Rows:
    """Some rows of what goes through modules, as long as they are few.

    Args:
        wanted: bool [examples, length].
        others: what is put in place of the other rows.
        kind: of numbers, for which the rows are filled up with others.
    """

    def __init__(self, wanted: Tensor, others: float = 0.0, kind: torch.dtype | None = None) -> None:
        self.wanted, self.others, self.kind = wanted, others, kind
        self.taken: set[nn.Module] = set()

    @cached_property
    def places(self) -> Tensor | None:
        """Their numbers in the batch; None if these are many. Not asked before the last layer: a GPU has other work."""
        places, others = (some.flatten().nonzero()[:, 0] for some in (self.wanted, ~self.wanted))
        places = torch.cat([places, others[: missing_rows(len(places), places.device, self.kind)]])
        return places if len(places) <= FEW * self.wanted.numel() else None

    @contextmanager
    def within(self, parts: Parts) -> Iterator[None]:
        """While this is open the modules run on these rows."""
        with ExitStack() as hooks:
            for part, put_back in parts.items():
                hooks.enter_context(part.register_forward_pre_hook(self._take, with_kwargs=True))
                if put_back:
                    hooks.enter_context(part.register_forward_hook(self._put_back))
            yield

    def _take(self, part: nn.Module, given: Any, named: Any) -> tuple[Any, Any]:
        """The arguments of a module, those with all rows with these alone, [1, rows, ...]."""
        given, named = tuple(map(self._of, given)), {name: self._of(value) for name, value in named.items()}
        if any(map(self._is_narrow, (*given, *named.values()))):
            self.taken.add(part)
        return given, named

    def _of(self, value: Any) -> Any:
        if not torch.is_tensor(value) or value.shape[:2] != self.wanted.shape or self.places is None:
            return value
        return value.flatten(0, 1).index_select(0, self.places)[None]

    def _is_narrow(self, value: Any) -> bool:
        return torch.is_tensor(value) and self.places is not None and value.shape[:2] == (1, len(self.places))

    def _put_back(self, part: nn.Module, given: Any, made: Any) -> Any:
        """What a module made of these rows, among all."""
        if self.places is None or not self._is_narrow(made):
            return made
        every = made.new_full((self.wanted.numel(), *made.shape[2:]), self.others)
        return every.index_copy(0, self.places, made[0]).unflatten(0, self.wanted.shape)
