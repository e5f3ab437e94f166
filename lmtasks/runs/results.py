"""The results of a run, in its folder: the figures, the verdict, the card, and last that it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmtasks.artifacts.durable import write_json
from lmtasks.artifacts.model_card import write_card
from lmtasks.artifacts.report.folder import log_of, told_of
from lmtasks.artifacts.report.page import write_curve, write_page
from lmtasks.artifacts.report.reading import write_reading
from lmtasks.artifacts.run_folder import CURVE, REPORT, digests, sealed
from lmtasks.artifacts.verdict import verdict_of
from lmtasks.runs.held_out import read_held_out
from lmtasks.runs.load import Data
from lmtasks.runs.record import write_record
from lmtasks.training.trained import Trained


def save_results(
    folder: Path, data: Data | None, record: dict[str, Any], trained: Trained, eval_metrics: Mapping[str, float]
) -> None:
    """Write the results of a model that is saved, the card and, last of all, that the run is done.

    Args:
        data: those that were held out, of which the report shows how the model reads them; None: it shows nothing.
    """
    metrics = {**trained.metrics, **eval_metrics}
    for name, part in (("train", trained.metrics), ("eval", eval_metrics), ("all", metrics)):
        write_json(folder / f"{name}_results.json", part)
    trained.state.save_to_json(str(folder / "trainer_state.json"))
    results = ["train_results.json", "eval_results.json", "all_results.json", "trainer_state.json"]
    # The status is written last: a folder that says "done" is complete.
    record |= {"status": "done", "metrics": metrics, "sha256": digests(folder, [*record["files"], *results])}
    if trained.state.global_step < trained.state.max_steps:
        record["stopped_early"] = trained.state.global_step
    record["verdict"] = asdict(verdict_of(record, trained.state.log_history))
    reading = read_held_out(trained.model, data) if data else None
    if reading:
        write_reading(folder, reading)
    told = told_of(folder, record, log_of(folder), reading)
    write_page(folder / REPORT, [told])
    if told.series("loss"):
        write_curve(folder, told)
        record["curve"] = CURVE
    write_card(folder, record)
    write_record(folder, sealed(record))
