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
from lmtasks.models.replaced import replaced
from lmtasks.runs import results

RECIPES = ("masked-lm", "causal-lm")

WANTED = ("wanted", "< 5", "< 5", "0")
"""The last row: less than this of each, and no address."""

PARTS = ("read_held_out", "write_reading", "write_page", "write_curve")
"""What a run does for its report, of the functions that write its results."""

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


class Clock:
    """Seconds that some functions took, together."""

    seconds = 0.0

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
    clock = Clock()
    with replaced(*((results, name, clock.timed(getattr(results, name))) for name in PARTS)):
        lmtasks.run(recipe, output_dir=place / recipe, **values)
    path = place / recipe / REPORT
    found = Addresses(path.read_text(encoding="utf-8")).found
    return {"MB": path.stat().st_size / 1e6, "seconds": clock.seconds, "addresses": len(found)}


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
    print_table("The report of a run", ("run", "MB", "s", "addresses"), [*rows, WANTED])


if __name__ == "__main__":
    main()
