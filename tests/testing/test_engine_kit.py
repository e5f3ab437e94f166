"""The kit's checks of an engine: a right one passes all of them, and each mistake is found by the check of its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_engine import ADAM, PLAIN, Loop, engine

from lmtasks import Engine, GlobalBatch, option
from lmtasks.testing import CheckFailed, check_engine


class MeanOfMeans(Loop):
    def shares(self, terms: Any, batch: GlobalBatch) -> dict[str, torch.Tensor]:
        return {name: term.sum / term.count / len(batch.batches) for name, term in terms.items()}


class WrongGradient(Loop):
    """The loss that it tells is right, and what it learns by is not."""

    def clip(self) -> torch.Tensor:
        for weights in self.model.parameters():
            weights.grad = None if weights.grad is None else weights.grad / self.arguments.gradient_accumulation_steps
        return super().clip()


class SumTold(Loop):
    """What it learns by is right, and the loss that it tells is not."""

    def step(self, step: int, batch: GlobalBatch, course: Any) -> None:
        told = SimpleNamespace(step=lambda loss, *more: course.step(loss * len(batch.batches), *more))
        super().step(step, batch, told)


class Backwards(Loop):
    def batches(self) -> Iterator[GlobalBatch]:
        yield from reversed(list(self.training.global_batches()))


class Early(Loop):
    def rate(self, step: int) -> float:
        return self.training.rate(step + 1)


class Late(Loop):
    def rate(self, step: int) -> float:
        return self.training.rate(max(0, step - 1))


class DecayedNorms(Loop):
    def spared(self) -> frozenset[str]:
        return frozenset(name for name in super().spared() if "norm" not in name)


class Unclipped(Loop):
    def clip(self) -> torch.Tensor:
        return torch.zeros(())


class ClippedToNothing(Loop):
    def clip(self) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)


class SameDropout(Loop):
    def step(self, *arguments: Any) -> None:
        torch.manual_seed(7)
        super().step(*arguments)


class OwnChance(Loop):
    def step(self, *arguments: Any) -> None:
        torch.seed()
        super().step(*arguments)


class Forgetful(Loop):
    def load(self, folder: Path) -> None:
        """The weights will do."""


class Away(Loop):
    """One that trains other weights than the model's, as one must that computes elsewhere."""

    def __init__(self, training: Any) -> None:
        super().__init__(training)
        self.here = {name: weights.detach().clone() for name, weights in self.model.state_dict().items()}

    def sync(self) -> None:
        for name, weights in self.model.state_dict().items():
            self.here[name].copy_(weights)


class Unsynced(Loop):
    """One that moves a copy, and never writes it back."""

    def train(self) -> Any:
        kept = {name: weights.detach().clone() for name, weights in self.model.state_dict().items()}
        self.sync = lambda: self.model.load_state_dict(kept)  # type: ignore[method-assign, assignment, return-value]
        return super().train()


class Trace(Loop):
    def train(self) -> Any:
        trained = super().train()
        torch.set_grad_enabled(False)
        return trained


@pytest.mark.parametrize(
    ("loop", "check", "told"),
    [
        (MeanOfMeans, "targets-are-the-divisor", "with its parts divided, and "),
        (SumTold, "targets-are-the-divisor", "the loss of step 1 is "),
        (WrongGradient, "targets-are-the-divisor", "with its parts divided, and "),
        (Backwards, "examples-come-in-order", "the loss of step "),
        (Early, "rates-are-those-of-the-schedule", "the first step, whose rate is 0, moves weights: the evaluation"),
        (Late, "rates-are-those-of-the-schedule", "with rates that rise, its weights end"),
        (DecayedNorms, "decay-is-of-the-right-weights", "norm.weight', and the Trainer's"),
        (Unclipped, "gradients-are-clipped", "with clipped gradients, its weights end"),
        (ClippedToNothing, "targets-are-the-divisor", "and --max_grad_norm 0, which is no limit, its weights end"),
        (SameDropout, "chance-differs-by-step", "the losses of one example in 6 steps, with dropout, are"),
        (OwnChance, "resumed-engine-is-uninterrupted", "with one seed, the losses are"),
        (MeanOfMeans, "training-is-the-trainers", "the loss of step "),
        (Forgetful, "resumed-engine-is-uninterrupted", "resumed in its middle, a run ends with another"),
        (Unsynced, "engine-comes-to-its-end", "after two steps no weight has moved"),
        (Trace, "torch-is-left-alone", "after a run, torch has other defaults"),
    ],
)
def test_a_mistake_is_found(loop: type[Loop], check: str, told: str) -> None:
    try:
        with pytest.raises(CheckFailed) as failure:
            check_engine(engine(loop), only=[check])
    finally:
        torch.set_grad_enabled(True)
    assert failure.value.failed == (check,)
    assert told in str(failure.value)


def test_a_right_engine_passes() -> None:
    proof = check_engine(PLAIN)
    skipped = {name: outcome.reason for name, outcome in proof.checks.items() if outcome.state != "ok"}
    assert list(skipped) == ["engine-import-is-light"]
    assert proof.checks["training-is-the-trainers"].reason == "losses equal to 0.0e+00"


def test_an_engine_that_knows_little_is_asked_for_little() -> None:
    """It goes on from nothing, clips nothing and decays nothing; the Trainer is told to do the same."""

    class Modest(Loop):
        def clip(self) -> torch.Tensor:
            return torch.zeros(())

    proof = check_engine(engine(Modest, arguments=(), resumes=False), recipe=None, model="bert")
    reasons = {name: outcome.reason for name, outcome in proof.checks.items()}
    assert reasons["gradients-are-clipped"] == "it knows nothing of max_grad_norm"
    assert reasons["decay-is-of-the-right-weights"] == "it knows nothing of weight_decay"
    assert reasons["resumed-engine-is-uninterrupted"] == "it makes no checkpoints"
    again = check_engine(engine(arguments=("max_grad_norm",)), only=["gradients-are-clipped"])
    assert again.checks["gradients-are-clipped"].reason.startswith("without adam_epsilon")


def test_a_checkpoint_of_an_engine_that_says_it_makes_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saves(Loop):
        def train(self) -> Any:
            place = Path(self.arguments.output_dir) / "checkpoint-3"
            place.mkdir(parents=True)
            return super().train()

    with pytest.raises(CheckFailed, match="it leaves a checkpoint from which it cannot go on"):
        check_engine(engine(Saves, resumes=False), only=["resumed-engine-is-uninterrupted"])


def test_a_name_that_is_taken_ends_the_examination() -> None:
    with pytest.raises(CheckFailed, match="engine 'trainer' already belongs to lmtasks:engines") as failure:
        check_engine(engine(name="trainer"))
    assert failure.value.failed == ("engine-comes-in",)


def test_options_are_looked_at_and_handed_on() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Silent:
        size: int = option(3, help="")

    silent = engine(options=Silent)
    with pytest.raises(CheckFailed, match="size"):
        check_engine(silent, only=["engine-options-are-documented"])

    @dataclass(frozen=True, kw_only=True)
    class Sized:
        size: int = option(3, help="how much")

    seen: list[Any] = []

    def train(training: Any, options: Any) -> Any:
        seen.append(options)
        return Loop(training).train()

    sized = Engine(name="sized", summary="One with a size.", train=train, options=Sized, arguments=ADAM)
    check_engine(sized, options={"size": 5}, only=["engine-comes-to-its-end"])
    assert seen == [Sized(size=5)]


def test_what_a_heavy_module_imports_is_found() -> None:
    with pytest.raises(CheckFailed, match=r"importing 'lmtasks\.training\.with_trainer' imports"):
        check_engine(PLAIN, only=["engine-import-is-light"], module="lmtasks.training.with_trainer")
