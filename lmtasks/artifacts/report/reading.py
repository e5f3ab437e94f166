"""A model's reading of held-out text, as ``report.json`` keeps it. It holds that text, so it is never published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from lmtasks.artifacts.durable import write_json
from lmtasks.artifacts.run_folder import READING
from lmtasks.errors import InputError


@dataclass(frozen=True)
class Guessed:
    """One target: what the model made of it.

    Args:
        probability: that it gave to the token that stood there.
        guesses: its likeliest tokens with their probabilities, likeliest first.
    """

    probability: float
    guesses: list[tuple[str, float]]


@dataclass(frozen=True)
class Surprise:
    """A target that the model thought unlikely, with the text on both sides."""

    before: str
    text: str
    after: str
    guessed: Guessed


@dataclass(frozen=True)
class Confidence:
    """Guesses of about one confidence: how many, the mean of it, and the share of them that was right."""

    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Position:
    """Places of an example from ``start`` to before ``end``: how many targets they had, and their mean loss in nats."""

    start: int
    end: int
    count: int
    loss: float


@dataclass(frozen=True)
class Reading:
    """The reading of some held-out examples.

    Args:
        examples, targets: how many were read.
        shown: examples as the texts of their tokens, each with what the model made of it if it was a target; special
            tokens that were none are left out, for a page would go by their letters whether text runs from the right.
        surprising: the targets of the lowest probabilities, lowest first.
        calibration: of the likeliest guesses, by confidence.
        positions: in groups of equal width.
    """

    examples: int
    targets: int
    shown: list[list[tuple[str, Guessed | None]]]
    surprising: list[Surprise]
    calibration: list[Confidence]
    positions: list[Position]

    @property
    def calibration_error(self) -> float:
        """The mean distance of confidence and share of right guesses (expected calibration error, Guo et al. 2017)."""
        return sum(one.count * abs(one.confidence - one.right) for one in self.calibration) / self.targets


def write_reading(folder: Path, reading: Reading) -> None:
    """Write ``report.json`` into a run folder."""
    write_json(folder / READING, asdict(reading))


def read_reading(folder: Path) -> Reading | None:
    """What ``report.json`` of a run folder holds; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / READING
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reading)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is damaged: {error}", "remove it, the report then leaves that part out") from error
