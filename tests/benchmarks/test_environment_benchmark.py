"""The judges of faults and of secrets: what is wrong is counted as wrong, and what is right as right."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from reliability import environment, secrets
from reliability.environment import Bench, Command, Ended, contents, fill, settled, small_disk, use_up_files

TOLD = "echo 'error: the disk is full' >&2; echo 'hint: free some' >&2"
DONE = 'echo right > out/run/model.safetensors; echo \'{"status": "done"}\' > out/run/run.json'
BEGUN = "mkdir -p out/run/checkpoints/checkpoint-10; cd out/run/checkpoints/checkpoint-10; "
BEGUN += "for name in model.safetensors tokenizer.json manifest.json; do echo whole > $name; done; cd ../../../..; "
WAIT = "while [ ! -e struck ]; do sleep 0.01; done; "


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are lines of a shell instead of lmtasks'."""

    def start(self: Command, place: Path, words: str, **_: Any) -> None:
        self.streams = [(place / name).open("w+") for name in ("o", "e")]
        self.process = subprocess.Popen(["sh", "-c", words], cwd=place, stdout=self.streams[0], stderr=self.streams[1])

    monkeypatch.setattr(Command, "__init__", start)
    monkeypatch.setattr(environment, "PATIENCE", 20.0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench whose right weights are known without a run."""
    made = object.__new__(Bench)
    made.folder, made.numbers, made.text = tmp_path, iter(range(9)), "text"
    (tmp_path / "right").write_text("right\n")
    made.weights = environment.digest(tmp_path / "right")
    return made


@pytest.mark.parametrize(
    ("first", "again", "problem"),
    [
        (f"{TOLD}; exit 3", DONE, ""),
        (f"{TOLD}; exit 1", DONE, "exit code 1"),
        (DONE, DONE, "exit code 0"),
        ("echo 'Traceback (most recent call last):' >&2; exit 3", DONE, "not told in two lines"),
        (f"{TOLD}; {TOLD}; exit 3", DONE, "not told in two lines"),
        ("echo 'error: other' >&2; echo 'hint: x' >&2; exit 3", DONE, "does not say disk is full"),
        (f"echo half > out/run/checkpoints/checkpoint-10/tokenizer.json; {TOLD}; exit 3", DONE, "changed: checkpoint"),
        (f"rm -r out/run/checkpoints; {TOLD}; exit 3", DONE, "changed: checkpoints"),
        (f"{TOLD}; exit 3", "exit 2", "then exit 2"),
        (f"{TOLD}; exit 3", f"{DONE}; echo wrong > out/run/model.safetensors", "other weights"),
        (f"{TOLD}; exit 3", f"{DONE}; touch out/run/.lock", "something left over"),
        (f"{TOLD}; exit 3", f"{DONE}; echo '{{\"status\": \"running\"}}' > out/run/run.json", "other weights"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("scripted")
def test_what_happens_to_a_run_is_judged(first: str, again: str, problem: str, bench: Bench) -> None:
    place = bench.place()
    mended = []

    def strike(_: Command) -> Callable[[], None]:
        (place / "struck").touch()
        return lambda: mended.append(True)

    reached = settled(place / "out/run/checkpoints/checkpoint-10")
    what, told, good = environment.struck(
        bench, "a fault", place, reached, strike, f"{BEGUN}{WAIT}{first}", again, "disk is full"
    )
    assert what == "a fault" and mended == [True]
    assert good == (not problem), told
    assert problem in told


@pytest.mark.usefixtures("scripted")
def test_a_fault_that_comes_too_late_proves_nothing(bench: Bench) -> None:
    def never(_: Command) -> Callable[[], None]:
        raise AssertionError("there is nothing to strike")

    row = environment.struck(bench, "a fault", bench.place(), lambda: False, never, "exit 0", "exit 0")
    assert row == ("a fault", "the fault came too late; exit 0", False)


def test_a_command_is_one_of_this_lmtasks(bench: Bench) -> None:
    place = bench.place()
    ended = Command(place, ["run", "nothing"]).ended()
    assert (ended.code, ended.told) == (2, True)
    assert ended.words.startswith("exit 2: unknown recipe 'nothing'")
    assert sorted(path.name for path in place.iterdir()) == ["out", "text.txt"]
    assert not Ended(0, "", "").told


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if not environment.can_mount(place):
        pytest.skip("this user may not mount a tmpfs")
    with small_disk(place, "size=1m,nr_inodes=50"):
        yield place


def test_a_disk_is_filled_to_the_last_byte_and_emptied(disk: Path) -> None:
    ballast = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(b"x")
    environment.remove(ballast)
    (disk / "more").write_bytes(b"x" * 1000)


def test_files_are_used_up_and_given_back(disk: Path) -> None:
    ballast = use_up_files(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").touch()
    assert os.statvfs(disk).f_bavail > 0
    environment.remove(ballast)
    (disk / "more").touch()
    assert list(contents(disk)) == ["more"]


# --- secrets ---


def measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: bytes = b"", code: int = 0
) -> tuple[int, int, list[str]]:
    """What is found where one quick command is given, and says something more."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = secrets._said

    def also(*arguments: Any) -> list[tuple[str, bytes]]:
        return [*plain(*arguments), ("a traceback", said)]

    monkeypatch.setattr(secrets, "_commands", lambda place: iter([(["--version"], code)]))
    monkeypatch.setattr(secrets, "_said", also)
    return secrets.measure(folder)


def test_where_there_is_no_secret_none_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, count, where = measured(tmp_path, monkeypatch)
    assert (count, where) == (0, []) and scanned >= 6


def test_what_does_not_end_as_it_should_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"the output of lmtasks --version \(0, exit 0\), and not 3"):
        measured(tmp_path, monkeypatch, code=3)


def test_secrets_are_found_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "home" / secrets.USER / "work" / "out" / "run"
    run.mkdir(parents=True)
    (run / "run.json").write_text(
        json.dumps({"settings": {"note": f"by {secrets.USER}", "file": f"/home/{secrets.USER}/x"}})
    )
    (run / "README.md").write_text(f"trained in {run}")
    (run / "training_args.bin").write_bytes(secrets.WANDB.encode("utf-16-le"))
    _, count, where = measured(tmp_path, monkeypatch, b"token: hf_" + b"x" * 30)
    assert count == len(where)
    found = "\n".join(where)
    assert "another key in work/out/run/training_args.bin" in found
    assert "a token in a traceback" in found
    assert f"{secrets.USER} in out/run/README.md" in found
    assert "run.json as published" in found, "a name in a sentence is no path, and stays"
    (run / "README.md").unlink()  # the suite's own scanner would find it


@pytest.mark.parametrize("before", [b"", b"a", b"ab"])
def test_a_secret_is_found_in_base64_at_any_place(before: bytes) -> None:
    assert secrets._holds(b"x" + base64.b64encode(before + secrets.WANDB.encode() + b"after"), secrets.WANDB)
    assert not secrets._holds(base64.b64encode(b"nothing at all of that kind"), secrets.WANDB)
