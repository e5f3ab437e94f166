"""The report of a run: how large it is, how long it takes, and what it would fetch from elsewhere.

    python benchmarks/report.py [--max_steps 20]      both runs that need no arguments, or that many steps of them

The time is that of what a run does for its report when all is imported: read the held-out text, and write page and
curve. The browser tests watch a real browser open it; here the page is only looked through for addresses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from measuring import print_table, quiet_place

import lmtasks
from lmtasks.artifacts.run_folder import REPORT
from lmtasks.runs import results

RECIPES = ("masked-lm", "causal-lm")

WANTED = {"MB": 5.0, "seconds": 5.0, "addresses": 0}
"""Less than this of each, and no address."""

FETCHED = ("src", "srcset", "data", "poster", "background")
"""Attributes whose address a browser goes to by itself; that of a link (``href``) it does for ``<link>``."""


class Addresses(HTMLParser):
    """What a browser would fetch to show a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.found += [part.split(")")[0] for part in page.split("url(")[1:]]
        self.found += ["@import"] * page.count("@import")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up the addresses of an element."""
        names = (*FETCHED, "href") if tag == "link" else FETCHED
        self.found += [value for name, value in attrs if name in names and value and not value.startswith("data:")]


class Timed:
    """Seconds that some functions of a module took, together."""

    def __init__(self, module: Any, *names: str) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(module, name, self.timed(getattr(module, name)))

    def timed(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is counted."""

        def run(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*given, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return run


def measured(recipe: str, place: Path, **values: Any) -> dict[str, float]:
    """Megabytes, seconds and addresses of the report of one run."""
    before = clock.seconds
    lmtasks.run(recipe, output_dir=place / recipe, **values)
    path = place / recipe / REPORT
    page = path.read_text(encoding="utf-8")
    took = clock.seconds - before
    return {"MB": path.stat().st_size / 1e6, "seconds": took, "addresses": len(Addresses(page).found)}


clock = Timed(results, "read_held_out", "write_reading", "write_page", "write_curve")


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, help="of each run; as many as it has by itself when not given")
    steps = parser.parse_args(words).max_steps
    values = {} if steps is None else {"max_steps": steps}
    with quiet_place() as place:
        found = {recipe: measured(recipe, place, **values) for recipe in RECIPES}
    rows = [
        [f"lmtasks run {recipe}", f"{one['MB']:.2f}", f"{one['seconds']:.2f}", f"{one['addresses']:.0f}"]
        for recipe, one in found.items()
    ]
    limits = ["wanted", *(f"< {WANTED[name]:g}" for name in ("MB", "seconds")), "0"]
    print_table("The report of a run", ("run", "MB", "s", "addresses"), [*rows, limits])


if __name__ == "__main__":
    main()
