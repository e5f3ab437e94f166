"""Sounds come out at the wanted rate as they are in the file, whichever piece is asked for; the rest is an error."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
from lmtasks_masked_speech.audio import select
from lmtasks_masked_speech.pieces import cuts
from lmtasks_masked_speech.sounds import extent, key_of, read, resampled
from scipy.signal import resample_poly
from small import RATE, chirp

from lmtasks import InputError


def cell(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": None}


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_every_kind_of_sample_is_a_number_between_minus_one_and_one(subtype: str, tmp_path: Path) -> None:
    wave = chirp(0.5)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype=subtype)
    assert extent(cell(tmp_path / "a.wav")) == (8000, RATE)
    found = read(cell(tmp_path / "a.wav"), 0, 8000, RATE)
    assert found.dtype == np.float32
    assert found == pytest.approx(wave, abs=2**-15)
    content = {"path": None, "bytes": (tmp_path / "a.wav").read_bytes()}
    assert np.array_equal(read(content, 0, 8000, RATE), found)
    assert key_of(content) == key_of(cell(tmp_path / "a.wav"))


def test_channels_become_their_mean(tmp_path: Path) -> None:
    left, right = chirp(0.3, 1), chirp(0.3, 2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    assert read(cell(tmp_path / "a.wav"), 100, 4000, RATE) == pytest.approx((left + right)[100:4000] / 2, abs=1e-6)


@pytest.mark.parametrize("own", [8000, 22_050, 44_100, 48_000, 11_025])
def test_a_piece_is_the_same_as_if_the_whole_file_had_been_resampled(own: int, tmp_path: Path) -> None:
    wave = chirp(1.0, rate=own)
    soundfile.write(tmp_path / "a.wav", wave, own, subtype="FLOAT")
    whole = resample_poly(wave.astype(np.float64), RATE, own)
    assert len(whole) == resampled(len(wave), own, RATE)
    for start, stop in [(0, len(whole)), (0, 500), (1, 2), (7777, 9999), (len(whole) - 321, len(whole))]:
        assert read(cell(tmp_path / "a.wav"), start, stop, RATE) == pytest.approx(whole[start:stop], abs=1e-5)


def test_a_tone_keeps_its_pitch_at_another_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(2 * np.pi * 440 * np.arange(8000) / 8000), 8000)
    spectrum = np.abs(np.fft.rfft(read(cell(tmp_path / "a.wav"), 0, RATE, RATE)))
    assert int(spectrum.argmax()) == 440


@pytest.mark.parametrize(("samples", "most"), [(10, 10), (11, 10), (29, 10), (1, 10), (100, 7)])
def test_long_recordings_are_cut_evenly_and_nothing_is_lost(samples: int, most: int) -> None:
    parts = cuts(samples, most)
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == samples
    lengths = [stop - start for start, stop in parts]
    assert max(lengths) <= most and max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-samples // most)
    assert cuts(0, most) == []


def test_files_that_are_no_sound_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all")
    for name, message in [
        ("empty.wav", "is empty"),
        ("text.wav", "cannot be read as sound"),
        ("gone.wav", "cannot be"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            extent(cell(tmp_path / name))
        assert str(tmp_path / name) in caught.value.message and "\n" not in caught.value.message
    soundfile.write(tmp_path / "cut.flac", chirp(1.0), RATE)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.flac"):
        extent(cell(tmp_path / "cut.flac"))
    wave = chirp(0.5)
    wave[77] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="samples that are not numbers"):
        read(cell(tmp_path / "nan.wav"), 0, 8000, RATE)
    with pytest.raises(InputError, match="ends early"):
        read(cell(tmp_path / "nan.wav"), 7000, 9000, RATE)


def test_sounds_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    for name, seed in [("a", 1), ("b", 2), ("same", 1)]:
        soundfile.write(tmp_path / f"{name}.wav", chirp(0.5, seed), RATE)
    a, b, same = (key_of(cell(tmp_path / f"{name}.wav")) for name in ("a", "b", "same"))
    assert a == same != b


def rows_with(**columns: Any) -> datasets.Dataset:
    features = {
        name: datasets.Audio(decode=False) if name.startswith("a") else datasets.Value("string") for name in columns
    }
    return datasets.Dataset.from_dict({name: ["x.wav"] for name in columns}).cast(datasets.Features(features))


def test_the_audio_column_is_found_or_named() -> None:
    assert select(rows_with(text=1, audio=1, a2=1), None, "data")[1] == ("audio",)
    rows, column = select(rows_with(text=1, a2=1), None, "data")
    assert column == ("a2",) and rows.column_names == ["a2"]
    assert select(rows_with(audio=1, a2=1), "a2", "data")[1] == ("a2",)
    for columns, name, message in [
        ({"text": 1}, None, "cannot tell which column of data is the audio: it has text"),
        ({"a1": 1, "a2": 1}, None, "cannot tell"),
        ({"audio": 1}, "sound", "no column 'sound' in data"),
        ({"audio": 1, "text": 1}, "text", "column 'text' of data holds no audio"),
    ]:
        with pytest.raises(InputError, match=message):
            select(rows_with(**columns), name, "data")
