"""An extension: something for every recipe, from a package that declares no task of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmtasks.api.options import UnderItsName, options_of
from lmtasks.api.references import Reference, defer, deferred, require_reference
from lmtasks.api.version import API_VERSION

if TYPE_CHECKING:
    from transformers import TrainerCallback

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""The names of extensions, of their commands and of launchers; a tracker's may be any of these, too."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand: ``lmtasks NAME ...``. The function may be given as ``"module:function"``.

    Args:
        name: what people type after ``lmtasks``; lower case, digits and hyphens.
        summary: what it does, in a few words, for ``lmtasks --help``.
        run: the words behind the name to the exit code. ``-`` in flags has become ``_``. It prints results to stdout
            and all else to stderr, answers ``--help``, and raises :class:`lmtasks.InputError` for bad input.
        takes: what may stand behind the name, as ``"RUN [flags]"``.

    Raises:
        ValueError: a name or a reference of the wrong shape.
    """

    name: str
    summary: str
    run: Callable[[list[str]], int] | Reference
    takes: str = ""

    def __post_init__(self) -> None:
        require_name("command", self.name)
        defer(self, f"command '{self.name}'", "run")


@dataclass(frozen=True, kw_only=True)
class Extension(UnderItsName):
    """Options, callbacks, metrics, trackers and commands for every recipe.

    All of it bears the extension's name, so that nothing of two packages can have one name: the option ``rate`` of
    the extension ``early-lr`` is ``--early_lr.rate``, a figure ``gain`` of its metrics ``early_lr_gain``. An
    extension that is installed and not asked for must change nothing: its callbacks see to that by its options.

    Args:
        name: lower case, digits and hyphens.
        summary: one sentence for people.
        options: dataclass made with :func:`lmtasks.option`, for ``lmtasks run``; None: it has none.
        callbacks: (recipe, options) to new ``transformers.TrainerCallback`` objects for one run; none where the
            options ask for nothing. One that sets ``control.should_training_stop`` ends a run early, and the run is
            finished then. May be given as ``"module:function"``, as all functions here.
        metrics: ``"module:Class"`` of further ``evaluate.Metric`` classes, as a recipe has them. One whose features
            a recipe's loss has no sums for is left out of that recipe's evaluations.
        trackers: name for ``--report_to`` to a function, options to a new ``transformers.TrainerCallback``.
        commands: subcommands.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a name or a reference of the wrong shape.
        TypeError: options that are no dataclass of :func:`lmtasks.option` fields.
    """

    name: str
    summary: str
    options: type | None = None
    callbacks: Callable[[Any, Any], Sequence[TrainerCallback]] | Reference = lambda recipe, options: ()
    metrics: Sequence[str] = ()
    trackers: Mapping[str, Callable[[Any], TrainerCallback] | Reference] = field(default_factory=dict)
    commands: Sequence[Command] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        require_name("extension", self.name)
        title = f"extension '{self.name}'"
        for reference in self.metrics:
            require_reference(title, reference)
        defer(self, title, "callbacks")
        for tracker in self.trackers:
            require_name("tracker", tracker)
        object.__setattr__(self, "trackers", {name: deferred(title, make) for name, make in self.trackers.items()})
        if self.options is not None:
            options_of(self.options)


def require_name(kind: str, name: str) -> None:
    """Refuse a name that cannot stand on a command line.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r} must be lower case letters, digits and single hyphens")
