"""The kit's checks of an extension: what is right passes, each mistake is found by its check."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import evaluate
import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from lmtasks import Command, Extension, option
from lmtasks.testing import CheckFailed, check_extension, checks


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the extension that the mistakes are made in."""

    scale: float = option(1.0, help="factor of every gradient", gt=0)


class Scale(TrainerCallback, ExportableState):
    """Multiplies gradients by a factor that falls from step to step; how often it did so, it keeps."""

    def __init__(self, factor: float, done: int = 0) -> None:
        self.factor, self.done = factor, done

    def state(self) -> dict[str, Any]:
        """What a checkpoint has of it."""
        return {"args": {"factor": self.factor}, "attributes": {"done": self.done}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the count of the checkpoint."""
        kept = state.stateful_callbacks.get("Scale", {})
        self.done = kept.get("attributes", {}).get("done", 0) if isinstance(kept, dict) else 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Scale."""
        self.done += 1
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad[..., : self.done] *= self.factor


class Forgetful(Scale):
    """Keeps no count."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin anew."""
        self.done = 0


class Mean(evaluate.Metric):
    """The mean loss of a target."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("float64") for name in ("loss", "targets")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, loss: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
        return {"mean": sum(loss) / sum(targets)}


class Drawn(Mean):
    """A mean of some of the sums, which are drawn anew each time."""

    def _compute(self, loss: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
        return {"mean": random.random() * sum(loss) / sum(targets)}


class Endless(Mean):
    """No number."""

    def _compute(self, loss: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
        return {"mean": float("nan")}


class Watch(TrainerCallback):
    """A tracker that looks on."""


class Meddling(TrainerCallback):
    """A tracker that moves a weight."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Meddle."""
        with torch.no_grad():
            next(model.parameters()).add_(1e-3)


def help_of(words: list[str]) -> int:
    """A command that answers."""
    print("usage: lmtasks scale")
    return 0


RIGHT = Extension(
    name="scale",
    summary="Scales gradients.",
    options=Options,
    callbacks=lambda recipe, options: [Scale(options.scale)] if options.scale != 1 else [],
    metrics=[f"{__name__}:Mean"],
    trackers={"watch": lambda options: Watch()},
    commands=[Command(name="scale", summary="say what it does", run=help_of)],
)

SHARED = Scale(2.0)


def with_help(text: str) -> type:
    """Options whose help is this."""

    @dataclass(frozen=True, kw_only=True)
    class Wrong:
        scale: float = option(1.0, help=text, gt=0)

    return Wrong


@dataclass(frozen=True, kw_only=True)
class OutOfRange:
    """Options whose default is out of their own range."""

    scale: float = option(1.0, help="factor of every gradient", gt=1)


def silent(words: list[str]) -> int:
    """A command that says nothing."""
    return 0


def failing(words: list[str]) -> int:
    """A command that knows no help."""
    print("what?")
    return 2


def unasked(recipe: Any, options: Any) -> list[TrainerCallback]:
    """Callbacks whether or not anybody asked."""
    return [Scale(0.5)]


MISTAKES = [
    (replace(RIGHT, commands=[Command(name="push", summary="x", run=help_of)]), "extension-comes-in", "built in"),
    (replace(RIGHT, trackers={"wandb": lambda options: Watch()}), "extension-comes-in", "tracker 'wandb'"),
    (replace(RIGHT, options=with_help("")), "extension-options-are-documented", "has the help ''"),
    (replace(RIGHT, options=with_help("Two.\nlines")), "extension-options-are-documented", "has the help"),
    (replace(RIGHT, options=OutOfRange), "extension-options-are-documented", "its own default is refused"),
    (replace(RIGHT, callbacks=lambda recipe, options: [SHARED]), "callbacks-are-new", "share one Scale"),
    (replace(RIGHT, callbacks=lambda recipe, options: ["x"]), "callbacks-are-new", "makes a str"),
    (replace(RIGHT, trackers={"watch": lambda options: SHARED}), "callbacks-are-new", "share one Scale"),
    (replace(RIGHT, callbacks=unasked), "installed-changes-nothing", "ends with another"),
    (replace(RIGHT, trackers={"watch": lambda options: Meddling()}), "trackers-change-nothing", "ends with another"),
    (replace(RIGHT, callbacks=lambda recipe, options: [Forgetful(options.scale)] if options.scale != 1 else []),
     "resumed-is-uninterrupted", "resumed in its middle"),
    (replace(RIGHT, metrics=[f"{__name__}:Drawn"]), "metrics-are-of-sums", "in batches of one example"),
    (replace(RIGHT, metrics=[f"{__name__}:Endless"]), "metrics-are-of-sums", "scale_mean is nan"),
    (replace(RIGHT, metrics=[f"{__name__}:Nowhere"]), "metrics-are-of-sums", "cannot be made"),
    (replace(RIGHT, commands=[Command(name="scale", summary="x", run=silent)]), "commands-answer-help", "ends with 0"),
    (replace(RIGHT, commands=[Command(name="scale", summary="x", run=failing)]), "commands-answer-help", "ends with 2"),
]  # fmt: skip


def test_what_is_right_passes() -> None:
    proof = check_extension(RIGHT, options={"scale": 0.5}, module="two_terms")
    assert list(proof.checks) == [name for name, check in checks().items() if "extension" in check.subjects]
    assert {str(outcome) for outcome in proof.checks.values()} == {
        "ok",
        "ok: 1 figures",
        "ok: 2 made",
        "ok: 1 commands",
    }


@pytest.mark.seeded
@pytest.mark.parametrize(
    ("wrong", "check", "told"), MISTAKES, ids=[f"{check}-{number}" for number, (_, check, _) in enumerate(MISTAKES)]
)
def test_each_mistake_is_found_by_its_check(wrong: Extension, check: str, told: str) -> None:
    with pytest.raises(CheckFailed) as found:
        check_extension(wrong, options={"scale": 0.5}, only=[check])
    assert found.value.failed == (check,)
    assert told in str(found.value)
    assert "    -> " in str(found.value)


@pytest.mark.seeded
def test_a_module_that_imports_what_is_heavy() -> None:
    with pytest.raises(CheckFailed, match=r"imports .*torch"):
        check_extension(RIGHT, module=__name__, only=["extension-import-is-light"])


def test_options_that_it_does_not_have() -> None:
    with pytest.raises(CheckFailed, match="it has no option 'pace'"):
        check_extension(RIGHT, options={"pace": 1})


def test_nothing_to_say() -> None:
    bare = Extension(name="bare", summary="Nothing.")
    skipped = {name: str(outcome) for name, outcome in check_extension(bare).checks.items() if outcome.state != "ok"}
    assert skipped == {
        "extension-import-is-light": "skipped: no installed plugin has this extension; module='...' says where it is"
        " declared",
        "trackers-change-nothing": "skipped: it has no tracker",
        "resumed-is-uninterrupted": "skipped: options={...} says how it is asked for something",
    }


def test_every_check_is_failed_by_a_mistake() -> None:
    own = {name for name, check in checks().items() if "extension" in check.subjects}
    assert {check for _, check, _ in MISTAKES} | {"extension-import-is-light"} == own
