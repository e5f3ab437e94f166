"""Reading sounds: any file that libsndfile knows, at the rate that the model wants, as one channel.

Files are opened where a piece of them is wanted, so no more than a batch of sound is ever in memory. A sound at another
rate is resampled by ``scipy.signal.resample_poly``: a linear-phase filter, so that a piece can be made of its own
neighbourhood and is the same as if the whole file had been resampled.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from lmtasks import InputError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")

Wave = npt.NDArray[np.float32]

_REACH = 10
"""Half the length of scipy's filter, in samples of the lower of the two rates."""

_ENDS = 1 << 16
"""Bytes at either end of a file by which it is told from others."""


@contextmanager
def opened(cell: dict[str, Any]) -> Iterator[soundfile.SoundFile]:
    """The file of a cell ``{"path": ..., "bytes": ...}`` of ``datasets.Audio(decode=False)``.

    Raises:
        InputError: it is empty, not there, or no sound.
    """
    name = name_of(cell)
    hint = "leave it out, or convert it to wav or flac"
    if cell.get("bytes") is None and os.path.isfile(cell["path"]) and not os.path.getsize(cell["path"]):
        raise InputError(f"{name} is empty", "leave it out, or give a file with sound")
    try:
        with soundfile.SoundFile(cell["path"] if cell.get("bytes") is None else io.BytesIO(cell["bytes"])) as sound:
            yield sound
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} cannot be read as sound: {' '.join(reason.split()).rstrip('.')}", hint) from error


def name_of(cell: dict[str, Any]) -> str:
    """What to call a sound."""
    return str(cell.get("path") or "a sound without a name")


def extent(cell: dict[str, Any]) -> tuple[int, int]:
    """Samples of a sound in each channel, and its rate in hertz. Reads the last sample, to be sure that it is there."""
    with opened(cell) as sound:
        frames, rate = int(sound.frames), int(sound.samplerate)
        if frames:
            sound.seek(frames - 1)
            if not len(sound.read(1)):
                raise InputError(f"{name_of(cell)} ends before its {frames:,} samples", "copy or convert it again")
        return frames, rate


def resampled(frames: int, own: int, wanted: int) -> int:
    """How many samples a sound has at another rate."""
    return -(-frames * wanted // own)


def read(cell: dict[str, Any], start: int, stop: int, rate: int) -> Wave:
    """Part of a sound, the mean of its channels, float32 in [-1, 1].

    Args:
        start, stop: in samples at that rate.
        rate: in hertz.

    Raises:
        InputError: it cannot be read, ends early, or has samples that are not numbers.
    """
    with opened(cell) as sound:
        common = math.gcd(rate, sound.samplerate)
        up, down = rate // common, sound.samplerate // common
        reach = 0 if up == down else math.ceil(_REACH * max(up, down) / up) + 1
        first = max(0, start * down // up - reach)
        first -= first % down  # so that the new samples lie where they do in the whole
        last = min(sound.frames, -(-stop * down // up) + reach)
        sound.seek(first)
        wave = sound.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
    if up != down:
        wave = resample_poly(wave, up, down).astype(np.float32)
    offset = start - first * up // down
    wave = wave[offset : offset + stop - start]
    if len(wave) < stop - start:
        raise InputError(f"{name_of(cell)} ends early", "copy or convert it again")
    if not np.isfinite(wave).all():
        raise InputError(f"{name_of(cell)} has samples that are not numbers", "leave it out, or convert it again")
    return wave


def key_of(cell: dict[str, Any]) -> bytes:
    """16 bytes that tell a sound from others: by its size, its first bytes and its last ones."""
    content = cell.get("bytes")
    if content is not None:
        size, ends = len(content), content[:_ENDS] + content[-_ENDS:]
    else:
        with Path(cell["path"]).open("rb") as file:
            size, ends = os.fstat(file.fileno()).st_size, file.read(_ENDS)
            file.seek(max(0, size - _ENDS))
            ends += file.read(_ENDS)
    return blake2b(size.to_bytes(8, "little") + ends, digest_size=16).digest()
