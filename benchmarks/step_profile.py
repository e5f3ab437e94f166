"""Where the time of an optimiser step goes, by kind of operation.

    python benchmarks/step_profile.py [--device auto] [--steps 13] [--warmup 3] [--only "masked-lm, 4"] [--quick]

The models, texts and steps of lmtasks in ``training_step.py``, once more under torch's profiler. A kind has the time
of its operations themselves, without those that they call; what no operation accounts for is Python's, the Trainer's
and the profiler's own, which makes a step some per cent longer than it is. The slower half of the steps is left out:
what the profiler keeps of a step may lie in a block that the next one had for the gradient of an embedding, which comes
from the kernel then, page fault by page fault.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from measuring import described, print_table, quiet_place
from torch.autograd.profiler_util import FunctionEvent, Interval
from torch.profiler import ProfilerActivity, profile, record_function
from training_step import Case, Effort, our_arguments, our_trainer, parsed, quickened, text_of
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtasks.training.speed import eased

WITHIN = {
    "Optimizer.step": "optimiser",
    "clip_grad_norm_": "clipping",
    "_foreach_norm": "clipping",
    "_foreach_mul_": "clipping",
    "DataLoader": "batches",
    "_Through": "masks of dropout",
    "EmbeddingBackward": "gradients of embeddings",
    "embedding": "embeddings",
    "LayerNormBackward": "norms",
    "layer_norm": "norms",
    "GeluBackward": "activations",
    "gelu": "activations",
    "tanh": "activations",
}
"""Kinds of what happens within an operation whose name has this in it; the first that fits."""

NAMED = {
    "bernoulli_": "draws of dropout",
    "random_": "draws of dropout",
    "bmm": "attention",
    "baddbmm": "attention",
    "softmax": "attention",
    "isneginf": "attention",
    "scaled_dot_product": "attention",
    "copy_": "copies between dtypes and layouts",
    "pow": "activations",
}
"""Kinds of operations by a part of their own name."""

PRODUCTS = ("aten::mm", "aten::addmm", "aten::linear", "aten::matmul")


def kind_of(event: FunctionEvent) -> str:
    """The kind of an operation, by its name and the operations that it is called by."""
    callers = [event.name]
    parent = event.cpu_parent
    while parent is not None:
        callers.append(parent.name)
        parent = parent.cpu_parent
    head = any("ProjectedTotal" in name or "FrozenTotal" in name for name in callers)
    if event.name in PRODUCTS:
        backward = any(name.startswith("autograd::engine") for name in callers)
        return f"products of the {'head' if head else 'body'}, {'backward' if backward else 'forward'}"
    for kinds, names in ((WITHIN, callers), (NAMED, callers[:1])):
        for part, kind in kinds.items():
            if any(part in name for name in names):
                return kind
    if head:
        return "head and loss, the rest"
    return "other operations" if event.name.startswith("aten::") else REST


REST = "Python and the rest"
STEP = "optimiser step"


class Profiled(TrainerCallback):
    """Seconds per step after the warm-up, of the quicker half of the steps, whole and by kind."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.step = record_function(STEP)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the gradients were cleared."""
        if state.global_step == self.effort.warmup:
            self.profile.start()
        if state.global_step > self.effort.warmup:
            self.step.__exit__(None, None, None)
        if state.global_step == self.effort.steps:
            self.profile.stop()
        elif state.global_step >= self.effort.warmup:
            self.step.__enter__()

    @cached_property
    def quicker(self) -> list[Interval]:
        """When the steps were that are looked at."""
        every = sorted((one.time_range for one in self.profile.events() if one.name == STEP), key=Interval.elapsed_us)
        return every[: -(-len(every) // 2)]

    @property
    def seconds(self) -> float:
        """Of a step."""
        return statistics.mean(one.elapsed_us() for one in self.quicker) / 1e6

    def kinds(self) -> Counter[str]:
        """Seconds by kind; they add up to those of the step."""
        found: Counter[str] = Counter()
        for event in self.profile.events():
            if event.name != STEP and any(step.start <= event.time_range.start <= step.end for step in self.quicker):
                found[kind_of(event)] += event.self_cpu_time_total / 1e6 / len(self.quicker)
        found[REST] += self.seconds - found.total()
        return found


def profiled(case: Case, effort: Effort, place: Path) -> Profiled:
    """The steps of lmtasks' Trainer."""
    text, seen = text_of(case, effort), Profiled(effort)
    model = quickened(case, text, effort)
    values = our_arguments(case, model, effort, effort.steps, bf16=None)
    with eased(effort.device):
        our_trainer(case, text, effort, place, model, values, seen).train()
    return seen


def main(words: Sequence[str] | None = None) -> None:
    cases, effort = parsed(["--steps", "13", "--warmup", "3", *(sys.argv[1:] if words is None else words)])
    with quiet_place() as place:
        steps = {case.name: profiled(case, effort, place) for case in cases}
    kinds = {name: one.kinds() for name, one in steps.items()}
    order = [kind for kind, _ in sum(kinds.values(), Counter()).most_common()]

    def rows() -> Iterator[list[str]]:
        for kind in order:
            found = [(of[kind], steps[name].seconds) for name, of in kinds.items()]
            yield [kind, *(f"{1000 * took:.1f} ({took / whole:.1%})" for took, whole in found)]
        yield ["whole step", *(f"{1000 * one.seconds:.1f}" for one in steps.values())]

    title = f"Time of a step of {effort.batch} × {effort.length} tokens by kind, ms ({described(effort.device)})"
    print_table(title, ("kind", *steps), rows())


if __name__ == "__main__":
    main()
