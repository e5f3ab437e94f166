"""The launcher that everybody has: torch's own."""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks import Launcher, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class TorchrunOptions:
    """Options of torchrun, under its own names."""

    max_restarts: int = option(0, help="times that a run which failed is started again, and goes on", ge=0, le=1000)
    rdzv_endpoint: str | None = option(None, help="on several machines, HOST:PORT where they find each other")
    rdzv_id: str = option("lmtasks", help="name of the run at that place, the same on all machines")
    rdzv_timeout: int = option(600, help="seconds that a machine waits for the others", ge=1)
    local_addr: str | None = option(None, help="on several machines, address of this one, where its name leads nowhere")


TORCHRUN = Launcher(
    name="torchrun",
    summary="Processes of this machine, or of several that each run the command.",
    options=TorchrunOptions,
    check="lmtasks.launchers.torchrun:check",
    submit="lmtasks.launchers.torchrun:submit",
)


@hookimpl
def lmtasks_launchers() -> list[Launcher]:
    """The launchers of this module."""
    return [TORCHRUN]
