"""Faults in the code of a plugin, told with the recipe, the package and the stage in which they came.

What is ours keeps its traceback, and so does what a model's own code raises: the runner explains these where it can.
"""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lmtasks.api import (
    BATCH,
    CALLBACKS,
    EXIT_CODE,
    RETURNS,
    Command,
    Engine,
    Extension,
    Format,
    Launcher,
    Reading,
    Recipe,
    Return,
    kind,
)
from lmtasks.api.references import Deferred, resolve
from lmtasks.errors import LmtasksError, PluginError, first_line, nearest
from lmtasks.registry.plugin import Plugin

STAGES = (
    "preprocess",
    "collator",
    "loss",
    "new_processor",
    "targets",
    "prepare_model",
    "save",
    "load",
    "before_step",
    "views",
    "perplexity_name",
    "prompt",
    "answers",
)
"""The fields of a recipe that are functions."""

NONE: Mapping[str, Engine] = {}

PASSED_ON = {"load": FileNotFoundError, "read": ValueError}
"""Errors by which a stage says something: that there is nothing to load, and what is wrong with a file."""

_END = object()
"""What no reader gives."""

_MODEL = "_call_impl"
"""The function of ``torch.nn.Module`` through which every model is called."""


Watchable = TypeVar("Watchable", Launcher, Engine)


@dataclass(frozen=True)
class Owner:
    """Whose code it is.

    Args:
        title: recipe and package, for people.
        package: whose authors to tell; empty for a file or module of the user's own.
        root: the folder of the package, or the file of the module.
    """

    title: str
    package: str
    root: Path

    @property
    def tell(self) -> str:
        """Whom to tell, as the end of a hint."""
        return f"; tell the authors of {self.package}" if self.package else ""


@dataclass(frozen=True)
class Watched:
    """A function of a plugin. What it raises says whose it is; so does what the function that it makes raises.

    Args:
        returns: what its result should be, where that is known.
        makes: whether its result is a function, too.
    """

    __wrapped__: Callable[..., Any]
    stage: str
    owner: Owner
    returns: Return | None = None
    makes: bool = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The function's result.

        Raises:
            PluginError: an error that is none of lmtasks' own, or a result that is not what it should be.
        """
        with _told(self.stage, self.owner):
            result = self.__wrapped__(*arguments, **named)
        if self.returns and (wrong := self.returns.wrong(result)):
            where = _declared(self.__wrapped__, self.owner)
            raise PluginError(f"{self.owner.title} failed in its {self.stage}: {wrong}{where}", self.returns.advice)
        return Watched(result, self.stage, self.owner, BATCH) if self.makes else result


@dataclass(frozen=True)
class WatchedReader:
    """The reader of a plugin's format. What it raises while it reads is its fault, but for a ValueError: the file's."""

    __wrapped__: Callable[..., Iterator[Any]]
    owner: Owner

    def __call__(self, path: Path, reading: Reading) -> Iterator[Any]:
        """The rows.

        Raises:
            PluginError: an error that is none of lmtasks' own, or what is no row.
        """
        rows = None
        while True:
            with _told("read", self.owner):
                rows = iter(self.__wrapped__(path, reading)) if rows is None else rows
                row = next(rows, _END)
                if row is _END:
                    return
                if not isinstance(row, str | Mapping) and not hasattr(row, "column_names"):
                    raise TypeError(f"a row is {kind(row)}, no text, mapping or Arrow table")
            yield row


def watched(
    recipe: Recipe, plugin: Plugin | None, extensions: Sequence[Extension] = (), engines: Mapping[str, Engine] = NONE
) -> Recipe:
    """The recipe with these extensions and engines, whose faults are told as those of this plugin; None: nobody's."""
    seen = copy.copy(recipe)
    object.__setattr__(seen, "_declared", recipe)
    object.__setattr__(seen, "extensions", tuple(extensions))
    object.__setattr__(seen, "engines", engines)
    if plugin is not None:
        owner = _owner_of(plugin, f"recipe '{recipe.name}'")
        object.__setattr__(seen, "_owner", owner)
        for stage in STAGES:
            function = getattr(recipe, stage)
            if function is not None and not ours(function):
                object.__setattr__(
                    seen, stage, Watched(function, stage, owner, RETURNS.get(stage), stage == "collator")
                )
    return seen


def unwatched(recipe: Recipe) -> Recipe:
    """The recipe as its plugin declared it."""
    original: Recipe = getattr(recipe, "_declared", recipe)
    return original


def watched_extension(extension: Extension, plugin: Plugin) -> Extension:
    """The extension, of which faults are told as those of this plugin, in each event of its callbacks, too."""
    seen, owner = copy.copy(extension), _owner_of(plugin, f"extension '{extension.name}'")
    object.__setattr__(seen, "_owner", owner)
    object.__setattr__(seen, "callbacks", Watched(extension.callbacks, "callbacks", owner, CALLBACKS))
    trackers = {name: Watched(make, f"tracker '{name}'", owner) for name, make in extension.trackers.items()}
    object.__setattr__(seen, "trackers", trackers)
    return seen


def watched_command(command: Command, extension: Extension, plugin: Plugin) -> Command:
    """The subcommand, of which faults are told as those of this plugin."""
    seen, stage = copy.copy(command), f"command '{command.name}'"
    owner = _owner_of(plugin, f"extension '{extension.name}'")
    object.__setattr__(seen, "run", Watched(command.run, stage, owner, EXIT_CODE))
    return seen


def watched_format(format: Format, plugin: Plugin) -> Format:
    """The format, of which faults are told as those of this plugin."""
    if ours(format.read):
        return format
    seen = copy.copy(format)
    object.__setattr__(seen, "read", WatchedReader(format.read, _owner_of(plugin, f"format '{format.name}'")))
    return seen


def watched_launcher(launcher: Launcher, plugin: Plugin) -> Launcher:
    """The launcher, of which faults are told as those of this plugin."""
    return _watched(launcher, plugin, f"launcher '{launcher.name}'", ("check", "submit"))


def watched_engine(engine: Engine, plugin: Plugin) -> Engine:
    """The engine, of which faults are told as those of this plugin."""
    return _watched(engine, plugin, f"engine '{engine.name}'", ("check", "train"))


def _watched(declaration: Watchable, plugin: Plugin, title: str, stages: Sequence[str]) -> Watchable:
    seen, owner = copy.copy(declaration), _owner_of(plugin, title)
    object.__setattr__(seen, "_owner", owner)
    for stage in stages:
        object.__setattr__(seen, stage, Watched(getattr(declaration, stage), stage, owner))
    return seen


def _owner_of(plugin: Plugin, what: str) -> Owner:
    module = sys.modules.get(plugin.module)
    file = Path(getattr(module, "__file__", None) or plugin.distribution)
    root = file.parent if file.stem == "__init__" else file
    return Owner(f"{what} of {plugin.title}", plugin.distribution if plugin.kind == "package" else "", root)


@contextmanager
def blamed(declaration: Recipe | Engine | Extension | Launcher, stage: str, code: Any) -> Iterator[None]:
    """While this is open, what goes wrong is a fault of the plugin that declared it, if the code is its own.

    Args:
        code: function, class, or the name of one as a declaration has it; None: the plugin's own in any case.

    Raises:
        PluginError: an error that is none of lmtasks' own.
    """
    owner = getattr(declaration, "_owner", None)
    if owner is None or ours(code):
        yield
        return
    with _told(stage, owner):
        yield


@contextmanager
def _told(stage: str, owner: Owner) -> Iterator[None]:
    try:
        yield
    except (LmtasksError, PASSED_ON.get(stage, LmtasksError)):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if any(frame.name == _MODEL for frame in frames):
            raise
        raise PluginError(
            f"{owner.title} failed in its {stage}: {type(error).__name__}: {first_line(error)}{_place(frames, owner)}",
            f"the same command with --traceback shows where{owner.tell}",
        ) from error


def require_references(recipe: Recipe, *fields: str) -> None:
    """Refuse a recipe that names what is not there, or cannot be imported, before somebody stumbles over it.

    Args:
        fields: those in which it names classes, by ``"module:Class"``, or a task of ``transformers.pipeline``;
            functions so named are looked at in any case.

    Raises:
        PluginError: that is so.
    """
    named = {field: getattr(recipe, field) for field in fields}
    functions = {stage: inspect.unwrap(getattr(recipe, stage)) for stage in STAGES if getattr(recipe, stage)}
    named |= {stage: function.reference for stage, function in functions.items() if isinstance(function, Deferred)}
    for field, references in named.items():
        for reference in [references] if isinstance(references, str) else references:
            if ":" not in reference:
                _require_task(recipe, field, reference)
                continue
            try:
                resolve(reference)
            except ImportError as error:
                reason = f"cannot be imported: {first_line(error.__cause__ or error)}"
                raise _in_vain(recipe, field, reference, reason) from error


def _require_task(recipe: Recipe, field: str, task: str) -> None:
    from transformers.pipelines import PIPELINE_REGISTRY

    known = PIPELINE_REGISTRY.get_supported_tasks()
    if task not in known:
        raise _in_vain(recipe, field, task, f"is no task of transformers.pipeline{nearest(task, known)}")


def _in_vain(recipe: Recipe, field: str, name: str, why: str) -> PluginError:
    owner = getattr(recipe, "_owner", None) or Owner(f"recipe '{recipe.name}'", "", Path())
    return PluginError(
        f"{owner.title} names '{name}' as its {field}, which {why}",
        f"correct the name, or install what it is in{owner.tell}",
    )


def ours(code: Any) -> bool:
    """Whether a function or class, or what its name says, is of lmtasks itself or of transformers."""
    if isinstance(code, str):
        module = code.partition(":")[0] if ":" in code else "transformers"
    elif isinstance(code, Deferred):
        module = code.reference
    else:
        module = getattr(inspect.unwrap(code), "__module__", "") or ""
    return module.partition(":")[0].split(".")[0] in ("lmtasks", "transformers")


def _place(frames: traceback.StackSummary, owner: Owner) -> str:
    """The last line of the plugin that was reached."""
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(owner.root)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _declared(function: Any, owner: Owner) -> str:
    """Where a function of the plugin begins."""
    function = inspect.unwrap(function)
    function = resolve(function.reference) if isinstance(function, Deferred) else function
    code = getattr(function, "__code__", None)
    if code is None or not Path(code.co_filename).is_relative_to(owner.root):
        return ""
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"
