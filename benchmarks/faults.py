"""Reliability as figures: runs killed, interrupted and damaged, and what became of them.

    python benchmarks/faults.py [--only kills] [--count 20] [--jobs 2] [--seed 0] [--write]

Each row of the table is measured now, with tiny runs in processes of their own: no network, no GPU. Progress goes to
stderr, the table to stdout, and below it each try that did not come out as promised, with the command that repeats it.
The exit code is 1 where there is one. ``--write`` puts the rows into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import import_module, metadata
from pathlib import Path

# Before torch and transformers, which read these once. One thread, because the order of a sum is part of its result.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from reliability.tries import Setting, Tried

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability: begin -->", "<!-- reliability: end -->"
HEADER = ("what", "tried", "as promised", "how")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        how: what is done and what is promised, for its last cell.
        measure: does it.
    """

    how: str
    measure: Callable[[Setting], Tried]


def kills(setting: Setting) -> Tried:
    from reliability.kills import measure

    load()
    return measure(setting)


def kills_in_two_processes(setting: Setting) -> Tried:
    from reliability.kills import measure

    load()
    return measure(setting, processes=2)


def signals(setting: Setting) -> Tried:
    from reliability.signals import measure

    load()
    return measure(setting)


def damage(setting: Setting) -> Tried:
    from reliability.damage import measure

    load()
    return measure(setting)


def environment(setting: Setting) -> Tried:
    from reliability.environment import measure

    found: list[tuple[str, str, bool]] = measure(setting.folder)
    rows = [line(what, happened, "yes" if right else "**no**") for what, happened, right in found]
    wrong = [f"environment: {what}: {happened}" for what, happened, right in found if not right]
    return Tried(len(found), wrong, [line("fault", "what happens", "as promised"), "|---|---|---|", *rows])


def bad_inputs(setting: Setting) -> Tried:
    from reliability.bad_inputs import measure

    tried, failures = measure(setting.folder, setting.count)
    return Tried(tried, [f"bad inputs: {failure}" for failure in failures])


def secrets(setting: Setting) -> Tried:
    from reliability.secrets import measure

    files, found, where = measure(setting.folder)
    return Tried(files, [f"secrets: {place}" for place in where], [f"{found} secrets in {files} files."])


ROWS = {
    "kills": Row(
        "SIGKILL at random instants of every stage, up to three times, then the same command; equal to the undisturbed"
        " run: weights, results, checkpoints, log, and nothing left over",
        kills,
    ),
    "kills in 2 processes": Row(
        "the same, training in two processes: both killed at once, or one and then the other as a launcher does",
        kills_in_two_processes,
    ),
    "signals": Row(
        "SIGTERM and SIGINT in every stage, publishing included, some of them twice: exit code 143 or 130, no"
        " traceback, then the same command; equal to the undisturbed run",
        signals,
    ),
    "damage": Row(
        "every file of a newest checkpoint, of an unfinished and of a finished run: truncated, emptied, deleted, a bit"
        " flipped; then resumed, used, evaluated, published: recovered to the last bit, or one clear error",
        damage,
    ),
    "environment": Row(
        "faults of disk, memory and permissions, and runs at the same time: nothing lost, and told right", environment
    ),
    "bad inputs": Row(
        "flags, YAML, data, models and calls that cannot be right: exit code 2, one error, one hint, nothing written",
        bad_inputs,
    ),
    "secrets": Row(
        "files that runs, failures and publishing write, searched for tokens and the user's name and paths", secrets
    ),
}
"""What is measured, by the first cell of its row."""


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def row_of(name: str, row: Row, tried: Tried) -> str:
    right = tried.tried - len(tried.failures)
    return line(name, str(tried.tried), str(right) if right == tried.tried else f"**{right}**", row.how)


def versions() -> str:
    names = ("lmtasks", "transformers", "accelerate", "datasets", "torch")
    return ", ".join([*(f"{name} {metadata.version(name)}" for name in names), f"Python {platform.python_version()}"])


def write(page: Path, rows: Mapping[str, str]) -> None:
    """Put rows that were measured in the place of the page's own."""
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN), text.index(END)
    table = text[begin:end]
    table = re.sub(r"^Measured .*$", f"Measured on {date.today()} with {versions()}.", table, flags=re.MULTILINE)
    for name, row in rows.items():
        table = re.sub(rf"^\| {re.escape(name)} \|.*$", lambda _, row=row: row, table, flags=re.MULTILINE)
    page.write_text(text[:begin] + table + text[end:], encoding="utf-8")


def load() -> None:
    """Import all that a command needs, here and once, so that the processes of tries begin with it."""
    for name in ("lmtasks.cli", "lmtasks.cli.run", "lmtasks.cli.predict", "lmtasks.cli.evaluate", "lmtasks.cli.push"):
        import_module(name)
    for name in ("lmtasks.runs.runner", "lmtasks.inference.pipelines", "lmtasks.runs.standalone_evaluation"):
        import_module(name)
    for kind in ("bert", "roberta", "gpt2", "llama"):
        import_module(f"transformers.models.{kind}.modeling_{kind}")


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def main(words: Sequence[str] | None = None, rows: Mapping[str, Row] = ROWS, page: Path = PAGE) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(rows), help="measure this row; may be repeated")
    parser.add_argument("--count", type=positive, help="tries of each row, instead of as many as it has")
    parser.add_argument("--seed", type=int, default=0, help="another one aims at other instants")
    parser.add_argument("--jobs", type=positive, default=1, help="tries side by side")
    parser.add_argument("--try", type=int, dest="number", metavar="N", help="repeat this try alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what failed tries leave")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/reliability.md")
    chosen = parser.parse_args(words)
    if chosen.number is not None and len(chosen.only or ()) != 1:
        parser.error("--try is the number of a try in one row: add --only")
    failures: list[str] = []
    details: list[str] = []
    done: dict[str, str] = {}
    print(line(*HEADER), "|---" * len(HEADER) + "|", sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="lmtasks-faults-") as place:
        setting = Setting(Path(place), chosen.seed, chosen.jobs, chosen.count, chosen.number, chosen.keep)
        for name in dict.fromkeys(chosen.only or rows):
            folder = setting.folder / name.replace(" ", "-")
            folder.mkdir()
            try:
                tried = rows[name].measure(replace(setting, folder=folder))
            except RuntimeError as error:  # already an undisturbed run is not right
                tried = Tried(1, [f"{name}: {error}"])
            done[name] = row_of(name, rows[name], tried)
            failures += tried.failures
            details += [f"\n{name}:\n", *tried.detail] if tried.detail else []
            print(done[name], flush=True)
    print(*details, sep="\n", end="\n" if details else "")
    if failures:
        print("\nNot as promised:\n", *(f"- {failure}" for failure in failures), sep="\n")
    elif chosen.write:
        write(page, done)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
