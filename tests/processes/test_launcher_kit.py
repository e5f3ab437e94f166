"""The kit's checks of a launcher, with the one that is built in."""

from __future__ import annotations

from lmtasks.builtin.launchers import TORCHRUN
from lmtasks.testing import check_launcher


def test_torchrun_keeps_the_contract() -> None:
    proof = check_launcher(TORCHRUN, restarting={"max_restarts": 1})
    assert {name: outcome.state for name, outcome in proof.checks.items() if outcome.state != "ok"} == {}
