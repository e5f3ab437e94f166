"""A plugin: where it comes from, what it brings, and what came of loading it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lmtasks.api import Architecture, Command, Engine, Extension, Format, Launcher, Recipe, WordSegmenter

DECLARED = {
    "recipes": "recipe",
    "architectures": "architecture",
    "engines": "engine",
    "extensions": "extension",
    "formats": "format",
    "launchers": "launcher",
    "word_segmenters": "word segmenter",
}
"""What a plugin may bring, by the field that has it, and what people call one."""

MANY = 8
"""Names in a line for people."""


class BrokenPluginError(Exception):
    """Why a plugin cannot be used, in one line."""


@dataclass
class Plugin:
    """A plugin; it is found first, and the second half is filled in while it is loaded.

    Args:
        distribution: the package; for others the name of the module or the path of the file.
        module: what is imported.
        get: imports it.
        kind: how it came in: by an installed package, or as a module or file that somebody named.
        recipes, architectures, engines, extensions, formats, launchers, word_segmenters: what it brings, by name;
            nothing when it cannot be used.
        broken: why it cannot be used.
        claims: names of recipes, also of those that turned out to be unusable.
        taken: for each recipe that its plain name does not reach, why.
        slow: why it was not imported by a command that only tells.
        skipped: what says that it does not count.
    """

    distribution: str
    version: str
    entry_point: str
    module: str = ""
    get: Callable[[], Any] = field(default=lambda: None, repr=False, compare=False)
    kind: Literal["package", "module", "file"] = "package"
    recipes: dict[str, Recipe] = field(default_factory=dict)
    architectures: dict[str, Architecture] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    extensions: dict[str, Extension] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    launchers: dict[str, Launcher] = field(default_factory=dict)
    word_segmenters: dict[str, WordSegmenter] = field(default_factory=dict)
    broken: str = ""
    claims: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    slow: str = ""
    skipped: str = ""

    @property
    def name(self) -> str:
        """``distribution:entry-point``, or the module or the file."""
        return f"{self.distribution}:{self.entry_point}" if self.kind == "package" else self.distribution

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def brings(self) -> list[str]:
        """The names of all that it declares."""
        return [name for kind in DECLARED for name in getattr(self, kind)]

    @property
    def commands(self) -> dict[str, Command]:
        """The subcommands of its extensions, by name."""
        return {command.name: command for extension in self.extensions.values() for command in extension.commands}

    @property
    def trackers(self) -> dict[str, str]:
        """The trackers of its extensions, each with the extension that has it."""
        return {name: extension.name for extension in self.extensions.values() for name in extension.trackers}

    @property
    def prefixes(self) -> dict[str, str]:
        """What stands before the options of its engines, extensions and launchers, each with whose it is."""
        owners: list[Engine | Extension | Launcher] = [
            *self.engines.values(), *self.extensions.values(), *self.launchers.values()
        ]  # fmt: skip
        return {one.prefix: f"{type(one).__name__.lower()} '{one.name}'" for one in owners}

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong with it, each in one line."""
        return (self.broken, *self.taken) if self.broken else self.taken

    @property
    def state(self) -> str:
        """The outcome of loading it, for people."""
        if self.broken:
            return f"BROKEN: {self.broken}"
        if self.slow:
            return f"SLOW: {self.slow}"
        if self.skipped:
            return f"not loaded: {self.skipped}"
        names = self.brings
        more = [f"and {len(names) - MANY} more"] if len(names) > MANY else []
        brings = ", ".join([*names[:MANY], *more]) or "nothing"
        return "; ".join([brings, *(f"BROKEN: {reason}" for reason in self.taken)])

    @property
    def origin(self) -> dict[str, str]:
        """The place by which ``run.json`` finds the recipe again."""
        if self.kind == "package":
            return {"package": self.distribution, "version": self.version}
        return {self.kind: self.distribution}

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        own = {name: value for name, value in vars(self).items() if name != "get"}
        told = {"name": self.name, "title": self.title, "state": self.state, "problems": self.problems}
        commands = [{"name": one.name, "takes": one.takes, "summary": one.summary} for one in self.commands.values()]
        listed = {
            kind: [{"name": one.name, "summary": one.summary} for one in getattr(self, kind).values()]
            for kind in ("engines", "launchers")
        }
        names = {name: [*own[name]] for name in DECLARED}
        return {**told, **own, **names, "commands": commands, **listed}
