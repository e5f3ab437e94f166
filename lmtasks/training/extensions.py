"""What extensions add to a training: callbacks, and trackers for ``--report_to``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK

from lmtasks.api import Extension
from lmtasks.artifacts.redact import redacted
from lmtasks.config.request import Request, as_record
from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import PluginError
from lmtasks.registry.faults import blamed
from lmtasks.training.early_stopping import CallbacksEnd
from lmtasks.training.trackers import Tracker


def arguments_for(request: Request, folder: Path, steps: int) -> TrainingArguments:
    """The Trainer's arguments for a request, without the trackers of extensions, of which it knows nothing.

    Raises:
        InputError: values that do not go together.
        PluginError: a tracker is asked for by a name that an extension and transformers have.
    """
    own, reported = _trackers(request), _reported(request)
    for name in own.keys() & INTEGRATION_TO_CALLBACK.keys() & set(reported):
        told = f"extension '{own[name][0].name}' has a tracker '{name}', which is the name of one of transformers"
        raise PluginError(told, "--no_plugins does without; tell the authors of the extension")
    asked = [name for name in reported if name not in own]
    return training_arguments({**request.training, "report_to": asked or "none"}, folder, steps, own)


def callbacks_of(request: Request) -> tuple[TrainerCallback, ...]:
    """The callbacks of a request: new ones of the extensions and of their trackers that it reports to; a program's own.

    Raises:
        PluginError: making one failed, or made something else.
    """
    made = []
    for extension in request.recipe.extensions:
        options = request.extensions.get(extension.name)
        made += [_watched(extension, one) for one in extension.callbacks(request.recipe, options)]
    own = _trackers(request)
    for name in _reported(request):
        if name in own:
            extension, make = own[name]
            made.append(_watched(extension, make(request.extensions.get(extension.name))))
    theirs = request.hooks.callbacks
    return (*made, *theirs, *([CallbacksEnd()] if theirs else []))


def trackers_of(request: Request, arguments: TrainingArguments) -> tuple[TrainerCallback, ...]:
    """New trackers of transformers that the arguments ask for, which know the options of the run."""
    kept = as_record(request)
    told = redacted({name: kept[name] for name in ("recipe", "options", "settings", "extensions") if name in kept})
    return tuple(Tracker(name, told) for name in arguments.report_to)


def _trackers(request: Request) -> dict[str, tuple[Extension, Callable[[Any], TrainerCallback]]]:
    """The trackers of extensions by name, each with its extension."""
    return {name: (one, make) for one in request.recipe.extensions for name, make in one.trackers.items()}


def _reported(request: Request) -> list[str]:
    """The names behind ``--report_to``."""
    asked = request.training["report_to"]
    return [asked] if isinstance(asked, str) else list(asked)


def _watched(extension: Extension, callback: TrainerCallback) -> TrainerCallback:
    """The callback, of which faults are told in each event, and which knows whether it ended training.

    It stays the object that it is, in a class of its own, because the Trainer looks at classes: at the state that a
    callback keeps in checkpoints, and whether it has two of one.
    """
    if not isinstance(callback, TrainerCallback):
        raise PluginError(
            f"extension '{extension.name}' makes a {type(callback).__name__}, which is no TrainerCallback",
            "--no_plugins does without; tell its authors",
        )
    kind = type(callback)
    events = {name: _event(extension, getattr(kind, name)) for name in dir(kind) if name.startswith("on_")}
    own = {"__module__": kind.__module__, "ended_training": False}
    callback.__class__ = type(kind.__name__, (kind,), {**own, **events})
    return callback


def _event(extension: Extension, function: Callable[..., Any]) -> Callable[..., Any]:
    def event(self: Any, args: Any, state: Any, control: Any, **named: Any) -> Any:
        stopping = control.should_training_stop
        with blamed(extension, "callbacks", function):
            result = function(self, args, state, control, **named)
        if (result or control).should_training_stop and not stopping:
            self.ended_training = True
        return result

    return event
