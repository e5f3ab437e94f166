"""What a run that goes on has to match, and what its plan says of where it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from transformers import TrainingArguments

from lmtasks.artifacts.checkpoints import read_manifest
from lmtasks.artifacts.resume import Start
from lmtasks.artifacts.run_folder import read_record
from lmtasks.config.engines import notes_on_engine
from lmtasks.config.request import Request
from lmtasks.errors import InputError
from lmtasks.models.frozen_weights import MODEL
from lmtasks.runs.load import Data
from lmtasks.runs.place import Place
from lmtasks.runs.plan import Plan
from lmtasks.runs.versions import versions
from lmtasks.training.rate import rate_at


def require_same_data(data: Data, place: Place) -> None:
    """Refuse to resume on other data: the checkpoint knows how far it got in the old.

    Raises:
        InputError: they are others.
    """
    record = read_record(place.folder) if place.start.how == "on" else None
    train, medium = data.encoded.train, data.encoded.medium
    began = ((record or {}).get("data") or {}).get("train") or {}
    if record and train is not None and began.get("fingerprint") != train.fingerprint:
        raise InputError(
            f"the training {medium} is not the one that the run in '{place.folder}' began with",
            f"bring the old {medium} back, or start again with --overwrite_output_dir",
        )


def require_same_frozen(digests: Callable[[], Mapping[str, str]], place: Place) -> None:
    """Refuse to resume on other weights than those under which an adapter, or beside which a model, has learned.

    Args:
        digests: gives those of the weights that do not learn; large models take seconds, and few runs go on.

    Raises:
        InputError: names the part that has changed.
    """
    record = read_record(place.folder) if place.start.how == "on" else None
    began = (record or {}).get("frozen")  # runs of earlier versions do not tell
    if not began:
        return
    now = digests()
    for name in sorted({*began, *now}):
        if began.get(name) != now.get(name):
            what = "the model under what learns" if name == MODEL else f"the {name}"
            raise InputError(
                f"{what} has other weights than when the run in '{place.folder}' began",
                "bring the old ones back, or start again with --overwrite_output_dir",
            )


def require_steps_left(start: Start, plan: Plan) -> None:
    """Refuse a run that is to be shorter than it is already.

    Raises:
        InputError: it is.
    """
    if start.steps > plan.steps:
        raise InputError(
            f"{start.checkpoint} has {start.steps:,} steps, and the run is to have {plan.steps:,}",
            f"ask for {start.steps:,} steps or more, or resume an earlier checkpoint",
        )


def notes_on(request: Request, start: Start, plan: Plan, arguments: TrainingArguments) -> Iterator[str]:
    """Notes on how the run begins, and when it may end."""
    yield from notes_on_engine(request.engine) if request.engine else ()
    yield from start.notes
    if start.checkpoint is not None:
        yield f"goes on after step {start.steps:,} of {plan.steps:,}, from {start.checkpoint.name}"
        yield from _other_versions(start.checkpoint)
        yield from _other_processes(start.checkpoint, arguments)
    if start.longer and start.steps < plan.steps:
        rate = rate_at(arguments, start.steps, plan.steps)
        there = "" if rate is None else f": {rate:.3g} in its next step"
        schedule = arguments.lr_scheduler_type.value
        yield f"the learning rate is that of a {schedule} schedule of {plan.steps:,} steps{there}"
    patience = request.stopping.early_stopping_patience
    if patience is not None:
        metric = arguments.metric_for_best_model
        yield f"ends early when {metric} has not become better in {patience} evaluations"
        if not arguments.load_best_model_at_end:
            yield "the last model is kept, not the best: --load_best_model_at_end true keeps that"


def _other_versions(checkpoint: Path) -> Iterator[str]:
    """A note where the checkpoint was made with other versions than there are now."""
    then, now = (read_manifest(checkpoint) or {}).get("versions"), versions()
    other = [f"{name} {then[name]}" for name in now if then.get(name) != now[name]] if isinstance(then, dict) else []
    if other:
        yield f"the checkpoint was made with {', '.join(other)}: the same bits as in one go are not certain"


def _other_processes(checkpoint: Path, arguments: TrainingArguments) -> Iterator[str]:
    """A note where as many examples a step were divided among another number of processes."""
    then, now = (read_manifest(checkpoint) or {}).get("processes", arguments.world_size), arguments.world_size
    if then != now:
        yield (
            f"the checkpoint is of {then} process{'es' * (then > 1)}, and here {'is 1' if now == 1 else f'are {now}'}:"
            " the same examples in the same steps; dropout and the like draw anew, from the seed"
        )
