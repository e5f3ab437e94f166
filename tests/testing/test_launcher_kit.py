"""The kit's checks of a launcher find what is wrong; that a right one passes is seen in tests/processes/."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtasks import Job, Launcher
from lmtasks.testing import CheckFailed, check_launcher


class Idle:
    """The handle of what was never started."""

    def __init__(self, job: Job, options: None) -> None:
        self.job = job

    def wait(self) -> int:
        """Success, whatever was asked for."""
        return 0

    def cancel(self) -> None:
        """Nothing."""

    def logs(self) -> str:
        """The plan, as if two had told it."""
        return "model      a\nmodel      a\n"


class Littering(Idle):
    """One that writes where the run should, and says the right number."""

    def wait(self) -> int:
        """Bad input."""
        assert self.job.folder
        Path(self.job.folder).mkdir()
        return 2


IDLE = Launcher(name="idle", summary="Nothing is started.", submit=Idle)


@pytest.mark.seeded
@pytest.mark.parametrize(
    ("submit", "check", "told"),
    [
        (Idle, "launched-bad-input-is-refused", "it ends with exit code 0, not 2: model      a; model      a"),
        (Littering, "launched-bad-input-is-refused", "a folder was made for a run that was refused"),
        (Idle, "launched-is-the-same-run", "its logs have the plan 2 times"),
        (Idle, "cancelled-is-stopped", "it ends with exit code 0, not 143"),
        (Idle, "killed-is-brought-to-its-end", "the second process has not been there to be killed"),
    ],
)
def test_a_mistake_is_found(submit: type, check: str, told: str) -> None:
    wrong = Launcher(name="idle", summary="Nothing is started.", submit=submit)
    with pytest.raises(CheckFailed) as failure:
        check_launcher(wrong, only=[check], restarting={"anything": 1})
    assert failure.value.failed == (check,)
    assert told in str(failure.value)


@pytest.mark.seeded
def test_a_name_that_is_taken_ends_the_examination() -> None:
    taken = Launcher(name="torchrun", summary="Another one.", submit=Idle)
    with pytest.raises(CheckFailed, match="launcher 'torchrun' already belongs to lmtasks:launchers") as failure:
        check_launcher(taken)
    assert failure.value.failed == ("launcher-comes-in",)


@pytest.mark.seeded
def test_what_a_heavy_module_imports_is_found() -> None:
    with pytest.raises(CheckFailed, match=r"importing 'lmtasks\.launchers\.torchrun' imports"):
        check_launcher(IDLE, only=["launcher-import-is-light"], module="lmtasks.launchers.torchrun")
