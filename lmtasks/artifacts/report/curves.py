"""The curves of runs: what is drawn of their logs, and of how they read held-out text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmtasks.artifacts.report.chart import Chart, Line
from lmtasks.artifacts.report.folder import Told, is_number
from lmtasks.config.evaluation_sets import in_set


def learning_curve(run: Told) -> Chart:
    """The loss of one run on its training text and on each evaluation set, with the baseline of each."""
    lines = [Line("training", run.series("loss"))]
    for colour, (name, points) in enumerate(run.evaluations().items(), 1):
        lines.append(Line(f"held out {name}".strip(), points, "dots", colour))
        baseline = run.metrics.get(in_set("unigram_loss", name) if name else "unigram_loss")
        if is_number(baseline) and points:
            lines.append(Line(f"unigram baseline {name}".strip(), [(points[-1][0], baseline)], "level", colour))
    return Chart("Loss", lines, y="nats per target")


def curves(runs: Sequence[Told]) -> Iterator[Chart]:
    """All learning curves: of one run together, of several each figure with a line for each run."""
    if len(runs) == 1:
        yield learning_curve(runs[0])
    else:
        yield Chart("Training loss", _each(runs, "loss"), y="nats per target")
        sets = [(f"{run.name} {name}".strip(), points) for run in runs for name, points in run.evaluations().items()]
        lines = [Line(name, points, "dots", colour) for colour, (name, points) in enumerate(sets)]
        yield Chart("Held-out loss", lines, y="nats per target")
    yield Chart("Learning rate", _each(runs, "learning_rate"))
    yield Chart("Gradient norm", _each(runs, "grad_norm"))
    units = sorted({run.unit for run in runs if run.unit})
    lines = [Line(run.name, run.speed(), colour=colour) for colour, run in enumerate(runs)]
    yield Chart("Speed", lines, y=f"{' or '.join(units)} per second")


def _each(runs: Sequence[Told], figure: str) -> list[Line]:
    return [Line(run.name, run.series(figure), colour=colour) for colour, run in enumerate(runs)]


def readings(runs: Sequence[Told]) -> Iterator[Chart]:
    """How the runs read held-out text: the loss by position, and how far their confidence can be trusted."""
    read = [(colour, run.name, run.reading) for colour, run in enumerate(runs) if run.reading]
    if not read:
        return
    lines = [
        Line(name, [(one.start, one.loss) for one in reading.positions], "dots", colour)
        for colour, name, reading in read
    ]
    yield Chart("Loss by position", lines, x="position in the example", y="nats per target")
    lines = [
        Line(name, [(one.confidence, one.right) for one in reading.calibration], "dots", colour)
        for colour, name, reading in read
    ]
    honest = Line("as sure as right", [(0.0, 0.0), (1.0, 1.0)], "dashed", len(read))
    yield Chart("Calibration of the guesses", [*lines, honest], x="probability of the guess", y="share that is right")
