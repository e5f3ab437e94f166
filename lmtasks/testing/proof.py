"""Checks and their outcomes: the registry, the proof that all outcomes make, and the error that lists failures."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmtasks.errors import InputError, Interrupted, LmtasksError, first_line, nearest

Subject = Literal["recipe", "architecture", "extension", "launcher", "engine"]
State = Literal["ok", "failed", "skipped"]
Run = Callable[[Any], str | None]
Right = tuple[Any, int]
"""Sum of losses, a scalar tensor, and count as they should be."""

Oracle = Callable[[Any, dict[str, Any]], Right | Mapping[str, Right]]
"""(model, batch) to what the loss should give, by name of the term where it has several."""

Function = TypeVar("Function", bound=Run)
Thing = TypeVar("Thing")


class Fault(Exception):  # noqa: N818  (a finding, raised by a check)
    """A finding of a check.

    Args:
        message: what is wrong, with the numbers.
        advice: what to do about it; that of the check when not given.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message, self.advice = message, advice


@contextlib.contextmanager
def blamed(told: str, advice: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """A fault in place of any error of this kind: these words, what the error says, and the advice."""
    try:
        yield
    except kind as error:
        raise Fault(told + (error.args[0] if kind is InputError else first_line(error)), advice) from error


class Inapplicable(Exception):  # noqa: N818  (nothing is wrong)
    """Why a check has nothing to say here."""


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    Args:
        state: ok, failed, or skipped because it has nothing to say here.
        reason: what is wrong, why it was skipped, or what is worth knowing all the same.
        advice: what to do when it failed.
    """

    state: State
    reason: str = ""
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True)
class Check:
    """One claim, and the function that tries to refute it.

    Args:
        name: the claim, ``loss-is-a-sum``.
        run: raises :class:`Fault` or :class:`Inapplicable`; may return what is worth knowing.
        subjects: what it judges: recipes, architectures, both of these, extensions, launchers, or engines.
        gate: whether nothing after it can be answered once it has failed.
        of: the function of the recipe that it is about; empty where it is about none alone.
        advice: what to do when it fails, where that is always the same.
    """

    name: str
    run: Run
    subjects: frozenset[Subject]
    gate: bool = False
    advice: str = ""
    of: str = ""

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return first_line(LmtasksError(self.run.__doc__ or ""))


UNREACHED = "not reached"
"""How the reason of a check begins that something else has to be mended for."""

CHECKS: dict[str, Check] = {}
"""Every check whose module was imported; ``lmtasks.testing.checks()`` gives all, in order."""


def check(*subjects: Subject, gate: bool = False, advice: str = "", of: str = "") -> Callable[[Function], Function]:
    """Register a check under the name of its function, with hyphens."""

    def register(function: Function) -> Function:
        name = function.__name__.replace("_", "-")
        CHECKS[name] = Check(name, function, frozenset(subjects), gate, advice, of)
        return function

    return register


@dataclass(frozen=True)
class Proof:
    """All outcomes for one subject.

    Args:
        subject: what was examined, "llama with causal-lm".
        checks: outcome by name of the check, in the order in which they were run.
    """

    subject: str
    checks: Mapping[str, Outcome]

    @property
    def failed(self) -> dict[str, Outcome]:
        """The outcomes of the checks that failed."""
        return {name: outcome for name, outcome in self.checks.items() if outcome.state == "failed"}

    @property
    def unreached(self) -> tuple[str, ...]:
        """Names of the checks that say nothing, because what they need could not be made."""
        return tuple(name for name, outcome in self.checks.items() if outcome.reason.startswith(UNREACHED))

    def lines(self) -> list[str]:
        """The faults and what to do about each, for people: each once, whichever checks found it."""
        told = [f"{self.subject}: {len(self.failed)} of {len(self.checks)} checks failed"]
        finders: dict[str, list[str]] = {}
        for name, outcome in self.failed.items():
            finders.setdefault(outcome.reason, []).append(name)
        for reason, (first, *others) in finders.items():
            told += [f"  {first}: {reason}", f"    -> {self.checks[first].advice}"]
            told += [f"    found by {', '.join(others)} as well"] if others else []
        if self.unreached:
            told.append(f"  not reached before this is mended: {', '.join(self.unreached)}")
        return told

    def require(self) -> Proof:
        """The proof itself, if nothing failed.

        Raises:
            CheckFailed: something did.
        """
        if self.failed:
            raise CheckFailed([self])
        return self


class CheckFailed(AssertionError):  # noqa: N818  (the name tells what happened)
    """Checks failed; the message lists each fault with the checks that found it, what to do, and what was not reached.

    Args:
        proofs: of which at least one has a failed check.
    """

    def __init__(self, proofs: Iterable[Proof]) -> None:
        self.proofs = tuple(proof for proof in proofs if proof.failed)
        super().__init__("\n".join(line for proof in self.proofs for line in proof.lines()))

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed, each once."""
        return tuple(dict.fromkeys(name for proof in self.proofs for name in proof.failed))


def examine(
    case: Any, subject: Subject, checks: Mapping[str, Check], skip: Mapping[str, str], only: Iterable[str]
) -> Proof:
    """The outcome of each check of a subject, in their order. What runs meanwhile prints nothing.

    Raises:
        ValueError: there is no check of a name in ``skip`` or ``only``.
    """
    for name in (*skip, *only):
        if name not in checks:
            raise ValueError(f"there is no check '{name}'{nearest(name, checks)}")
    outcomes: dict[str, Outcome] = {}
    closed = ""
    for name, check in checks.items():
        if subject not in check.subjects or (only and name not in only):
            continue
        if name in skip:
            outcomes[name] = Outcome("skipped", f"left out: {skip[name]}")
        elif closed:
            outcomes[name] = Outcome("skipped", f"{UNREACHED}: {closed} failed")
        else:
            with contextlib.redirect_stderr(io.StringIO()):
                outcomes[name] = _outcome(check, case)
            closed = name if check.gate and outcomes[name].state == "failed" else ""
    return Proof(case.title, outcomes)


def _outcome(check: Check, case: Any) -> Outcome:
    """The outcome of a check. Whatever a plugin's code raises is a finding."""
    try:
        return Outcome("ok", check.run(case) or "")
    except Fault as fault:
        return Outcome("failed", f"{fault.message}{_declared(check, case)}", fault.advice or check.advice)
    except Inapplicable as reason:
        return Outcome("skipped", str(reason))
    except Interrupted:
        raise
    except LmtasksError as error:
        return Outcome("failed", error.message, error.hint or "see the message")
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        return Outcome("failed", f"{told} {_place(error)}", f"mend what raises this: {check.summary}")


def _declared(check: Check, case: Any) -> str:
    """Where the function is that a check is about, if it is none of ours."""
    from lmtasks.api.references import Deferred, resolve

    function = getattr(case.recipe, check.of) if check.of else None
    function = resolve(function.reference) if isinstance(function, Deferred) else function
    code = getattr(function, "__code__", None)
    if code is None or Path(code.co_filename).is_relative_to(Path(__file__).parents[1]):
        return ""
    return f" ({check.of}: {Path(code.co_filename).name}, line {code.co_firstlineno})"


def _place(error: BaseException) -> str:
    """Where it was raised: the last line of code that belongs to no library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_library(Path(frame.filename))]
    frame = (own or frames)[-1]
    return f"({Path(frame.filename).name}, line {frame.lineno})"


def _of_library(path: Path) -> bool:
    return path.is_relative_to(Path(__file__).parents[1]) or "site-packages" in path.parts or path.suffix != ".py"


def once(make: Callable[[], Thing]) -> Callable[[], Thing]:
    """Something that several checks need, made when the first asks.

    If it cannot be made, that is a finding of the first check that asks; the others cannot be answered.
    """
    reasons: list[Exception] = []

    @cache
    def get() -> Thing:
        if reasons:
            raise Inapplicable(f"{UNREACHED}: {first_line(reasons[0])}")
        try:
            return make()
        except Exception as error:
            reasons.append(error)
            raise

    return get
