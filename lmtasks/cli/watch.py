"""``lmtasks watch``: follow a run from another terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from lmtasks.cli.answers import figure_lines, tell
from lmtasks.cli.parser import Parser
from lmtasks.errors import InputError, RunError
from lmtasks.progress import fitted


def command(words: list[str]) -> int:
    """Print what a run logs until it ends, and end as it does."""
    parser = Parser(
        prog="lmtasks watch",
        usage="lmtasks watch RUN [flags]",
        description="What a run logs, as it comes, until it ends; then its figures, and its exit code. Ctrl-C ends the"
        " watching, not the run.",
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="the folder of a run, here or on a shared disk")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="between two looks (default: 1)")
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="without a word, after which a run on another machine's disk counts as dead (default: 600)",
    )
    typed = parser.read_all(words, plugins=False)
    if "run" not in typed:
        raise InputError("watch needs a run", "lmtasks watch RUN")
    for name in ("interval", "patience"):
        if not 0 < typed[name] < 1e9:
            raise InputError(f"--{name} is {typed[name]:g}", "seconds, more than 0")
    from lmtasks.artifacts.log import entry_lines
    from lmtasks.artifacts.run_folder import read_record
    from lmtasks.artifacts.watching import End, steps_of, watch

    folder, as_json, last, end = Path(typed["run"]), "json" in typed, 0, End(0)
    try:
        for news in watch(folder, typed["interval"], typed["patience"]):
            if isinstance(news, End):
                end = news
                break
            last = news["step"]
            for line in () if as_json else entry_lines(news, steps_of(read_record(folder) or {})):
                print(line, flush=True)
    except KeyboardInterrupt as stop:
        if type(stop) is KeyboardInterrupt:
            print("no longer watched; the run goes on", file=sys.stderr)
        raise
    if end.code:
        error = RunError(f"the run in '{folder}' has ended: {end.reason}", end.hint)
        error.exit_code = end.code
        raise error
    record = read_record(folder) or {}
    figures = {name: value for name, value in (record.get("metrics") or {}).items() if isinstance(value, int | float)}
    lines = figure_lines(figures, record.get("perplexity_label", "perplexity")) if "eval_loss" in figures else []
    return tell(
        {"status": "done", "step": last, "metrics": figures},
        [*fitted(lines, sys.stdout), f"done: {folder}"],
        as_json=as_json,
    )
