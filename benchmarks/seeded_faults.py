"""Faults that were put into declarations on purpose, and how many of them the kit for authors finds.

    python benchmarks/seeded_faults.py           the table; exit 1 where one is not found, or there are fewer than 80

Each is a recipe, an architecture, an extension or a launcher that is right but for one thing. It counts as found where
the check that is named for it, and no other, says what the fault is: the tests marked ``seeded`` in ``tests/testing``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from measuring import print_table

TESTS = Path(__file__).parents[1] / "tests" / "testing"

WANTED = 80


def seeded(place: Path) -> list[tuple[str, bool]]:
    """Every fault, by the test that seeds it, and whether it was found."""
    report = place / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "seeded", f"--junitxml={report}", str(TESTS)]
    subprocess.run(command, check=False, stdout=sys.stderr)
    cases = ElementTree.parse(report).iter("testcase")
    return [(told(case.get("name", "")), case.find("failure") is None and case.find("error") is None) for case in cases]


def told(test: str) -> str:
    """What a test is about, in words."""
    return test.partition("[")[0].removeprefix("test_").replace("_", " ")


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        faults = seeded(Path(place))
    every, found = Counter(kind for kind, _ in faults), Counter(kind for kind, right in faults if right)
    rows = [[kind, str(count), str(found[kind])] for kind, count in every.items()]
    rows.append(["all", str(len(faults)), str(found.total())])
    print_table("Seeded faults", ("what the kit has to see", "faults", "found"), rows)
    return 0 if found.total() == len(faults) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
