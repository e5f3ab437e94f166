"""Recordings as examples: cut where they are too long, left out where they are too short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lmtasks import InputError
from lmtasks_masked_speech.audio import cells
from lmtasks_masked_speech.sounds import extent, key_of, read, resampled


def steps_of(samples: int, config: Any) -> int:
    """How many steps the convolutions of the model make of so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(0, samples)


def cuts(samples: int, most: int) -> list[tuple[int, int]]:
    """The fewest parts of nearly equal length that are none longer than ``most``."""
    parts = -(-samples // most)
    return list(pairwise(number * samples // parts for number in range(parts + 1))) if samples else []


@dataclass(frozen=True)
class Pieces:
    """How recordings become examples. What the recipe's ``preprocess`` returns.

    Args:
        max_seconds: the longest example.
        min_seconds: the shortest.
        span: steps that are hidden in a row; no example may have fewer.
    """

    max_seconds: float
    min_seconds: float
    span: int

    def examples(self, name: str, split: Any, processor: Any, config: Any) -> Clips:
        """The pieces of a split.

        Raises:
            InputError: every recording is too short, or the model is none that can learn from these.
        """
        require_hiding(config)
        rate = processor.sampling_rate
        digest = blake2b(repr((self, rate, processor.do_normalize)).encode(), digest_size=16)
        places: list[tuple[int, int, int]] = []
        short = other = 0
        numbers = split.numbers()
        for number, cell in zip(numbers.tolist(), cells(split.rows, split.column, numbers), strict=True):
            digest.update(key_of(cell))
            frames, own = extent(cell)
            other += own != rate
            parts = cuts(resampled(frames, own, rate), int(self.max_seconds * rate))
            kept = [part for part in parts if self._is_enough(part[1] - part[0], rate, config)]
            short += len(parts) - len(kept)
            places += [(number, *part) for part in kept]
        if not places:
            raise InputError(
                f"all recordings of the {name} audio are shorter than {self._shortest(rate, config):g} seconds",
                "give longer ones, or lower --min_seconds",
            )
        table = np.array(places, dtype=np.int64)
        return Clips(split.rows, split.column, table, processor, config, len(numbers), short, other, digest.hexdigest())

    def _is_enough(self, samples: int, rate: int, config: Any) -> bool:
        return samples >= self.min_seconds * rate and steps_of(samples, config) >= max(self.span, 2)

    def _shortest(self, rate: int, config: Any) -> float:
        samples = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        ratio = int(np.prod(config.conv_stride))
        return max(self.min_seconds, round((samples + (max(self.span, 2) - 1) * ratio) / rate, 3))


def require_hiding(config: Any) -> None:
    """Refuse configurations with which a model would hide nothing, or have fewer steps than are hidden.

    Raises:
        InputError: names the field.
    """
    if not getattr(config, "apply_spec_augment", True):
        raise InputError("the model hides nothing: its configuration says apply_spec_augment false", "set it to true")
    if not config.mask_time_prob and not config.mask_feature_prob:
        raise InputError(
            "the model has no vector for what is hidden: its configuration says mask_time_prob 0",
            "set it to 0.05; how much is hidden here, --mask_time_prob says",
        )
    if getattr(config, "add_adapter", False):
        raise InputError(
            "the model has an adapter behind its encoder, which makes fewer steps of it", "set add_adapter to false"
        )


@dataclass(frozen=True)
class Clips:
    """A split as examples: pieces of its recordings, read when they are asked for.

    Args:
        rows: with the recordings.
        column: path of their column.
        places: int64 [pieces, 3], the row of each, and where in it the piece begins and ends, in samples.
        processor: the feature extractor.
        config: of the model.
        recordings: how many there are.
        short: how many pieces were left out because they are too short.
        other: how many recordings have another rate than the model.
        content: changes with the recordings, and the way they are read and cut.
    """

    rows: Any
    column: tuple[str, ...]
    places: npt.NDArray[np.int64]
    processor: Any
    config: Any
    recordings: int
    short: int
    other: int
    content: str

    unit = "audio seconds"

    def __len__(self) -> int:
        return len(self.places)

    @property
    def total(self) -> float:
        """Seconds of all pieces."""
        return round(float((self.places[:, 2] - self.places[:, 1]).sum()) / self.processor.sampling_rate, 1)

    @property
    def per_example(self) -> float:
        """Seconds of a piece, on average."""
        return self.total / len(self)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return blake2b(self.content.encode() + self.places.tobytes(), digest_size=16).hexdigest()

    def example(self, index: int) -> dict[str, Any]:
        """``input_values``, float32 [samples], as the feature extractor makes them, and ``steps``, how many it has."""
        number, start, stop = self.places[index].tolist()
        (cell,) = cells(self.rows, self.column, [number])
        return example_of(read(cell, start, stop, self.processor.sampling_rate), self.processor, self.config)

    def longest_first(self) -> Iterator[int]:
        """The numbers of the pieces, by length."""
        yield from np.argsort(self.places[:, 1] - self.places[:, 2], kind="stable").tolist()

    def head(self, examples: int | None) -> Clips:
        """The first so many pieces; all when None."""
        return replace(self, places=self.places[:examples])

    def sizes(self) -> dict[str, Any]:
        """For plan, record and card."""
        return {
            "rows": self.recordings,
            "unit": "recordings",
            "seconds": self.total,
            "pieces": len(self),
            "too_short": self.short,
            "fingerprint": self.fingerprint,
        }

    def notes(self, name: str) -> Iterator[str]:
        """What a person should know before training on them."""
        if self.other:
            rate = self.processor.sampling_rate
            yield f"{self.other:,} of {self.recordings:,} {name} recordings are resampled to {rate:,} Hz"
        if self.short:
            yield f"{self.short:,} {name} recordings, or pieces of them, are too short and left out"


def example_of(wave: npt.NDArray[np.float32], processor: Any, config: Any) -> dict[str, Any]:
    """An example of a wave at the processor's rate. Alone, so that it is normalised by itself."""
    values = processor(wave, sampling_rate=processor.sampling_rate, return_tensors="np")["input_values"][0]
    return {"input_values": values.astype(np.float32), "steps": steps_of(len(wave), config)}
