"""A run folder as a report reads it: the record, the log, and what the model made of the held-out text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from lmtasks.artifacts.redact import redacted
from lmtasks.artifacts.report.chart import Point
from lmtasks.artifacts.report.reading import Reading, read_reading
from lmtasks.artifacts.run_folder import LOG, read_record
from lmtasks.config.evaluation_sets import in_set, set_names
from lmtasks.errors import InputError, nearest_path

USAGE = "lmtasks report RUN, with the folder of a run"


@dataclass(frozen=True)
class Told:
    """What a run folder tells.

    Args:
        name: of the folder.
        record: ``run.json`` without secrets and paths, for pages are passed on.
        log: the entries of ``log.jsonl``.
        reading: of the held-out text; None where nobody kept one.
    """

    name: str
    record: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    reading: Reading | None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The figures; none before the run is done."""
        figures: Mapping[str, Any] = self.record.get("metrics") or {}
        return figures

    def series(self, figure: str) -> list[Point]:
        """A figure of the log by step."""
        return [(line["step"], line[figure]) for line in self.log if is_number(line.get(figure))]

    def evaluations(self) -> dict[str, list[Point]]:
        """The evaluation loss by step of each set, by its name, with that of the finished model at the end."""
        losses = {}
        last = max((line["step"] for line in self.log), default=0)
        for name in set_names(self.metrics) or [""]:
            figure = in_set("loss", name) if name else "eval_loss"
            points = dict(self.series(figure))
            # Where the best model was kept, the figure is not of the last step.
            kept = bool(points) and (self.record.get("training") or {}).get("load_best_model_at_end")
            if is_number(self.metrics.get(figure)) and not kept:
                points.setdefault(last, self.metrics[figure])
            losses[name] = sorted(points.items())
        return losses

    def samples(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Each prompt that was answered while the model trained, with the step in words and the answer, in order."""
        told: dict[str, list[tuple[str, str]]] = {}
        for line in self.log:
            for sample in line.get("samples") or ():
                told.setdefault(str(sample["prompt"]), []).append(
                    (f"step {line['step']:,}", "\n".join(map(str, sample["answers"])))
                )
        return list(told.items())

    @property
    def unit(self) -> str:
        """The unit of its speed, such as tokens; empty where an earlier version kept none."""
        return self._speed.removeprefix("train_").removesuffix("_per_second").replace("_", " ")

    @property
    def _speed(self) -> str:
        names = {name for line in self.log if "loss" in line for name in line if name.endswith("_per_second")}
        return min(names, default="")

    def speed(self) -> list[Point]:
        """How many units a second, by step."""
        return self.series(self._speed)


def told_by(folder: str | Path) -> Told:
    """What a run folder tells; of a run that is not done, as far as it got.

    Raises:
        InputError: no run, a damaged one, or one that has logged nothing yet.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"no such run folder: {path}{nearest_path(path)}", USAGE)
    record = read_record(path)
    if record is None:
        raise InputError(f"{path} is not the folder of a run: it has no run.json", USAGE)
    log = log_of(path)
    if not log:
        raise InputError(f"{path} has nothing to report: its {LOG} is empty or missing", "wait for the first steps")
    return told_of(path, record, log, read_reading(path))


def told_of(folder: Path, record: Mapping[str, Any], log: Sequence[Mapping[str, Any]], reading: Reading | None) -> Told:
    """The same, of a run that is at hand."""
    return Told(folder.resolve().name, redacted(record), log, reading)


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; half a line, which a killed run leaves, is none."""
    path, entries = folder / LOG, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and is_number(entry.get("step")):
                entries.append(entry)
    return entries


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
