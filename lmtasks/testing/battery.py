"""All checks, in the order in which they are run: from what is declared to what comes out at the end."""

from __future__ import annotations

from lmtasks.testing import building, collation, declaration, learning, sums, using
from lmtasks.testing.proof import CHECKS, Check

_PARTS = (declaration, collation, building, sums, learning, using)

BATTERY: dict[str, Check] = {
    name: check for part in _PARTS for name, check in CHECKS.items() if check.run.__module__ == part.__name__
}
"""Every check by name."""
