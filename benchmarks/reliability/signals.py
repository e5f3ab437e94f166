"""Runs that are asked to stop, by SIGTERM or SIGINT, and go on by the same command."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from reliability.hub import hub_server
from reliability.kills import failed, finished, kind_of, last_words, told
from reliability.processes import TICK, Running
from reliability.runs import (
    GO_ON,
    OUT,
    PUSHED,
    STAGES,
    Place,
    Reference,
    Watch,
    aimed,
    furnished,
    reached,
    status,
    undisturbed,
)
from reliability.state import damage_of, differences, in_common, state_of
from reliability.tries import Setting, Tried, carried_out

PUSHING = "pushing"

AIMS = (*STAGES, PUSHING)
"""The stages that are aimed at, by turns: each by both signals."""

TWICE = 3
"""Every so manyth try sends the signal twice."""

AT_ONCE = 2.0
"""Seconds in which the second signal must end the run; a machine may be busy."""

SOON = 60.0
"""Seconds in which the first must."""

MISSES = 8
"""How often an instant is drawn anew, because the run was done before it."""

_PUSH = ("--push_to_hub", "--hub_model_id", PUSHED)


def measure(setting: Setting) -> Tried:
    """SIGTERM and SIGINT at random instants of every stage."""
    place = furnished(setting.folder / "place")
    numbers = setting.numbers(40)
    kinds = sorted({_kind(number) for number in numbers})
    references = {kind: undisturbed(place, kind, setting.folder / "undisturbed") for kind in kinds}
    return carried_out("signals", partial(attempt, place, references), numbers, setting)


def _kind(number: int) -> str:
    """The settings of a try, so that both signals come to each."""
    return kind_of(number + number // (2 * len(AIMS)))


def stage_of(number: int) -> str:
    """The stage that a try aims at."""
    return AIMS[number // 2 % len(AIMS)]


def attempt(
    place: Place, references: Mapping[str, Reference], folder: Path, generator: random.Random, number: int
) -> list[str]:
    """One run, stopped once, by one signal or two of a kind."""
    sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
    stage = stage_of(number)
    twice = generator.uniform(0, 0.3) if number % TWICE == TWICE - 1 else None
    kind = _kind(number)
    if stage == PUSHING:
        return _stopped_pushing(place, kind, folder, generator, sent, twice)
    reference, words = references[kind], [*place.words(kind), *GO_ON]
    for miss in range(MISSES):
        where = folder / f"run-{miss}"
        aim, watch = aimed(stage, reference, generator), Watch(where / OUT, reference.evaluated)
        run = place.start(words, where, cold=True, fresh=stage == "imports")
        # What has arrived when all is done has nothing to stop.
        if reached(run, watch, aim) and status(where / OUT) != "done":
            wrong = stopped(run, sent, twice) or untrue(run.err, where / OUT)
            wrong = wrong or finished(place, words, where, reference, asked=True)
            return [told([f"{sent.name}{' twice' if twice is not None else ''} at {aim}"], wrong)] if wrong else []
        if wrong := failed(run, run.wait()):
            return [told(["undisturbed"], wrong)]
    return [f"the run was always done before an instant of {stage}"]


def stopped(run: Running, sent: signal.Signals, twice: float | None = None) -> list[str]:
    """Send a signal, and a second one so many seconds after the first; what is wrong with how the run ends."""
    run.send(sent)
    expected = 128 + sent
    if twice is None:
        return _said(run, run.wait(SOON), expected)
    end = time.monotonic() + twice
    while time.monotonic() < end and not run.ended():
        time.sleep(TICK)
    run.send(sent)
    if (code := run.wait(AT_ONCE)) is None:
        return [f"still there {AT_ONCE} s after the second signal: {last_words(run.err)}"]
    return _said(run, code, expected)


def _said(run: Running, code: int | None, expected: int) -> list[str]:
    """What is wrong with the end of a run that a signal has ended."""
    if code == expected and not any("lmtasks" in line for line in _trace(run.err)):
        return []
    return failed(run, code, expected)


def _trace(said: str) -> list[str]:
    """The lines of a traceback that name files; one without ours is of Python's own start."""
    return [line for line in said.splitlines() if line.startswith('  File "')] if "Traceback" in said else []


def untrue(said: str, folder: Path) -> list[str]:
    """What a message says of steps that are safe, and is not so."""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    steps = {step for line in errors for step in re.findall(r"step (\d+)", line)}
    return [
        f"it says that step {step} is safe: {wrong}"
        for step in steps
        for wrong in damage_of(folder / "checkpoints" / f"checkpoint-{step}")
    ]


def _stopped_pushing(
    place: Place, kind: str, folder: Path, generator: random.Random, sent: signal.Signals, twice: float | None
) -> list[str]:
    """Stop a run after one of the requests by which it publishes; then it is to finish that."""
    words = [*place.words(kind), *_PUSH, *GO_ON]
    with hub_server() as hub:
        whole = _start(place, words, folder / "whole", hub)
        if wrong := failed(whole, whole.wait()):
            return [told(["undisturbed"], wrong)]
        expected, published, requests = state_of(folder / "whole" / OUT), _published(hub), len(hub.requests)
    for miss in range(MISSES):
        where = folder / f"run-{miss}"
        with hub_server() as hub:
            after, delay = generator.randint(1, requests), generator.uniform(0, 0.02)
            run = _start(place, words, where, hub)
            while len(hub.requests) < after and not run.ended():
                time.sleep(TICK)
            time.sleep(delay)
            # Where the last answer has come, the run may be about to end; what it says then is its own affair.
            if run.ended() or run.out:
                run.wait()
                continue
            hit = f"{sent.name}{' twice' if twice is not None else ''} {delay * 1000:.1f} ms after request {after}"
            if wrong := stopped(run, sent, twice):
                return [told([hit], wrong)]
            again = _start(place, words, where, hub)
            wrong = failed(again, again.wait()) or differences(*in_common(expected, state_of(where / OUT)))
            if not wrong and _published(hub) != published:
                wrong = ["after the command once more the model is not published as it would have been"]
            return [told([hit], wrong)] if wrong else []
    return ["the run was always done before it could be stopped"]


def _start(place: Place, words: list[str], where: Path, hub: Any) -> Running:
    """A run that publishes there; fresh, because huggingface_hub reads its variables when it is imported."""
    variables = hub.environment(where.with_name("hub_home"))
    return place.start(words, where, cold=True, fresh=True, more=variables)


def _published(hub: Any) -> dict[str, str]:
    """Digests of the weights and names of all other files in the repository, which tell of times."""
    files = hub.files(PUSHED) if PUSHED in hub.repos else {}
    return {name: hashlib.sha256(data).hexdigest() if "safetensors" in name else "" for name, data in files.items()}
