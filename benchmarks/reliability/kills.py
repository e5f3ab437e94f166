"""Runs that are killed without a warning, and go on by the same command until they are done."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from reliability.processes import TICK, Running
from reliability.runs import GO_ON, KINDS, OUT, Place, Reference, Watch, aimed, furnished, reached, undisturbed
from reliability.state import differences, in_common, state_of, unverified
from reliability.tries import Setting, Tried, carried_out

SHARES = {
    "imports": 1, "preparation": 3, "training": 3, "evaluation": 2, "checkpoint": 5, "last evaluation": 2,
    "final save": 4,
}  # fmt: skip
"""Of twenty first kills, how many are aimed at a stage; the later ones of a chain are drawn by the same weights."""

CHAINS = (1, 1, 2, 3)
"""Kills of one run, by turns."""

MISSES = 5
"""How often an instant is drawn anew, because the run was done before it."""


def measure(setting: Setting, processes: int = 1) -> Tried:
    """SIGKILL at random instants, aimed at every stage.

    Args:
        processes: in how many a run trains.
    """
    row = "kills" if processes == 1 else f"kills in {processes} processes"
    place = furnished(setting.folder / "place")
    numbers = setting.numbers(200 if processes == 1 else 40)
    kinds = sorted({kind_of(number) for number in numbers})
    references = {kind: undisturbed(place, kind, setting.folder / "undisturbed", processes=processes) for kind in kinds}
    return carried_out(row, partial(attempt, place, references, processes), numbers, setting)


def kind_of(number: int) -> str:
    """The settings of a try, by turns."""
    return list(KINDS)[number % len(KINDS)]


_STAGES = tuple(stage for stage, share in SHARES.items() for _ in range(share))


def first_stage(number: int) -> str:
    """The stage in which a try kills first, by turns, so that each kind of run comes to each."""
    return _STAGES[(number // len(KINDS) * 7 + number * 3) % len(_STAGES)]


def attempt(
    place: Place,
    references: Mapping[str, Reference],
    processes: int,
    folder: Path,
    generator: random.Random,
    number: int,
) -> list[str]:
    """One run, killed once or more."""
    kind = kind_of(number)
    reference, words = references[kind], [*place.words(kind), *GO_ON]
    first = first_stage(number)
    for miss in range(MISSES):
        where = folder / f"run-{miss}"
        hits: list[str] = []
        for stage in [first, *generator.choices(_STAGES, k=CHAINS[number // 3 % len(CHAINS)] - 1)]:
            aim, watch = aimed(stage, reference, generator), Watch(where / OUT, reference.evaluated)
            # Caches that begin empty are killed half written, too.
            run = place.start(words, where, cold=True, processes=processes, fresh=stage == "imports")
            if not reached(run, watch, aim):
                if wrong := failed(run, run.wait()):
                    return [told([*hits, "then undisturbed"], wrong)]
                break
            hits.append(f"{aim}{_killed(run, generator)}")
        if hits:
            wrong = finished(place, words, where, reference, processes=processes)
            return [told(hits, wrong)] if wrong else []
    return [f"the run was always done before an instant of {first}"]


def _killed(run: Running, generator: random.Random) -> str:
    """Kill all processes at once, or one of them and then the others as a launcher does; says which."""
    if len(run.pids) == 1 or generator.random() < 0.5:
        run.kill()
        return ""
    rank = generator.randrange(len(run.pids))
    run.send(signal.SIGKILL, [run.pids[rank]])
    time.sleep(generator.uniform(0, 0.3))
    run.send(signal.SIGTERM)
    end = time.monotonic() + generator.uniform(0, 3)
    while not run.ended() and time.monotonic() < end:
        time.sleep(TICK)
    run.kill()
    return f", rank {rank} first"


def finished(
    place: Place, words: list[str], where: Path, reference: Reference, *, processes: int = 1, asked: bool = False
) -> list[str]:
    """What is wrong when the command is given once more, and then once again.

    The first time it is to finish the run, the second to find it finished. Both times the folder is to be that of an
    undisturbed run, with nothing else in it or beside it.

    Args:
        asked: the run was asked to stop, and may have saved a checkpoint of another step.
    """
    for time_of in ("the command once more", "the command on the finished run"):
        run = place.start(words, where, cold=True, processes=processes)
        if wrong := failed(run, run.wait()):
            return [f"{time_of}: {line}" for line in wrong]
        expected, found = reference.state, state_of(where / OUT)
        if asked:
            expected, found = in_common(expected, found)
        wrong = differences(expected, found) + unverified(where / OUT)
        beside = {path.name for path in where.iterdir()} - {OUT, "cache"}
        wrong += [f"{name} is left over beside the run" for name in sorted(beside)]
        if wrong:
            return [f"after {time_of}: {line}" for line in wrong]
    return []


def failed(run: Running, code: int | None, expected: int = 0) -> list[str]:
    """What is wrong with how a command ended."""
    if code is None:
        return [f"hangs: {last_words(run.err)}"]
    if code != expected:
        return [f"exit code {code} instead of {expected}: {last_words(run.err)}"]
    return [f"a traceback: {last_words(run.err)}"] if "Traceback" in run.err else []


def last_words(said: str) -> str:
    """The end of what a command said, in one line."""
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    return " / ".join(lines[-2:])[-400:]


def told(hits: list[str], wrong: list[str]) -> str:
    """One line of what was done and what came of it."""
    more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
    return f"{', then '.join(hits)}: {'; '.join(wrong[:4])}{more}"
