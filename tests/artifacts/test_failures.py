"""Failures of the machine, caused for real where that can be done, end in one line and what to do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from lmtasks.artifacts import failures
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.run_folder import require_space
from lmtasks.errors import InputError, RunError


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as after ``ulimit -f``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failed(cause: Any, *arguments: Any, folder: Path | None = None) -> RunError:
    with pytest.raises(RunError) as caught, machine_failures(folder, "then resume"):
        cause(*arguments)
    assert "\n" not in caught.value.message and "\n" not in caught.value.hint
    assert caught.value.__cause__ is not None, "whoever looks for the reason finds all of it"
    return caught.value


def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("content")


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "{}", "text"),
        ("evaluate", "{}"),
        ("push", "{}", "me/it"),
        ("report", "{}"),
        ("runs", "{}"),
        ("merge", "{}", "out"),
        ("merge", ".", "{}"),
        ("run", "masked-lm", "--model", "{}"),
        ("new-plugin", "a", "--output_dir", "{}"),
    ],
)
def test_a_name_that_is_too_long_is_the_users_mistake(words: tuple[str, ...], lmtasks: Any) -> None:
    outcome = lmtasks(*(word.format("word" * 600) for word in words))
    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk(tmp_path: Path) -> None:
    told = failed(write, "/dev/full", folder=tmp_path)
    assert told.message == f"the disk is full: '{tmp_path}': {os.strerror(errno.ENOSPC)}"
    assert told.hint == "free some space, then resume"


@pytest.mark.parametrize(
    "save",
    [
        lambda path: path.write_bytes(bytes(9000)),
        lambda path: save_file({"weights": torch.zeros(9000)}, path),
        lambda path: torch.save({"weights": torch.zeros(9000)}, path),
        lambda path: Tokenizer(models.WordLevel({str(i): i for i in range(9000)}, unk_token="0")).save(str(path)),
    ],
    ids=["Python", "safetensors", "torch", "tokenizers"],
)
def test_a_limit_of_files_in_whatever_words_a_library_tells_it(save: Any, tmp_path: Path) -> None:
    with small_files(4096):
        told = failed(save, tmp_path / "file", folder=tmp_path)
    assert told.message.startswith("a file would be larger than may be written here: '")
    assert told.hint == "raise the limit (ulimit -f unlimited), then resume"
    assert not (tmp_path / ".room.new").exists()


TAKES = (lambda: np.zeros(1 << 50), lambda: torch.empty(1 << 50))


@pytest.mark.parametrize("take", TAKES, ids=["numpy", "torch"])
def test_no_memory(take: Any) -> None:
    told = failed(take)
    room = "" if take is TAKES[0] else ": there was no room for 4,294,967,296.0 MiB"
    assert told.message == f"out of memory{room}"
    assert "halve --per_device_train_batch_size" in told.hint


@pytest.mark.parametrize(
    ("number", "problem", "hint"),
    [
        (errno.EDQUOT, "quota", "free some space"),
        (errno.EROFS, "a disk can only be read", "make it writable"),
        (errno.EACCES, "no permission", "give it back"),
        (errno.EPERM, "no permission", "give it back"),
        (errno.EIO, "a disk failed", "look after the disk"),
        (errno.ESTALE, "a network disk went away", "bring it back"),
        (errno.EMFILE, "too many files are open", "ulimit -n"),
        (errno.ENFILE, "too many files are open on this machine", "close some"),
        (errno.ENOMEM, "out of memory", "free some memory"),
    ],
)
def test_what_else_a_system_refuses(number: int, problem: str, hint: str) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number), "some/file")

    told = failed(refuse)
    assert problem in told.message and hint in told.hint
    assert ("'some/file'" in told.message) == (number != errno.ENOMEM)


def test_a_failure_below_another_is_found() -> None:
    def wrapped() -> None:
        try:
            raise OSError(errno.ENOSPC, "no space")
        except OSError as error:
            raise RuntimeError("An error occurred while generating the dataset") from error

    def on_the_way_out() -> None:
        try:
            raise OSError(errno.ENOSPC, "no space")
        finally:
            raise RuntimeError("unfinished")

    for cause in (wrapped, on_the_way_out):
        assert failed(cause).message.startswith("the disk is full")


def test_a_folder_that_somebody_removes(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    told = failed((gone / "file").write_text, "content", folder=gone)
    assert told.message == f"the folder '{gone}' was removed meanwhile"


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), RuntimeError("x"), KeyboardInterrupt(), InputError("x")],
)
def test_anything_else_passes_through(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, machine_failures(tmp_path):
        raise error
    assert caught.value is error


def test_no_room_for_files_is_told_apart_from_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = os.statvfs(tmp_path)

    class Counted:
        f_files, f_favail = 1000, failures.FILES - 1
        f_frsize, f_blocks, f_bfree, f_bavail = about.f_frsize, about.f_blocks, about.f_bfree, about.f_bavail

    monkeypatch.setattr(os, "statvfs", lambda path: Counted)
    told = failed(write, "/dev/full", folder=tmp_path / "not" / "there")
    assert "no room for more files (inodes)" in told.message
    assert "remove some files" in told.hint
    with pytest.raises(InputError, match=rf"takes {failures.FILES - 1} more files \(inodes\)"):
        require_space(tmp_path, 1)
    Counted.f_favail = failures.FILES
    require_space(tmp_path, 1)
    Counted.f_files = Counted.f_favail = 0  # as btrfs, which counts none
    require_space(tmp_path, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_every_command_tells_of_it(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lmtasks", "list"]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: the disk is full: {os.strerror(errno.ENOSPC)}", "hint: free some space, then try again"
    ]  # fmt: skip


def test_a_current_folder_that_was_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the folder in which this was typed was removed"), machine_failures():
        Path("out").resolve()


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_a_cache_that_cannot_be_made_is_told_with_the_variable_that_says_where(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for one in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    below = {"HF_HOME": "datasets", "XDG_CACHE_HOME": "huggingface/datasets", "HOME": ".cache/huggingface/datasets"}
    with pytest.raises(InputError, match="cannot be made") as caught, machine_failures():
        (tmp_path / "file" / below[variable]).mkdir(parents=True)
    assert "HF_HOME" in caught.value.hint


def test_a_file_that_is_not_there_is_a_bug_and_no_failure_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError), machine_failures():
        (tmp_path / "gone").read_bytes()
