"""All checks, in the order in which they are run."""

from __future__ import annotations

from lmtasks.testing import (
    building,
    collation,
    declaration,
    engines,
    extending,
    frozen,
    launching,
    learning,
    sums,
    terms,
    using,
)
from lmtasks.testing.proof import CHECKS, Check


def checks() -> dict[str, Check]:
    """Every check by name, in the order in which they are run: from what is declared to what comes out at the end."""
    parts = (declaration, collation, building, terms, frozen, sums, learning, using, extending, launching, engines)
    return {name: check for part in parts for name, check in CHECKS.items() if check.run.__module__ == part.__name__}
