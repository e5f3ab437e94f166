"""``lmtasks report``: a page about one run or several."""

from __future__ import annotations

from pathlib import Path

from lmtasks.cli.answers import tell
from lmtasks.cli.parser import Parser


def command(words: list[str]) -> int:
    """Write the page, and print where it is."""
    parser = Parser(
        prog="lmtasks report",
        usage="lmtasks report RUN... [--output FILE]",
        description="One HTML page about a run, or about several beside each other; it needs no network.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders, finished or not")
    parser.add_argument("--output", metavar="FILE", help="where the page goes (default: report.html)")
    typed = parser.read_all(words, plugins=False)
    from lmtasks.artifacts.report.folder import told_by
    from lmtasks.artifacts.report.page import write_page

    path = write_page(Path(typed.get("output", "report.html")), [told_by(run) for run in typed["runs"]])
    return tell({"report": str(path)}, [str(path)], as_json=typed.get("json", False))
