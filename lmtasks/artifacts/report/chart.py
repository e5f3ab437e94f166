"""Charts as SVG: lines and dots over steps, in colours that a style sheet gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 230
"""Units of a chart; one is a pixel on a phone, so that its text can be read there."""

LEFT, RIGHT, BOTTOM, ROW = 48, 10, 34, 17
"""Margins, and the height of a row of the legend."""

MOST = 400
"""Points of a line; what has more is averaged."""

COLOURS = 6
"""Classes ``c0``, ``c1``, ... after which colours come again."""

LETTER = 6
"""Units that a letter of the legend takes, about."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Args:
        kind: "line"; "dots", joined by one; "dashed"; "level", a dashed one over the whole width.
        colour: number of the class.
    """

    name: str
    points: Sequence[Point]
    kind: str = "line"
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart with its title and the names of its axes."""

    title: str
    lines: Sequence[Line]
    x: str = "step"
    y: str = ""

    @property
    def has_points(self) -> bool:
        """Whether there is anything to draw."""
        return any(line.points for line in self.lines)

    def svg(self, style: str = "") -> Markup:
        """The picture of a chart that has points; with a style sheet of its own it can stand alone."""
        return Markup("".join(_drawn(self, style)))

    def rows(self) -> tuple[list[str], list[list[float | None]]]:
        """The figures as a table, for who cannot see or hover: names of columns, and at most 40 rows."""
        shown = [line for line in self.lines if line.kind != "level"]
        values = [dict(line.points) for line in shown]
        xs = sorted({x for line in values for x in line})
        xs = xs if len(xs) <= 40 else [xs[round(number * (len(xs) - 1) / 39)] for number in range(40)]
        return [self.x, *(line.name for line in shown)], [[x, *(line.get(x) for line in values)] for x in xs]


def thinned(points: Sequence[Point], most: int = MOST) -> list[Point]:
    """The points, or the means of so many groups of equal size, each at the place of its last."""
    if len(points) <= most:
        return list(points)
    ends = [round((number + 1) * len(points) / most) for number in range(most)]
    groups = [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from the first at or under ``low`` to the first at or over ``high``."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """A figure as short as it can be read."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _drawn(chart: Chart, style: str) -> Iterator[str]:
    lines = [Line(line.name, thinned(line.points), line.kind, line.colour) for line in chart.lines if line.points]
    xs = [x for line in lines for x, _ in line.points if line.kind != "level"] or [0.0]
    ys = [y for line in lines for _, y in line.points]
    legend = list(_legend(lines, 1 if chart.y else 0))
    top = ROW * (1 + max((row for row, _, _ in legend), default=0)) + 8
    y_ticks, right = ticks(min(ys), max(ys)), max(*xs, min(xs) + 1e-9)
    x_ticks = [x for x in ticks(min(xs), right, 4) if min(0, *xs) <= x <= right]
    left = min(xs[0], *x_ticks)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - top)

    space = ' xmlns="http://www.w3.org/2000/svg"' if style else ""
    label = escape(f"{chart.title}: {', '.join(line.name for line in lines)}")
    yield f'<svg{space} viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    yield f"<style>{style}</style><rect width='{WIDTH}' height='{HEIGHT}' class='paper'/>" if style else ""
    for y in y_ticks:
        _, at = place(left, y)
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{number(_round(y))}</text>'
    for x in x_ticks:
        at, _ = place(x, y_ticks[0])
        anchor = "end" if at > WIDTH - 25 else "middle"
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{number(_round(x))}</text>'
    yield f'<text x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(chart.x)}</text>'
    yield f'<text x="6" y="12">{escape(chart.y)}</text>'
    for line in lines:
        yield from _line(line, [place(*point) for point in line.points])
    for line, (row, place_of_name, name) in zip(lines, legend, strict=True):
        middle = ROW * row + 8
        yield f'<path class="c{line.colour % COLOURS} {line.kind}" d="M{place_of_name} {middle}h14"/>'
        yield f'<text x="{place_of_name + 18}" y="{middle + 4}">{escape(name)}</text>'
    yield "</svg>"


def _line(line: Line, places: Sequence[Point]) -> Iterator[str]:
    colour = f"c{line.colour % COLOURS}"
    if line.kind == "level":
        yield f'<path class="{colour} level" d="M{LEFT} {places[0][1]:.1f}H{WIDTH - RIGHT}"/>'
        return
    if len(places) > 1:
        yield f'<path class="{colour} {line.kind}" d="M{" ".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>'
    if line.kind == "dots" or len(places) == 1:
        for (x, y), (step, value) in zip(places, line.points, strict=True):
            told = escape(f"{line.name}, {number(step)}: {number(value)}")
            yield f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{told}</title></circle>'


def _legend(lines: Sequence[Line], row: int) -> Iterator[tuple[int, int, str]]:
    """Row, place and text of each name, from that row on."""
    left = 6
    for line in lines:
        name = line.name if len(line.name) <= 40 else f"{line.name[:39]}…"
        width = 28 + LETTER * len(name)
        if left > 6 and left + width > WIDTH - RIGHT:
            row, left = row + 1, 6
        yield row, left, name
        left += width


def _round(value: float) -> float:
    """Without what adding fractions has left behind."""
    return float(f"{value:.6g}")
