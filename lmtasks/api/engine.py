"""An engine: a loop that trains a model, in place of the Trainer's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from lmtasks.api.extension import require_name
from lmtasks.api.options import Option, UnderItsName, options_of
from lmtasks.api.references import Reference, defer
from lmtasks.api.version import API_VERSION

DEFAULT_ENGINE = "trainer"
"""The engine of a run that names none."""


@dataclass(frozen=True, kw_only=True)
class Engine(UnderItsName):
    """A loop that trains: ``lmtasks run RECIPE --engine NAME``.

    Recipe, examples, order, masks, divisors and schedule are the core's, and so are log, evaluation, checkpoints and
    the end; the engine makes the steps. See :class:`lmtasks.Training`, which it gets.

    Args:
        name: lower case, digits and hyphens.
        summary: one sentence for people.
        train: (training, options) trains ``training.model`` in place and gives what :meth:`lmtasks.Course.done` gave.
            May be given as ``"module:function"``.
        check: (training, options), refuses with :class:`lmtasks.InputError` what it cannot train, before anything is
            written. What it draws, and what it reads of the training, leaves no trace. The same.
        options: dataclass made with :func:`lmtasks.option`; the field ``backend`` of the engine ``keras`` is
            ``--keras.backend``. An alias is a whole name, and begins with the engine's own: ``keras_backend``. None:
            it has none.
        arguments: names of the ``TrainingArguments`` that it carries out, beside those that the core does for every
            engine (:data:`lmtasks.config.engines.EVERYWHERE`). Any other that somebody sets is refused. None: all.
        resumes: whether it can go on from its checkpoints; if not, none is made, and none is gone on from.
        restores: whether it puts the weights of a checkpoint into the model itself; if not, the core has.
        processes: whether several processes may share a run.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a name, an alias or a reference of the wrong shape.
        TypeError: options that are no dataclass of :func:`lmtasks.option` fields.
    """

    name: str
    summary: str
    train: Callable[[Any, Any], Any] | Reference
    check: Callable[[Any, Any], None] | Reference = lambda training, options: None
    options: type | None = None
    arguments: Collection[str] | None = ()
    resumes: bool = False
    restores: bool = False
    processes: bool = False
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        require_name("engine", self.name)
        defer(self, f"engine '{self.name}'", "train", "check")
        if self.options is None:
            return
        for option in options_of(self.options).values():
            for alias in option.aliases:
                if not alias.startswith(f"{self.prefix}_"):
                    raise ValueError(f"engine '{self.name}': the alias {alias!r} must begin with '{self.prefix}_'")

    @property
    def flags(self) -> dict[str, Option]:
        """Its options under the names that people type: ``keras.backend``, ``keras_backend``."""
        own = options_of(self.options) if self.options else {}
        return {
            option.name: option
            for option in (dataclasses.replace(one.within(self.prefix), aliases=one.aliases) for one in own.values())
        }

    def honours(self, argument: str) -> bool:
        """Whether it carries out a training argument, beside those that every engine does."""
        return self.arguments is None or argument in self.arguments
