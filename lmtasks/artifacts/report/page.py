"""The page of a report, from what run folders tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lmtasks.artifacts.durable import write_text
from lmtasks.artifacts.redact import REDACTED
from lmtasks.artifacts.report.chart import number
from lmtasks.artifacts.report.curves import curves, learning_curve, readings
from lmtasks.artifacts.report.folder import Told, is_number
from lmtasks.artifacts.run_folder import CURVE
from lmtasks.artifacts.verdict import recorded_verdict, ten_times
from lmtasks.config.evaluation_sets import in_set, set_names, set_of
from lmtasks.errors import InputError

BEGINNING = "<!doctype html>\n<!-- lmtasks report -->\n"
"""How each report begins: a file that begins otherwise is somebody's, and never replaced."""

GROUPS = {
    "options": "recipe",
    "training": "training",
    "engine_options": "engine",
    "settings": "data and model",
    "seeds": "seeds",
    "versions": "versions",
}
"""Parts of the record that say how a run was made."""

SIZES_LEFT_OUT = ("unit", "fingerprint")

FIRST = ("eval_loss", "perplexity", "accuracy", "bits_per_byte")
"""Figures that come first."""


def page(runs: Sequence[Told]) -> str:
    """The report of one run or several, one HTML document without scripts, whose text is escaped throughout."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": _shown, "percent": _percent, "heat": heat, "visible": _visible}
    made = _made(runs)
    names = _distinct(runs)
    runs = [Told(name, run.record, run.log, run.reading) for name, run in zip(names, runs, strict=True)]
    body: str = environment.get_template("page.html.jinja").render(
        runs=runs,
        title=" · ".join(names),
        verdicts=[_verdict(run) for run in runs],
        figures=list(_figures(runs)),
        curves=[chart for chart in curves(runs) if chart.has_points],
        read=[run for run in runs if run.reading],
        sampled=[run for run in runs if run.samples()],
        readings=[chart for chart in readings(runs) if chart.has_points],
        sizes=[_sizes(run) for run in runs],
        differing=[row for row in made if len(set(map(repr, row[1:]))) > 1],
        made=made,
    )
    return BEGINNING + body


def write_curve(folder: Path, run: Told) -> None:
    """Write the learning curve of a run as a picture that stands alone; it shows figures and no text of the data."""
    style = Path(__file__).with_name("chart.css").read_text(encoding="utf-8")
    write_text(folder / CURVE, learning_curve(run).svg(style) + "\n")


def write_page(path: Path, runs: Sequence[Told]) -> Path:
    """Write the report of runs, or replace one.

    Raises:
        InputError: there is another file, or a folder, in its place, or no folder for it.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder", f"--output {path / 'report.html'}")
    if path.exists() and not path.read_bytes().startswith(BEGINNING.encode()):
        raise InputError(f"--output {path} exists and is no report", "choose another --output")
    if not path.parent.is_dir():
        raise InputError(f"--output {path} lies in no folder: there is no '{path.parent}'", "choose another --output")
    text = page(runs)
    write_text(path, text)
    return path


def heat(probability: float) -> str:
    """The class of a token by its surprise in whole bits: h0 for what was likelier than a half, h9 from 0.2% down."""
    return f"h{min(9, int(-math.log2(probability)))}" if probability > 0 else "h9"


def _distinct(runs: Sequence[Told]) -> list[str]:
    """The names of the runs; those of one name with numbers."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _verdict(run: Told) -> list[str]:
    verdict = recorded_verdict(run.record)
    if verdict is None:
        return [] if run.metrics else [f"the run is not done: its status is '{run.record.get('status', 'unknown')}'"]
    advice = Markup("to try next: the same command with <code>{}</code>").format(verdict.flags)
    return [*verdict.sentences, *filter(None, [ten_times(run.metrics)]), *([advice] if verdict.flags else [])]


def _figures(runs: Sequence[Told]) -> Iterator[list[Any]]:
    """The name of each figure with its value in each run, the best known first."""
    names = dict.fromkeys(name for run in runs for name in (*FIRST, *run.metrics))
    for name in names:
        values = [run.metrics.get(name) for run in runs]
        if any(value is not None for value in values) and not _told_twice(name, runs):
            yield [name.removeprefix("eval_").replace("_", " "), *values]


def _told_twice(figure: str, runs: Sequence[Told]) -> bool:
    """Whether a figure is that of the first of several sets once more, which has a name there."""
    sets = [set_names(run.metrics) for run in runs]
    return all(sets) and not set_of(figure, sets[0])[0] and in_set(figure, sets[0][0]) in runs[0].metrics


def _sizes(run: Told) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns and the rows of a table of the splits."""
    data = run.record.get("data") or {}
    named = data.get("evaluations") or {}
    splits = {"training": data.get("train"), **{f"held out {name}": sizes for name, sizes in named.items()}}
    splits |= {} if named else {"held out": data.get("evaluation")}
    splits |= {f"source {name}": sizes for name, sizes in (data.get("sources") or {}).items()}
    splits = {name: sizes for name, sizes in splits.items() if isinstance(sizes, Mapping)}
    columns = list(dict.fromkeys(name for sizes in splits.values() for name in sizes if name not in SIZES_LEFT_OUT))
    return columns, [[name, *(sizes.get(column) for column in columns)] for name, sizes in splits.items()]


def _made(runs: Sequence[Told]) -> list[list[Any]]:
    """Name and value in each run of everything that was set."""
    about = ("recipe", "model_type", "base_model", "adapter", "parameters", "trained_parameters")
    parts = [{"run": {name: run.record.get(name) for name in about}, **_groups(run)} for run in runs]
    rows = dict.fromkeys((group, name) for part in parts for group, values in part.items() for name in values)
    made = [[f"{group}: {name}", *(part.get(group, {}).get(name) for part in parts)] for group, name in rows]
    return [row for row in made if any(value not in (None, "", REDACTED) for value in row[1:])]


def _groups(run: Told) -> dict[str, Mapping[str, Any]]:
    found = {title: run.record.get(name) for name, title in GROUPS.items()}
    return {title: values for title, values in found.items() if isinstance(values, Mapping)}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if is_number(value):
        return number(value)
    return str(value)


def _visible(token: str) -> str:
    """A token alone, with what is blank in it to be seen."""
    shown = token.replace("\n", "⏎").replace("\t", "⇥")
    return shown if token.strip() else shown.replace(" ", "␣")


def _percent(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 or not probability else f"{100 * probability:.1g}%"
