"""Streams of a command: closed ones, readers that leave, encodings that lack letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

LETTERS = "naïve 日本 \U0001f600"


def typed(
    words: Sequence[str], shell: str = "", env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[bytes]:
    """A command in a shell, which has something to say about its streams."""
    command = f'"$0" -m lmtasks "$@" {shell}'
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        ["sh", "-c", command, sys.executable, *words],
        env=environment,
        capture_output=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_changes_no_exit_code(closed: str) -> None:
    done = typed(["list"], closed)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert (b"masked-lm" in done.stdout) is (closed == "2>&-")


def test_errors_never_go_where_results_go() -> None:
    done = typed(["show", "nosuch", "--json"], "2>&-")
    assert (done.returncode, done.stdout) == (2, b"")


def test_an_error_that_nobody_can_read_keeps_its_exit_code() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("a device that is always full")
    assert typed(["show", "nosuch"], "2>/dev/full").returncode == 2


def test_a_run_whose_progress_nobody_reads_any_more_goes_on(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = ["run", "causal-lm", "--model", str(model_folders["gpt2"]), "--train_file", str(text_file)]
    words += ["--block_size", "16", "--max_steps", "2", "--use_cpu", "--output_dir", "out"]
    # A flag that comes again is the first thing that is told.
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lmtasks", *words, "--logging_steps", "2", "--logging_steps", "1"],
        stdout=subprocess.PIPE,
        stderr=writer,
        cwd=tmp_path,
        env=environment,
        timeout=300,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert b"perplexity" in done.stdout
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_letters_that_an_encoding_lacks_end_no_command(
    encoding: str, tmp_path: Path, model_folders: dict[str, Path]
) -> None:
    (tmp_path / "text.txt").write_text(f"{LETTERS}\n" * 60, encoding="utf-8")
    words = ["data", "causal-lm", "--model", str(model_folders["gpt2"]), "--block_size", "16"]
    words += ["--train_file", "text.txt"]
    environment = {"PYTHONIOENCODING": encoding}
    for_people = typed(words, env=environment, cwd=tmp_path)
    assert (for_people.returncode, b"naive" in for_people.stdout) == (0, False)
    assert ("naïve" in for_people.stdout.decode(encoding)) is (encoding != "ascii")
    as_json = typed([*words, "--json"], env=environment, cwd=tmp_path)
    assert json.loads(as_json.stdout.decode(encoding))["documents"][0]["text"].startswith(LETTERS)


def test_a_file_whose_name_is_no_text_is_told_in_any_case(tmp_path: Path, model_folders: dict[str, Path]) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    try:
        (tmp_path / name).write_text("a line of text\n" * 60, encoding="utf-8")
    except OSError:
        pytest.skip("a file system whose names are Unicode")
    words = ["data", "causal-lm", "--model", str(model_folders["gpt2"]), "--block_size", "16", "--train_file", name]
    assert b"caf\\udce9.txt" in typed(words, cwd=tmp_path).stdout
    assert json.loads(typed([*words, "--json"], cwd=tmp_path).stdout)["source"] == name
