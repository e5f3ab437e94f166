"""Checks of an engine: that its steps are the Trainer's, on the same examples, with the same rates and divisors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PretrainedConfig

from lmtasks.api import Engine, Recipe
from lmtasks.errors import InputError
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.case import Case
from lmtasks.testing.declaration import require_good_options, require_light_declaration
from lmtasks.testing.engaged import EVALUATION, FIRST, LOSS, MOVED, STEPS, Engaged, Tried, still
from lmtasks.testing.plugins import installed
from lmtasks.testing.proof import CHECKS, Fault, Inapplicable, Proof, blamed, check, examine
from lmtasks.testing.set_up import case_of
from lmtasks.testing.specimens import usual_type
from lmtasks.testing.sums import apart, vector

GENTLE = {"adam_epsilon": 0.1, "learning_rate": 1e-2}
"""With so large an epsilon a step of Adam is as long as its gradient, and not of one length whatever that is."""

LEFT_ALONE = {"learning_rate": 0.0}
"""Steps that move nothing: what they lose is told by their examples alone."""


def check_engine(
    engine: Engine,
    *,
    recipe: Recipe | None = None,
    model: PretrainedConfig | str | None = None,
    options: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    module: str = "",
    skip: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> Proof:
    """Run every check on an engine, with tiny runs of it and of the Trainer.

    Args:
        recipe: of the runs; masked-lm when None.
        model: type or configuration of a tiny model; one that suits the recipe when None. Its dropout is switched off.
        options: values of the engine's options, by the names of its dataclass.
        trainer: training arguments with which the Trainer does what the engine does, where that is not Adam with
            decoupled weight decay: ``{"optim": "sgd"}``.
        module: where the engine is declared, if in no installed plugin.
        skip, only: as for :func:`lmtasks.testing.check_recipe`.

    Returns:
        the outcome of each check.

    Raises:
        CheckFailed: checks failed; the message lists each, with what is wrong and what to do.
        ValueError: ``skip`` or ``only`` names no check.
    """
    recipe = recipe or load_catalog().recipe("masked-lm")
    known = {name: one for name, one in CHECKS.items() if "engine" in one.subjects}
    with case_of(recipe, still(model or usual_type(recipe), recipe)) as case:
        subject = Engaged(engine, case, options or {}, trainer or {}, module)
        return examine(subject, "engine", known, skip or {}, only).require()


@check("engine", gate=True)
def engine_comes_in(subject: Engaged) -> None:
    """It comes in by the door of all plugins, and neither its name nor that of its options is there already."""
    if not subject.is_built_in:
        with blamed("", "rename what is there already", InputError), installed(engines=[subject.engine]):
            pass


@check("engine")
def engine_import_is_light(subject: Engaged) -> None:
    """Importing the module that declares it imports neither torch nor anything else that takes a second."""
    require_light_declaration("engine", subject.engine.name, subject.module)


@check("engine")
def engine_options_are_documented(subject: Engaged) -> None:
    """Every option says what it does in one line, and has a default that it would accept."""
    require_good_options(subject.engine.flags)


@check("engine", gate=True, advice="tell each step to the course, until training.global_batches() ends")
def engine_comes_to_its_end(subject: Engaged) -> None:
    """A run of two steps ends, with a model that has moved."""
    if all(torch.equal(value, subject.start[name]) for name, value in subject.first.run.weights.items()):
        raise Fault("after two steps no weight has moved", "let `sync` write the weights into training.model")


@check("engine", advice="take training.global_batches() as they come, all of them, and none ahead of its step's loss")
def examples_come_in_order(subject: Engaged) -> str:
    """Where nothing is learned, the loss of each step is the Trainer's: it has the same examples, hidden alike."""
    how: dict[str, Any] = {"per_device_train_batch_size": 4, **LEFT_ALONE}
    return _same_losses(*subject.both("order", **how))


@check(
    "engine", advice="divide the sum of each term by batch.counts of that term, once, over all parts of a global batch"
)
def targets_are_the_divisor(subject: Engaged) -> str:
    """The same of global batches in two parts, the last of an epoch shorter; and their gradients are divided so."""
    how: dict[str, Any] = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_train_samples": 16}
    if not subject.engine.honours("adam_epsilon"):
        return _same_losses(*subject.both("divisor", **how, **LEFT_ALONE))
    runs = subject.both("divisor", **how, **subject.honoured(**GENTLE, max_grad_norm=0.0))
    _same_way(subject, *runs, "with its parts divided, and --max_grad_norm 0, which is no limit")
    return _same_losses(*runs)


@check("engine", advice="give step k the rate training.rate(k), where k counts from training.done, and begins at 0")
def rates_are_those_of_the_schedule(subject: Engaged) -> None:
    """While rates rise from nothing, weights stay in the first step, and then move as far as the Trainer's."""
    rising: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": STEPS, "learning_rate": 1e-2}
    rising |= {"eval_strategy": "steps", "eval_steps": 1, **subject.honoured(adam_epsilon=0.1)}
    one, other = subject.both("rates", **rising)
    mine, theirs = (run.series("eval_loss")[0] for run in (one, other))
    if mine != theirs:
        raise Fault(f"the first step, whose rate is 0, moves weights: the evaluation after it is {mine}, not {theirs}")
    _same_way(subject, one, other, "with rates that rise")


@check("engine", advice="leave the parameters in training.undecayed out of weight decay, and no others")
def decay_is_of_the_right_weights(subject: Engaged) -> str:
    """Under strong weight decay each parameter shrinks as the Trainer's does: biases and norms not at all."""
    if not subject.honoured(weight_decay=1.0):
        raise Inapplicable("it knows nothing of weight_decay")
    one, other = subject.both("decay", weight_decay=100.0, learning_rate=1e-3)
    checked = 0
    for name, start in subject.start.items():
        if start.norm() < 0.1:
            continue  # what begins at nothing has nothing to lose
        checked += 1
        shrunk, wanted = (float(run.weights[name].norm() / start.norm()) for run in (one, other))
        if abs(shrunk - wanted) > 0.05:
            raise Fault(f"weight decay leaves {shrunk:.0%} of '{name}', and the Trainer's {wanted:.0%}")
    return f"{checked} parameters"


@check("engine", advice="clip the norm of the whole gradient, of all parts together, before the step")
def gradients_are_clipped(subject: Engaged) -> None:
    """Under a small --max_grad_norm the weights move as far as the Trainer's."""
    if not subject.engine.honours("max_grad_norm"):
        raise Inapplicable("it knows nothing of max_grad_norm")
    if not subject.engine.honours("adam_epsilon"):
        raise Inapplicable("without adam_epsilon, how long a gradient is does not show")
    how: dict[str, Any] = {"max_grad_norm": 1e-3, "adam_epsilon": 1e-3, "learning_rate": 1e-1}
    _same_way(subject, *subject.both("clipped", **how), "with clipped gradients")


@check("engine", advice="draw anew in each step")
def chance_differs_by_step(subject: Engaged) -> None:
    """With dropout, one example has another loss in each step."""
    one: dict[str, Any] = {"max_train_samples": 1, "per_device_train_batch_size": 1, **LEFT_ALONE}
    with lively() as case:
        losses = subject.run("chance", case, **one).series("loss")
    if len(set(losses)) < len(losses):
        raise Fault(f"the losses of one example in {len(losses)} steps, with dropout, are {_told(losses)}")


@check("engine", advice="see what the checks before this say; else compare the losses step by step")
def training_is_the_trainers(subject: Engaged) -> str:
    """All of it together: the losses of 12 steps are the Trainer's to 1e-4, those of evaluations to 1e-5."""
    how: dict[str, Any] = {
        "max_steps": 12,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "max_train_samples": 25,
    }
    how |= {"lr_scheduler_type": "cosine", "warmup_steps": 3, "learning_rate": 1e-3}
    how |= {"eval_strategy": "steps", "eval_steps": 5, **subject.honoured(weight_decay=0.1, max_grad_norm=1.0)}
    one, other = subject.both("whole", **how)
    told = _same_losses(one, other)
    lines, wanted = ([(line["step"], _kind(line)) for line in run.log] for run in (one, other))
    if lines != wanted:
        raise Fault(f"its log has {lines}, and the Trainer's {wanted}")
    pairs = zip([*one.series("eval_loss"), one.evaluation], [*other.series("eval_loss"), other.evaluation], strict=True)
    for mine, theirs in pairs:
        if abs(mine - theirs) > EVALUATION:
            raise Fault(
                f"an evaluation gives {mine:.7f}, and the Trainer's {theirs:.7f}", "let `sync` write all weights"
            )
    return told


@check(
    "engine",
    advice="put into `save` all that the next step needs, and read it from training.checkpoint; or resumes=False",
)
def resumed_engine_is_uninterrupted(subject: Engaged) -> str:
    """With dropout, a run again has the same bits, also if resumed within an epoch; or it leaves no checkpoint."""
    how: dict[str, Any] = {"per_device_train_batch_size": 3, "max_train_samples": 12, "learning_rate": 1e-2}
    half = STEPS // 2
    with lively() as case:
        if not subject.engine.resumes:
            one, again = (subject.run(name, case, **how, max_steps=half) for name in ("unsaved", "unsaved-again"))
            _same_bits(one, again)
            if list((one.folder / "checkpoints").glob("*")):
                raise Fault("it leaves a checkpoint from which it cannot go on")
            return "it makes no checkpoints"
        whole = subject.run("uninterrupted", case, **how, save_steps=half)
        _same_bits(whole, subject.run("halves", case, **how, save_steps=half, max_steps=half))
        halves = subject.run("halves", case, **how, save_steps=half, resume_from_checkpoint=True)
        for name, value in whole.weights.items():
            if not torch.equal(value, halves.weights[name]):
                raise Fault(f"resumed in its middle, a run ends with another '{name}'")
    return ""


@check("engine", advice="leave torch's generator, device and default type alone, or train in a process of your own")
def torch_is_left_alone(subject: Engaged) -> None:
    """After runs of the engine, the Trainer's in the same process has the bits that it had before the first."""
    if subject.first.defaults:
        raise Fault("after a run, torch has other defaults")
    after = subject.model("after", **FIRST).weights
    moved = [name for name, value in subject.first.before.weights.items() if not torch.equal(value, after[name])]
    if moved:
        raise Fault(f"after a run of the engine, one of the Trainer ends with another '{moved[0]}'")


def lively() -> AbstractContextManager[Case]:
    """A case of a model that has dropout."""
    return case_of(load_catalog().recipe("causal-lm"), "gpt2")


def _same_bits(one: Tried, again: Tried) -> None:
    """See that the losses are the same, as far as the shorter of both runs goes."""
    losses, others = one.series("loss"), again.series("loss")
    if losses[: len(others)] != others:
        advice = "draw only from the run's seed, which torch's generator begins with"
        raise Fault(f"with one seed, the losses are {_told(losses)} and then {_told(others)}", advice)


def _same_losses(one: Tried, other: Tried) -> str:
    """See that the losses of all steps are alike; how far they are apart."""
    losses, wanted = one.series("loss"), other.series("loss")
    if len(losses) != len(wanted):
        raise Fault(f"its log has the losses of {len(losses)} steps, and the Trainer's of {len(wanted)}")
    distances = [abs(mine - theirs) / abs(theirs) for mine, theirs in zip(losses, wanted, strict=True)]
    for step, distance in enumerate(distances, 1):
        if not distance <= LOSS:
            raise Fault(f"the loss of step {step} is {losses[step - 1]:.6f}, and the Trainer's {wanted[step - 1]:.6f}")
    return f"losses equal to {max(distances):.1e}"


def _same_way(subject: Engaged, one: Tried, other: Tried, how: str) -> None:
    """See that all weights together have moved alike."""
    names = sorted(subject.start)
    start = vector(subject.start[name] for name in names)
    moved, wanted = (vector(run.weights[name] for name in names) - start for run in (one, other))
    # Where Adam makes a step of full length of what is nothing but rounding, a few weights move by chance.
    most = MOVED if subject.engine.honours("adam_epsilon") else 10 * MOVED
    if (distance := apart(moved, wanted)) > most:
        raise Fault(
            f"{how}, its weights end {distance:.1%} of the way from the Trainer's: they have moved by"
            f" {float(moved.norm()):.4g}, and those by {float(wanted.norm()):.4g}"
        )


def _told(losses: list[float]) -> str:
    return ", ".join(f"{loss:.6f}" for loss in losses)


def _kind(line: dict[str, object]) -> str:
    """What a line of the log tells of."""
    return next((name for name in ("loss", "eval_loss", "train_loss") if name in line), "")
