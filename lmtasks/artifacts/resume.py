"""How a run begins in its folder: anew, from a checkpoint, or not at all because it is finished there."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmtasks.artifacts.checkpoints import damage, newest_first, read_manifest, step_of
from lmtasks.artifacts.run_folder import is_bare, read_record, require_writable, spoiled
from lmtasks.config.request import Request, as_record, fingerprint
from lmtasks.errors import InputError, Interrupted

AUTO = "auto"
"""``--resume_from_checkpoint auto``: go on if there is something to go on from, else begin."""

LENGTH = ("num_train_epochs", "max_steps", "early_stopping_patience", "early_stopping_threshold")
"""Options with which a run may go on that was shorter."""

MAY_CHANGE = (
    *LENGTH, "report_to", "run_name", "project", "trackio_space_id", "disable_tqdm", "log_level", "log_level_replica",
    "logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "log_on_each_node", "save_steps",
    "save_strategy", "save_total_limit", "save_only_model", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_persistent_workers", "dataloader_pin_memory",
)  # fmt: skip
"""Options that may change while a run is interrupted: they say how long it is, or move no weight."""


DIVISION = ("train_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps")
"""Options that may change as long as the global batch that they make is the same."""


@dataclass(frozen=True)
class Asked:
    """A request as the record of a run keeps it, to be compared with another one.

    Args:
        fingerprint: see :func:`lmtasks.config.request.fingerprint`.
        options: the values that were given, by name, as JSON has them.
        batch: the global batch; see :meth:`lmtasks.config.global_batch.Division.as_record`.
    """

    recipe: str
    fingerprint: str
    options: Mapping[str, Any]
    batch: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, batch: Mapping[str, int]) -> Asked:
        """What a request asks for, with the global batch that it comes to here."""
        record = json.loads(json.dumps(as_record(request), default=str))
        further = {**record.get("extensions", {}), **record.get("engine_options", {})}
        every = {**record["options"], **record["settings"], **record["training"], **further}
        given = {name: value for name, value in every.items() if name in request.given}
        return cls(request.recipe.name, fingerprint(request), given, batch)

    def as_record(self) -> dict[str, Any]:
        """The part of ``run.json`` that another request is compared with."""
        return {"request": self.fingerprint, "asked": dict(self.options), "batch": dict(self.batch)}


@dataclass(frozen=True)
class Start:
    """The beginning of a run in its folder.

    Args:
        how: ``anew`` in a folder that has nothing, ``again`` in place of what is ours there, ``on`` from a
            checkpoint, or ``finished``, with nothing to do.
        steps: that are done.
        longer: the run has another length than it had.
        earlier: requests of this run before it was made longer, each with the steps that it was carried out for.
        notes: what was passed over.
    """

    how: Literal["anew", "again", "on", "finished"]
    checkpoint: Path | None = None
    steps: int = 0
    longer: bool = False
    earlier: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def start_in(folder: Path, asked: Asked, *, overwrite: bool, resume: str | bool | None) -> Start:
    """How a run begins in a folder, which need not exist.

    Args:
        overwrite: an earlier run there may be replaced.
        resume: the value of ``--resume_from_checkpoint``: True for the newest whole checkpoint, a path for that one,
            ``auto`` to begin where there is none.

    Raises:
        InputError: a file, a folder of other things, another run, a finished one, or nothing to resume.
    """
    if overwrite and resume:
        raise InputError("--overwrite_output_dir and --resume_from_checkpoint exclude each other", "give one of them")
    require_writable(folder)
    if is_bare(folder):
        if resume and resume != AUTO:
            raise InputError(f"nothing to resume in '{folder}'", "leave out --resume_from_checkpoint, or make it auto")
        return Start("anew")
    record = read_record(folder)
    if record is None:
        raise InputError(f"output_dir '{folder}' holds files that are no run of lmtasks", "choose another --output_dir")
    if overwrite:
        return Start("again")
    done = record.get("status") == "done"
    _require_the_same(folder, record, asked, done)
    if done and not (resume and _longer(record, asked)):
        return _finished(folder, record, asked, resume)
    if not resume:
        raise InputError(
            f"output_dir '{folder}' holds this run, unfinished",
            "--resume_from_checkpoint true goes on, --overwrite_output_dir starts again",
        )
    return _on(folder, record, asked, resume)


def is_of(record: Mapping[str, Any] | None, asked: Asked) -> bool:
    """Whether a record is of a run that this request may go on with."""
    return record is not None and not _differing(record, asked)


def _longer(record: Mapping[str, Any], asked: Asked) -> bool:
    old = record.get("asked", {})
    return any(asked.options.get(name) != old.get(name) for name in LENGTH)


def _finished(folder: Path, record: Mapping[str, Any], asked: Asked, resume: str | bool | None) -> Start:
    """A run that is done is left alone; one whose files were damaged afterwards is saved once more."""
    if resume != AUTO:
        raise InputError(
            f"output_dir '{folder}' holds a finished run",
            "choose another, replace it with --overwrite_output_dir, or go on: --resume_from_checkpoint true with more"
            " --num_train_epochs or --max_steps",
        )
    wrong = spoiled(folder, record)
    if wrong is None:
        return Start("finished")
    start = _on(folder, record, asked, True)
    return replace(start, notes=(f"{wrong}: saved again", *start.notes))


def _require_the_same(folder: Path, record: Mapping[str, Any], asked: Asked, done: bool) -> None:
    differing = _differing(record, asked)
    if not differing:
        return
    state = "a finished run" if done else "an unfinished run"
    more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
    batch = record.get("batch") or {}
    if differing == [_OTHER_BATCH]:
        raise InputError(
            f"output_dir '{folder}' holds {state} with a global batch of {in_words(batch)}, and here it would be"
            f" {in_words(asked.batch)}",
            f"--train_batch_size {batch['examples']} in place of --per_device_train_batch_size and"
            " --gradient_accumulation_steps goes on, on any number of processes"
            if "examples" in batch
            else "divide it as it was, or replace the run with --overwrite_output_dir",
        )
    raise InputError(
        f"output_dir '{folder}' holds {state} with other options: {'; '.join(differing[:3])}{more}",
        "choose another, or replace it with --overwrite_output_dir",
    )


_OTHER_BATCH = "another global batch"


def in_words(batch: Mapping[str, Any]) -> str:
    """A global batch as a record has it."""
    return " × ".join(f"{count} {name}" for name, count in batch.items()) or "nobody knows how many examples"


def _differing(record: Mapping[str, Any], asked: Asked) -> list[str]:
    """What a recorded run was asked otherwise, in words, but for what may change."""
    if record.get("recipe") != asked.recipe:
        return [f"it is of {record['recipe']}"]
    old, new = record.get("asked", {}), asked.options
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    told = [f"--{name} {_said(old.get(name))} there" for name in names if name not in (*MAY_CHANGE, *DIVISION)]
    # The same command, on another number of processes, may come to another one.
    told += [_OTHER_BATCH] if record.get("batch") != asked.batch else []
    # The same options and another fingerprint: something that they name has changed, or how it is told.
    unknown = record.get("request") != asked.fingerprint and not names
    return told or (["what a file of its options holds, or the version of lmtasks"] if unknown else [])


def _said(value: Any) -> str:
    return "not given" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _on(folder: Path, record: Mapping[str, Any], asked: Asked, resume: str | bool) -> Start:
    """Go on from the newest checkpoint that is whole, or the wanted one."""
    passed: list[str] = []
    for checkpoint in _wanted(folder, resume):
        reason = _unfit(checkpoint, record, asked)
        if reason is None:
            old, steps = str(record.get("request")), step_of(checkpoint)
            earlier = [
                *record.get("earlier", ()),
                *([{"request": old, "steps": steps}] if old != asked.fingerprint else []),
            ]
            return Start("on", checkpoint, steps, _longer(record, asked), tuple(earlier), tuple(passed))
        if resume not in (True, AUTO):
            raise InputError(
                f"'{resume}' cannot be resumed: {reason}", "--resume_from_checkpoint true takes the newest good one"
            )
        passed.append(f"passed over {checkpoint.name}: {reason}")
    if resume == AUTO and record.get("status") != "done":
        return Start("again", notes=tuple(passed))
    if passed:
        raise InputError(
            f"no checkpoint of the run in '{folder}' is good: {'; '.join(passed)}",
            "--overwrite_output_dir starts again",
        )
    raise InputError(
        f"the run in '{folder}' was stopped before its first checkpoint"
        if record.get("status") != "done"
        else f"the run in '{folder}' has no checkpoint to go on from",
        "--overwrite_output_dir starts again",
    )


def _wanted(folder: Path, resume: str | bool) -> Iterator[Path]:
    """The checkpoints that come into question, the first choice first."""
    if resume in (True, AUTO):
        yield from newest_first(folder)
        return
    wanted = Path(str(resume))
    for path in newest_first(folder):
        if path.resolve() == wanted.resolve():
            yield path
            return
    raise InputError(
        f"'{resume}' is no checkpoint of the run in '{folder}'",
        "--resume_from_checkpoint true takes the newest good one",
    )


def _unfit(checkpoint: Path, record: Mapping[str, Any], asked: Asked) -> str | None:
    """Why nothing can go on from a checkpoint; None where it can."""
    if wrong := damage(checkpoint):
        return wrong
    manifest = read_manifest(checkpoint) or {}
    if not manifest.get("resumable", True):
        return "it has the weights only (--save_only_model)"
    if manifest.get("batch") != asked.batch:
        return f"it is of a global batch of {in_words(manifest.get('batch') or {})}"
    mine = {asked.fingerprint, record.get("request")}
    mine |= {one["request"] for one in record.get("earlier", ()) if step_of(checkpoint) <= one["steps"]}
    return None if manifest.get("request") in mine else "it is of another run"


def interrupted(number: int, folder: Path | None) -> Interrupted:
    """What to tell of a run that a signal stopped outside of its training: how far it got, as its folder says."""
    said = f"stopped by {signal.Signals(number).name}"
    record = None if folder is None or is_bare(folder) else read_record(folder)
    if folder is None or record is None:
        return Interrupted(f"{said}, before anything was written", "the same command begins again", number)
    if record.get("status") == "done":
        return Interrupted(f"{said}; the run in '{folder}' is finished", f"lmtasks predict {folder} TEXT", number)
    whole = next((path for path in newest_first(folder) if read_manifest(path)), None)
    if whole is None:
        hint = "the same command with --resume_from_checkpoint auto begins again"
        return Interrupted(f"{said}, before the first checkpoint", hint, number)
    hint = "the same command with --resume_from_checkpoint auto goes on from there"
    return Interrupted(f"{said}; all is safe up to step {step_of(whole)}", hint, number)
