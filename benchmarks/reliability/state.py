"""What a run leaves in its folder, times aside, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TIMED = re.compile(r"(^|_)(runtime|per_second|started|ended|finished|seconds)$")
"""Names of what differs from run to run; all else is equal to the last bit."""

_TIMED_LINE = re.compile(r"Training (took|speed)")
"""Lines of a model card that tell of times."""

_TOLD = ("training_args.bin", "report.html")
"""Files with times or the machine's name in them, which nothing reads."""

State = dict[str, Any]


def state_of(folder: Path) -> State:
    """Everything in a run's folder by name: digests of files, single values of JSON, the log by step.

    Empty folders and hidden files count: nothing of a killed run is to be left.
    """
    found: State = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{name}/"] = "empty"
        elif path.name == "manifest.json" or path.name in _TOLD:
            found[name] = "there"
        elif path.name == "log.jsonl":
            found |= {f"{name}, {what}": value for what, value in _logged(path)}
        elif path.suffix == ".json":
            found |= {f"{name}, {what}": value for what, value in _values(path)}
        elif path.name == "README.md":
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found[name] = _digest("\n".join(line for line in lines if not _TIMED_LINE.search(line)).encode())
        else:
            found[name] = _digest(path.read_bytes())
    return found


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What of a run is not as it should be, in words."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    added = [f"{name} is left over" for name in found if name not in expected]
    other = [
        f"{name}: {_short(found[name])} instead of {_short(value)}"
        for name, value in expected.items()
        if name in found and found[name] != value
    ]
    return missing + added + other


def unverified(folder: Path) -> list[str]:
    """What is wrong with the checkpoints of a finished run."""
    return [wrong for path in sorted((folder / "checkpoints").glob("checkpoint-*")) for wrong in damage_of(path)]


def damage_of(checkpoint: Path) -> list[str]:
    """What in a checkpoint is not as its manifest says."""
    try:
        files = _listed(json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError) as error:
        return [f"{checkpoint.name} has no manifest that can be read: {error!r}"]
    there = {path.name for path in checkpoint.iterdir()} - {"manifest.json"}
    changed = [
        name
        for name in sorted(there & files.keys())
        if hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() != files[name]
    ]
    return [
        *(f"{checkpoint.name}/{name} is not in its manifest" for name in sorted(there - files.keys())),
        *(f"{checkpoint.name}/{name} is missing" for name in sorted(files.keys() - there)),
        *(f"{checkpoint.name}/{name} is not what its manifest says" for name in changed),
    ]


def _listed(files: Any) -> dict[str, str]:
    """The sha256 of each file of a manifest."""
    return {name: str(about["sha256"]) for name, about in files.items()}


def in_common(expected: State, found: State) -> tuple[State, State]:
    """Two states, without what a stop may change.

    That is checkpoints which only one of them has, but for the last, and whether the Trainer was to stop after one.
    """
    steps = [
        {int(step) for step in re.findall(r"^checkpoints/checkpoint-(\d+)/", "\n".join(one), re.MULTILINE)}
        for one in (expected, found)
    ]
    both = (steps[0] & steps[1]) | {max(steps[0], default=0)}

    def kept(state: State) -> State:
        numbers = {name: re.match(r"checkpoints/checkpoint-(\d+)/", name) for name in state}
        return {
            name: value
            for name, value in state.items()
            if (not (of := numbers[name]) or int(of[1]) in both) and ".TrainerControl." not in name
        }

    return kept(expected), kept(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a JSON file by their dotted names, without times."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        yield "damaged", _digest(path.read_bytes())
        return
    if path.name == "tokenizer.json":  # too much to be told value by value
        yield "all", _digest(path.read_bytes())
        return
    for name, value in _flat("", content):
        parts = name.split(".")
        # The digests of files that tell of times differ with them; the files themselves are compared.
        if not any(TIMED.search(part) for part in parts) and parts[0] != "sha256":
            yield name, value


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _flat(f"{name}.{key}".lstrip("."), inner)
    else:
        # repr tells 1 from 1.0, and NaN is equal to itself.
        yield name, repr(value)


def _logged(path: Path) -> Iterator[tuple[str, Any]]:
    """What the log says of each step; of steps that were done twice, what it says last."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            yield "half a line", line[:40]
            continue
        for name, value in entry.items():
            if not TIMED.search(name):
                yield f"step {entry.get('step')}, {name}", repr(value)
