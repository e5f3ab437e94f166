"""The run folder: who may write there, what is removed, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmtasks.artifacts import lock
from lmtasks.artifacts.checkpoints import begin
from lmtasks.artifacts.durable import write_json
from lmtasks.artifacts.lock import LOCK, require_free, reserved
from lmtasks.artifacts.run_folder import (
    OWN,
    choose_folder,
    clear,
    digests,
    is_bare,
    read_record,
    read_whole,
    require_intact,
    save_into,
    sealed,
    sweep,
    unsealed,
)
from lmtasks.errors import InputError

REQUEST = "0123456789abcdef"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def unfinished(**more: Any) -> Path:
    """A folder with the record of a run of ``REQUEST``."""
    Path("out").mkdir(exist_ok=True)
    write_json(Path("out/run.json"), {"status": "running", "recipe": "masked-lm", "request": REQUEST, **more})
    return Path("out")


# --- which folder ---


def test_the_wanted_folder_is_taken_whether_it_exists_or_not() -> None:
    Path("there").mkdir()
    assert choose_folder("masked-lm", "there") == Path("there")
    assert choose_folder("masked-lm", "a/b") == Path("a/b")


def test_without_a_wish_it_is_the_first_free_number() -> None:
    assert choose_folder("masked-lm", None) == Path("runs/masked-lm")
    Path("runs/masked-lm").mkdir(parents=True)
    assert choose_folder("masked-lm", None) == Path("runs/masked-lm-2")
    Path("runs/masked-lm-3").mkdir()
    assert choose_folder("masked-lm", None) == Path("runs/masked-lm-2")
    Path("runs/masked-lm-2").write_text("a file is not free either")
    assert choose_folder("masked-lm", None) == Path("runs/masked-lm-4")
    assert choose_folder("causal-lm", None) == Path("runs/causal-lm")
    assert choose_folder("masked-lm", None, lambda folder: folder.name.endswith("-3")) == Path("runs/masked-lm-3")


# --- one run at a time ---

HOLDING = """
import sys, time
from pathlib import Path
from lmtasks.artifacts.lock import reserved

with reserved(Path("out")):
    print("reserved", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder ``out``."""
    with subprocess.Popen([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "reserved\n"
        yield process
        process.kill()


def test_a_folder_that_a_run_has_is_refused_and_the_process_named(holder: subprocess.Popen[str]) -> None:
    for refused in (lambda: require_free(Path("out")), lambda: reserved(Path("out")).__enter__()):
        with pytest.raises(InputError) as caught:
            refused()
        assert caught.value.message == f"output_dir 'out' is in use: process {holder.pid} runs there"
        assert caught.value.hint == "wait until it is done, or choose another --output_dir"


def test_a_killed_run_keeps_nobody_out(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert Path("out", LOCK).exists()
    assert is_bare(Path("out"))
    require_free(Path("out"))
    with reserved(Path("out")):
        assert is_bare(Path("out"))
    assert list(Path("out").iterdir()) == []


def test_a_run_has_its_folder_until_it_ends_however_it_does() -> None:
    with pytest.raises(ZeroDivisionError), reserved(Path("deep/out")):
        assert Path("deep/out", LOCK).read_text() == str(os.getpid())
        with pytest.raises(InputError, match=f"process {os.getpid()} runs there"):
            require_free(Path("deep/out"))
        raise ZeroDivisionError
    assert list(Path("deep/out").iterdir()) == []
    require_free(Path("deep/out"))
    require_free(Path("not/there"))


def test_who_opened_the_lock_of_a_run_that_has_ended_makes_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the lock and taking it, the run that had it may end and another begin."""
    fcntl = pytest.importorskip("fcntl")
    took = fcntl.flock

    def late(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", took)
        Path("out", LOCK).unlink()
        took(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with reserved(Path("out")), pytest.raises(InputError, match="is in use"):
        require_free(Path("out"))


def test_where_there_are_no_locks_runs_go_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with reserved(Path("out")):
        assert list(Path("out").iterdir()) == []
        require_free(Path("out"))


# --- what is written and removed ---


def test_clearing_removes_what_the_run_recorded_and_nothing_else() -> None:
    unfinished(files=["model.safetensors", "config.json"])
    begin(Path("out/checkpoints/checkpoint-2"))
    Path("out/checkpoints/checkpoint-best").mkdir()
    own = [name for name in OWN if name != "run.json"]
    for name in (*own, "model.safetensors", "config.json", "notes.txt", "other.safetensors"):
        Path("out", name).write_text("content")
    clear(Path("out"))
    assert {path.name for path in Path("out").iterdir()} == {"notes.txt", "other.safetensors", "checkpoints"}
    assert [path.name for path in Path("out/checkpoints").iterdir()] == ["checkpoint-best"]


def test_clearing_never_leaves_the_folder() -> None:
    """Whoever gives away a run folder must not be able to name files of those who overwrite it."""
    outside = Path("precious.txt").absolute()
    outside.write_text("mine")
    unfinished(files=["../precious.txt", str(outside), "sub/../../precious.txt", "..", ".", "", "/"])
    Path("out/notes.txt").write_text("mine too")
    clear(Path("out"))
    assert outside.read_text() == "mine"
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_clearing_what_is_no_run_removes_nothing() -> None:
    Path("out").mkdir()
    Path("out/README.md").write_text("mine")
    clear(Path("out"))
    assert Path("out/README.md").read_text() == "mine"


def test_clearing_removes_a_link_and_not_what_it_points_to() -> None:
    unfinished()
    Path("elsewhere").mkdir()
    Path("elsewhere/log.jsonl").write_text("mine")
    Path("out/log.jsonl").symlink_to(Path("elsewhere/log.jsonl").absolute())
    Path("out/checkpoints").symlink_to(Path("elsewhere").absolute())
    clear(Path("out"))
    assert Path("elsewhere/log.jsonl").read_text() == "mine"
    assert list(Path("out").iterdir()) == []


def test_what_a_killed_run_leaves_half_written_blocks_nobody_and_is_swept_away() -> None:
    Path("out/.saving").mkdir(parents=True)
    for name in (".lock", ".saving/model.safetensors", ".run.json.new", ".README.md.new"):
        Path("out", name).write_text("half")
    assert is_bare(Path("out"))
    Path("out/.env").write_text("TOKEN=1")
    assert not is_bare(Path("out"))
    sweep(Path("out"))
    assert {path.name for path in Path("out").iterdir()} == {".lock", ".env"}


def test_a_link_is_nobodys_leftover() -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.txt").write_text("mine")
    Path("out").mkdir()
    Path("out/.saving").symlink_to(Path("elsewhere").absolute())
    assert not is_bare(Path("out"))
    sweep(Path("out"))
    assert Path("out/.saving/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "'out/model' is missing"),
        (lambda path: path.write_text("modes"), "'out/model' is not as the run left it"),
        (lambda path: path.write_text("mod"), "'out/model' is not as the run left it"),
    ],
)
def test_a_finished_run_whose_files_were_damaged_is_refused(harm: Callable[[Path], Any], said: str) -> None:
    unfinished()
    names = save_into(Path("out"), Part("model"))
    unfinished(status="done", sha256=digests(Path("out"), [*names, "gone"]))
    require_intact("out")
    harm(Path("out/model"))
    with pytest.raises(InputError) as caught:
        require_intact("out")
    assert caught.value.message == said
    assert "take its line out of 'sha256' in out/run.json" in caught.value.hint
    unfinished(status="running", sha256={"model": "0"})
    require_intact("out")
    require_intact("no/such/folder")


def test_a_finished_record_vouches_for_itself() -> None:
    unfinished()
    record = {"recipe": "masked-lm", "status": "done", "metrics": {"eval_loss": 0.1, 2: "é"}, "sha256": {}}
    write_json(Path("out/run.json"), sealed(record))
    require_intact("out")
    text = Path("out/run.json").read_text(encoding="utf-8")
    Path("out/run.json").write_text(text.replace("0.1", "0.3"), encoding="utf-8")
    with pytest.raises(InputError, match=r"^'out/run\.json' is not as the run left it"):
        require_intact("out")
    write_json(Path("out/run.json"), unsealed(record))
    require_intact("out")


@pytest.mark.parametrize("name", ["options", "settings", "data"])
def test_a_record_that_somebody_has_changed_is_refused_before_it_is_believed(name: str) -> None:
    unfinished()
    record = sealed({"recipe": "masked-lm", "status": "done", name: {}, "sha256": {}})
    write_json(Path("out/run.json"), {**record, name: [1]})
    with pytest.raises(InputError, match="not as the run left it"), read_whole("out"):
        raise AssertionError("it was read")


def test_a_record_has_no_say_about_files_elsewhere() -> None:
    Path("secret.txt").write_text("secret")
    unfinished(status="done", sha256={"../secret.txt": "0", "/etc/hostname": "0"})
    require_intact("out")
    unfinished(status="done", sha256=["model"])
    require_intact("out")


def test_json_is_replaced_in_one_step_and_readable() -> None:
    path = Path("numbers.json")
    write_json(path, {"a": 1})
    before = path.stat().st_ino
    write_json(path, {"a": 0.1 + 0.2, "b": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 0.1 + 0.2, "b": "é"}
    assert "é" in path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert path.stat().st_ino != before, "another file took its place"
    assert [entry.name for entry in Path().iterdir()] == ["numbers.json"]


def test_what_json_cannot_hold_leaves_the_old_file() -> None:
    write_json(Path("numbers.json"), {"a": 1})
    with pytest.raises(TypeError):
        write_json(Path("numbers.json"), {"a": object()})
    assert json.loads(Path("numbers.json").read_text()) == {"a": 1}


def test_reading_a_record() -> None:
    assert read_record("gone") is None
    folder = unfinished()
    record = read_record(folder)
    assert record is not None
    assert record["status"] == "running"
    (folder / "run.json").write_text('{"recipe": ')
    with pytest.raises(InputError, match=r"'out/run\.json' is damaged"):
        read_record(folder)


class Part:
    """Something with ``save_pretrained``."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name in self.names:
            (folder / name).write_text(name)


class Full(Part):
    """Something that the disk has no room for."""

    def save_pretrained(self, folder: Path) -> None:
        super().save_pretrained(folder)
        raise OSError("no space left on device")


def test_saving_tells_the_files_of_all_parts() -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    assert save_into(Path("out"), Part("model"), Part("vocab", "config")) == ["config", "model", "vocab"]
    assert {path.name for path in Path("out").iterdir()} == {"config", "model", "notes.txt", "vocab"}


def test_a_failed_save_leaves_what_was_there_and_can_be_repeated() -> None:
    Path("out").mkdir()
    Path("out/model").write_text("the old one")
    with pytest.raises(OSError, match="no space"):
        save_into(Path("out"), Part("vocab"), Full("model"))
    assert Path("out/model").read_text() == "the old one"
    assert not Path("out/vocab").exists()
    assert save_into(Path("out"), Part("model")) == ["model"]
    assert {path.name for path in Path("out").iterdir()} == {"model"}


# --- who reads meanwhile ---


def test_a_run_that_is_replaced_while_it_is_read_is_not_finished() -> None:
    folder = unfinished(status="done", started="then")
    with read_whole(folder):
        pass
    with pytest.raises(InputError, match="the run in 'out' is not finished"), read_whole(folder):
        unfinished(status="running")
    with pytest.raises(InputError, match="not finished"), read_whole(folder):
        raise AssertionError("what is not done is not read at all")
    unfinished(status="done", started="then")
    with pytest.raises(InputError, match="not finished") as caught, read_whole(folder):
        unfinished(status="done", started="now")
        raise OSError("a file of the old run is gone")
    assert isinstance(caught.value.__cause__, OSError)


def test_what_fails_while_the_run_stays_the_same_is_told_as_it_is() -> None:
    folder = unfinished(status="done", metrics={"eval_loss": float("nan")})
    with pytest.raises(OSError, match="another reason"), read_whole(folder):
        raise OSError("another reason")
    with read_whole(folder):
        pass
    with read_whole("nowhere"):
        pass


def test_a_run_that_begins_to_be_removed_is_no_longer_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment it is neither taken for finished, nor for a folder of somebody else's."""
    folder = unfinished(status="done", files=["model.safetensors"])
    (folder / "model.safetensors").write_text("weights")
    removed = []

    def watched(path: Path, **_: Any) -> None:
        if path.exists():
            record = read_record(folder)
            assert record is not None and record["status"] != "done"
            removed.append(path.name)
            os.unlink(path)

    monkeypatch.setattr(Path, "unlink", watched)
    clear(folder)
    assert removed[-2:] == ["model.safetensors", "run.json"]


# --- links that somebody has laid in a folder ---


@pytest.mark.parametrize("name", [".run.json.new", "run.json"])
def test_a_record_is_not_written_through_a_link(name: str) -> None:
    Path("out").mkdir()
    Path("precious.txt").write_text("mine")
    Path("out", name).symlink_to(Path("precious.txt").absolute())
    write_json(Path("out/run.json"), {"a": 1})
    assert Path("precious.txt").read_text() == "mine"
    assert json.loads(Path("out/run.json").read_text()) == {"a": 1}
    assert [path.name for path in Path("out").iterdir() if not path.is_symlink()] == ["run.json"]


def test_a_model_is_not_saved_through_a_link() -> None:
    Path("out").mkdir()
    Path("elsewhere").mkdir()
    Path("elsewhere/letter.txt").write_text("mine")
    Path("out/.saving").symlink_to(Path("elsewhere").absolute())
    Path("out/model").symlink_to(Path("elsewhere/letter.txt").absolute())
    assert save_into(Path("out"), Part("model")) == ["model"]
    assert [path.name for path in Path("elsewhere").iterdir()] == ["letter.txt"]
    assert Path("elsewhere/letter.txt").read_text() == "mine"
    assert [path.name for path in Path("out").iterdir()] == ["model"]


@pytest.mark.parametrize("files", [None, 7, "model", {"model": 1}, [["model"]]])
def test_a_record_whose_files_are_no_list_of_names_is_cleared_all_the_same(files: Any) -> None:
    folder = unfinished(files=files)
    (folder / "notes.txt").write_text("mine")
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_path_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"output_dir 'a\\x00b' holds a NUL"):
        choose_folder("masked-lm", "a\0b")


@pytest.mark.parametrize("target", ["nowhere", "out"])
@pytest.mark.parametrize("name", ["out", "out/below/it"])
def test_a_link_that_leads_nowhere_is_no_place_for_a_folder(
    target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").symlink_to(target)
    with pytest.raises(InputError, match="'out' is a link that leads nowhere"):
        choose_folder("masked-lm", name)


def test_a_tilde_that_no_shell_has_seen_is_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert choose_folder("masked-lm", "~/run") == Path("/home/somebody/run")
    assert choose_folder("masked-lm", "a/~/run") == Path("a/~/run")
    Path("~").mkdir()
    assert choose_folder("masked-lm", "~") == Path("~"), "what is there is meant"


# --- locks of the dead ---


def test_the_workers_of_a_killed_run_keep_the_folder_only_for_a_while(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own has the lock, which says that a dead one has it: so a worker has what its parent had."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    Path("out", LOCK).write_text(str(dead.pid))
    ended = threading.Timer(0.5, holder.kill)
    ended.start()
    require_free(Path("out"))
    ended.join()


def test_a_lock_that_is_held_on_and_on_is_refused_at_last(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "ORPHANS", 0.3)
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    Path("out", LOCK).write_text(str(dead.pid))
    with pytest.raises(InputError, match=f"process {dead.pid} runs there"):
        require_free(Path("out"))


def test_a_folder_that_becomes_read_only_lets_go_of_its_lock_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    with pytest.raises(ZeroDivisionError), reserved(Path("out")):
        monkeypatch.setattr(Path, "unlink", refused)
        raise ZeroDivisionError
    require_free(Path("out"))
