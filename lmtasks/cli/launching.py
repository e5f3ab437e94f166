"""The flags by which a command is carried out in processes that a launcher starts: which, how many, and its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmtasks.api import Handle, Launcher, Recipe, convert
from lmtasks.cli.argv import without
from lmtasks.cli.parser import Parser, add_options
from lmtasks.config.launched import job_mark
from lmtasks.config.request import configure, read_yaml
from lmtasks.config.world import World
from lmtasks.errors import InputError, nearest
from lmtasks.progress import hush
from lmtasks.registry.catalog import LAUNCHERS, Catalog
from lmtasks.registry.enabled_plugins import as_flags, current
from lmtasks.registry.faults import blamed

FLAGS = ("launcher", "num_processes", "num_nodes")

DEFAULT = "torchrun"
"""The launcher that ``--num_processes`` alone means."""


def add_launch_flags(parser: Parser, catalog: Catalog) -> None:
    """The flags of launching, those of each launcher in a group of their own."""
    group = parser.add_argument_group("processes")
    group.add_argument("--launcher", metavar="NAME", help=f"what starts them: {', '.join(catalog.launchers)}")
    group.add_argument("--num_processes", metavar="N", help="processes of each machine that share the work")
    group.add_argument("--num_nodes", metavar="N", help="machines")
    for launcher in catalog.launchers.values():
        add_options(parser, f"launcher {launcher.name}", launcher.flags.values())


@dataclass(frozen=True)
class Launch:
    """A launcher, and what it is asked for.

    Args:
        options: of its dataclass; None where it has none.
        flags: the names of all flags that are about launching, for they are no part of the command.
    """

    launcher: Launcher
    options: Any
    processes: int
    nodes: int
    flags: tuple[str, ...]

    def exit_code(
        self, command: str, words: Sequence[str], recipe: Recipe, values: Mapping[str, Any], *, restarts: bool
    ) -> int:
        """The exit code of a command, once all of its processes have ended.

        Args:
            words: behind the command.
            values: what is asked for, without what is about launching.
            restarts: another attempt can go on with what the command leaves.

        Raises:
            InputError: it cannot be launched, or what is asked for is wrong; nothing was started.
        """
        hush()
        typed = {name: value for name, value in values.items() if name != "config"}
        config = values.get("config")
        written = read_yaml(config) if config else {}
        request = configure(recipe, typed, written)
        from lmtasks.launchers.job import job_of

        switches = [option.name for option in self.launcher.flags.values() if option.is_switch]
        job = job_of(
            [command, *without(words, self.flags, switches), *as_flags(current())],
            request,
            processes=self.processes,
            nodes=self.nodes,
            restarts=restarts and not request.output.dry_run,
            values={**written, **typed},
            config=config,
        )
        self.launcher.check(job, self.options)
        return self._waited_for(self.launcher.submit(job, self.options))

    def require_one_process(self, command: str) -> None:
        """Refuse several processes for a command that takes all cores of its machine by itself.

        Raises:
            InputError: that is so.
        """
        if self.processes * self.nodes > 1:
            raise InputError(
                f"{command} is for one process, which takes all cores of its machine, not for"
                f" {self.processes * self.nodes}",
                "leave --num_processes and --num_nodes out; --launcher alone carries it out elsewhere",
            )

    def _waited_for(self, handle: Handle) -> int:
        with blamed(self.launcher, "handle", None):
            try:
                return handle.wait()
            except KeyboardInterrupt:
                print(f"{self.launcher.name}: stopping", file=sys.stderr)
                handle.cancel()
                return handle.wait()


def taken_launch(values: dict[str, Any], catalog: Catalog) -> Launch | None:
    """What the flags say of launching, taken out of them; None where this process is all that is wanted.

    Raises:
        InputError: no such launcher, no such number, another launcher's flags, or a process that was launched itself.
    """
    launchers = catalog.launchers
    own = {flag: launcher for launcher in launchers.values() for flag in launcher.flags}
    typed = {name: values.pop(name) for name in list(values) if name in FLAGS or _prefix(name, launchers)}
    if not typed:
        return None
    launcher = catalog.launcher(typed.get("launcher", DEFAULT))
    options = {name: value for name, value in typed.items() if name not in FLAGS}
    for name in options:
        if (known := name.partition(".")[0].replace("_", "-")) in LAUNCHERS and known not in launchers:
            catalog.launcher(known)
        if name not in own:
            raise InputError(f"unknown option '--{name}'{nearest(name, own)}", "--help shows every option")
        if own[name].name != launcher.name:
            missing = f"--launcher {own[name].name}"
            raise InputError(f"--{name} means nothing without {missing}", f"add {missing}, or leave --{name} out")
    processes, nodes = (_number(name, typed.get(name, "1")) for name in ("num_processes", "num_nodes"))
    if processes == nodes == 1 and typed.keys() <= {"num_processes", "num_nodes"}:
        return None
    if job_mark() or World.current().size > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        flag = next(f"--{name}" for name in (*FLAGS[1:], "launcher", *options) if name in typed)
        raise InputError(f"{flag} starts processes, and this is one of several already", "leave it out")
    flags = launcher.flags
    chosen = {name: convert(flags[name], value) for name, value in options.items()}
    return Launch(launcher, launcher.chosen(chosen), processes, nodes, (*FLAGS, *flags))


def _prefix(name: str, launchers: Mapping[str, Launcher]) -> bool:
    """Whether a name is that of a launcher's option, or would be of one that it had."""
    prefix, separator, _ = name.partition(".")
    return bool(separator) and prefix.replace("_", "-") in {*LAUNCHERS, *launchers}


def _number(name: str, text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,3}", text):
        raise InputError(f"--{name} cannot be '{text}': it must be a whole number at least 1", f"--{name} 2")
    return int(text)
