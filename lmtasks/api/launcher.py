"""A launcher: what starts a command in several processes, on this machine or on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lmtasks.api.extension import require_name
from lmtasks.api.options import UnderItsName, options_of
from lmtasks.api.references import Reference, defer
from lmtasks.api.version import API_VERSION

FINAL = (0, 2, 130, 143)
"""Exit codes after which starting again would change nothing, or is not wanted: done, bad input, stopped."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command for several processes, whose flags and values have been checked.

    The words are as they were typed, and relative paths in them are of ``cwd``: what a run records of its options
    must not depend on who started it, or the same command could not go on with it in one process. A launcher
    therefore starts every process in ``cwd``, as :func:`lmtasks.worker` does.

    Args:
        command: the words behind ``lmtasks``, without the flags that are about launching.
        cwd: folder in which they were typed, absolute.
        processes: of each node.
        nodes: machines.
        folder: of the run, absolute; None where the command chooses one, or has none.
        files: files and folders of this machine that the words name, absolute: a launcher whose processes do not see
            them brings them, or refuses.
        variables: names of environment variables that mean something to the command and are set here.
        secrets: names of those that nobody may see. A job never has their values.
        values: what is asked for, by name, from words and config.
        restarts: whether another attempt goes on with what an earlier one left.
        mark: of this job alone: a process that has it in ``LMTASKS_JOB`` goes on with the run of an earlier attempt.
    """

    command: tuple[str, ...]
    cwd: Path
    processes: int = 1
    nodes: int = 1
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    variables: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    restarts: bool = True
    mark: str = ""

    @property
    def size(self) -> int:
        """All processes, on all nodes."""
        return self.processes * self.nodes

    def may_go_on(self, code: int) -> bool:
        """Whether another attempt may come further than one that ended with this exit code."""
        return self.restarts and code not in FINAL


class Handle(Protocol):
    """A job that has been submitted."""

    def wait(self) -> int:
        """The exit code of the command, once all processes have ended.

        Called in the main thread; again where Ctrl-C or SIGTERM interrupted it, and :meth:`cancel` was called then.
        """
        ...

    def cancel(self) -> None:
        """Let the processes stop as after SIGTERM, with a checkpoint; may be called from any thread, and again."""
        ...

    def logs(self) -> str:
        """What the processes have written so far; empty where it went to this process's own stdout and stderr."""
        ...


@dataclass(frozen=True, kw_only=True)
class Launcher(UnderItsName):
    """What starts processes for a command: ``lmtasks run ... --launcher NAME --num_processes 8 --num_nodes 2``.

    Args:
        name: lower case, digits and hyphens.
        summary: one sentence for people.
        options: dataclass made with :func:`lmtasks.option`; the field ``max_restarts`` of the launcher ``torchrun`` is
            ``--torchrun.max_restarts``. None: it has none.
        check: (job, options), refuses with :class:`lmtasks.InputError` what cannot be launched here, before anything
            is submitted or written. May be given as ``"module:function"``.
        submit: (job, options) to a :class:`Handle`. The same.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a name or a reference of the wrong shape.
        TypeError: options that are no dataclass of :func:`lmtasks.option` fields.
    """

    name: str
    summary: str
    submit: Callable[[Job, Any], Handle] | Reference
    check: Callable[[Job, Any], None] | Reference = lambda job, options: None
    options: type | None = None
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        require_name("launcher", self.name)
        defer(self, f"launcher '{self.name}'", "check", "submit")
        if self.options is not None:
            options_of(self.options)
