"""Checks of an extension: that it changes nothing until it is asked, and what it promises when it is."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from lmtasks.api import Extension, Recipe, options_of, resolve
from lmtasks.errors import InputError
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.enabled_plugins import selected
from lmtasks.testing.case import Case
from lmtasks.testing.declaration import require_good_options, require_light_declaration
from lmtasks.testing.plugins import installed
from lmtasks.testing.proof import CHECKS, Fault, Inapplicable, Proof, blamed, check, examine
from lmtasks.testing.set_up import case_of
from lmtasks.training.evaluation import evaluate_model

STEPS = 4
"""Optimiser steps of the runs in these checks."""

CHANCE = "draw from generators of its own, and count in on_step_end what you must; keep state as an ExportableState"


@dataclass(frozen=True)
class Extended:
    """The subject of checks: an extension, and a tiny run for it to be tried on.

    Args:
        options: values other than the defaults, under the names that the extension's dataclass has.
    """

    extension: Extension
    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

    @property
    def title(self) -> str:
        """What is examined, for people."""
        return f"extension {self.extension.name}"

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.case.recipe

    @property
    def asking(self) -> dict[str, Any]:
        """The values with which the extension is asked for something, as ``lmtasks.run`` takes them."""
        return {f"{self.extension.prefix}.{name}": value for name, value in self.options.items()}

    def weights(self, name: str, *, extended: bool = True, **values: Any) -> dict[str, torch.Tensor]:
        """The weights after a few steps of a run in a folder of that name, with the extension installed or not."""
        with installed(extensions=[self.extension]) if extended else selected([], builtins_only=True):
            run = self.case.trained(self.case.folder / name, **{"max_steps": STEPS, **values})
        return load_file(run.output_dir / "model.safetensors")

    @cached_property
    def plain(self) -> dict[str, torch.Tensor]:
        """The weights of a run without the extension."""
        return self.weights("plain", extended=False)


def check_extension(
    extension: Extension,
    *,
    recipe: Recipe | None = None,
    options: Mapping[str, Any] | None = None,
    module: str = "",
    skip: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> Proof:
    """Run every check on an extension, with tiny runs of a recipe.

    Args:
        recipe: for the runs; masked-lm when None.
        options: values with which it is asked for something, by the names of its dataclass.
        module: where the extension is declared, if in no installed plugin.
        skip, only: as for :func:`lmtasks.testing.check_recipe`.

    Returns:
        the outcome of each check.

    Raises:
        CheckFailed: checks failed; the message lists each, with what is wrong and what to do.
        ValueError: ``skip`` or ``only`` names no check.
    """
    known = {name: one for name, one in CHECKS.items() if "extension" in one.subjects}
    with case_of(recipe or load_catalog().recipe("masked-lm")) as case:
        subject = Extended(extension, case, options or {}, module)
        return examine(subject, "extension", known, skip or {}, only).require()


@check("extension", gate=True)
def extension_comes_in(subject: Extended) -> None:
    """It comes in by the door of all plugins: no command of its is built in, no name is there twice."""
    advice = "rename what is there already"
    with blamed("", advice, InputError), installed(extensions=[subject.extension]):
        pass
    if taken := sorted(subject.extension.trackers.keys() & INTEGRATION_TO_CALLBACK.keys()):
        raise Fault(f"transformers has a tracker '{taken[0]}'", advice)
    if unknown := sorted(subject.options.keys() - options_of(subject.extension.options or _NoOptions).keys()):
        raise Fault(f"it has no option '{unknown[0]}'", "give check_extension options of the extension's dataclass")


@dataclass(frozen=True)
class _NoOptions:
    """The options of what has none."""


@check("extension")
def extension_import_is_light(subject: Extended) -> None:
    """Importing the module that declares it imports neither torch nor anything else that takes a second."""
    require_light_declaration("extension", subject.extension.name, subject.module)


@check("extension")
def extension_options_are_documented(subject: Extended) -> None:
    """Every option says what it does in one line, and has a default that it would accept."""
    require_good_options(subject.extension.flags)


@check("extension")
def callbacks_are_new(subject: Extended) -> str:
    """Callbacks and trackers are made anew for each run: what one has counted, another does not begin with."""
    asked = subject.extension.options(**subject.options) if subject.extension.options else None
    advice = "make a new object in each call"
    make_all = subject.extension.callbacks
    made = [(list(make_all(subject.recipe, asked)), list(make_all(subject.recipe, asked)))]
    made += [([make(asked)], [make(asked)]) for make in subject.extension.trackers.values()]
    for one, other in made:
        for callback in one:
            if not isinstance(callback, TrainerCallback):
                raise Fault(f"it makes a {type(callback).__name__}", "make transformers.TrainerCallback objects")
            if any(callback is again for again in other):
                raise Fault(f"two runs would share one {type(callback).__name__}", advice)
    return f"{sum(len(one) for one, _ in made)} made"


@check("extension", advice="let callbacks() give none where its options ask for nothing, and draw nothing")
def installed_changes_nothing(subject: Extended) -> None:
    """A run that does not ask for it gives the same weights, bit for bit, as where it is not installed."""
    moved = _moved(subject.plain, subject.weights("unasked"))
    if moved:
        raise Fault(f"where it is only installed, a run ends with another '{moved}'")


@check("extension")
def trackers_change_nothing(subject: Extended) -> None:
    """A run that reports to its trackers gives the same weights, bit for bit, as one that does not."""
    names = list(subject.extension.trackers)
    if not names:
        raise Inapplicable("it has no tracker")
    if moved := _moved(subject.plain, subject.weights("tracked", report_to=names)):
        raise Fault(f"a run that is tracked ends with another '{moved}'", "look on, and draw nothing")


@check("extension")
def resumed_is_uninterrupted(subject: Extended) -> None:
    """A run that asks for it, resumed from its middle, ends with the same weights, bit for bit."""
    if not subject.options:
        raise Inapplicable("options={...} says how it is asked for something")
    # Of a run that was made longer everything is as in one that had its length from the beginning, but for the rates.
    asking: dict[str, Any] = {**subject.asking, "lr_scheduler_type": "constant", "save_steps": STEPS // 2}
    whole = subject.weights("whole", **asking)
    subject.weights("halves", **asking, max_steps=STEPS // 2)
    again = subject.weights("halves", **asking, resume_from_checkpoint=True)
    if moved := _moved(whole, again):
        raise Fault(f"resumed in its middle, a run ends with another '{moved}'", CHANCE)


@check("extension")
def metrics_are_of_sums(subject: Extended) -> str:
    """The figures of its metrics are numbers of the sums alone: the same in batches of one example and of three."""
    for reference in subject.extension.metrics:
        with blamed(f"{reference} cannot be made: ", "name an evaluate.Metric class"):
            resolve(reference)(keep_in_memory=True)
    case = subject.case
    with installed(extensions=[subject.extension]) as catalog:
        recipe = catalog.watched(case.bound)
        model, examples, collate = case.stirred(), case.dataset(False), case.collate(False)
        ones, threes = (evaluate_model(model, recipe, examples, collate, size) for size in (1, 3))
    mine = [name for name in ones if name.startswith(f"{subject.extension.prefix}_")]
    for name in mine:
        if not math.isfinite(ones[name]):
            raise Fault(f"{name} is {ones[name]}", "give numbers")
        if not math.isclose(ones[name], threes[name], rel_tol=1e-4, abs_tol=1e-6):
            raise Fault(
                f"{name} is {ones[name]} in batches of one example, {threes[name]} in batches of three",
                "make figures of the sums alone",
            )
    if subject.extension.metrics and not mine:
        return f"{case.recipe.name} has no sums for its metrics"
    return f"{len(mine)} figures"


@check("extension", advice="answer --help on stdout, with exit code 0")
def commands_answer_help(subject: Extended) -> str:
    """Each of its commands answers ``--help``."""
    with installed(extensions=[subject.extension]) as catalog:
        for name, command in catalog.commands.items():
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                try:
                    code = command.run(["--help"])
                except SystemExit as end:  # as argparse ends
                    code = int(end.code or 0)
            if code != 0 or not said.getvalue().strip():
                raise Fault(f"lmtasks {name} --help ends with {code} and says {said.getvalue()[:40]!r}")
    return f"{len(subject.extension.commands)} commands"


def _moved(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str:
    """The name of a weight that differs; empty where none does."""
    return next((name for name, weight in one.items() if not torch.equal(weight, other[name])), "")
