"""Checkpoints: which are whole, which are ours, and which are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtasks.artifacts.checkpoints import (
    BEGUN,
    MANIFEST,
    begin,
    damage,
    finish,
    newest_first,
    read_manifest,
    remove,
    remove_all,
    retain,
    tidy,
)

OUT = Path("out")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begun(step: int | str) -> Path:
    """A checkpoint whose manifest is not written yet."""
    checkpoint = OUT / "checkpoints" / f"checkpoint-{step}"
    begin(checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "chat").mkdir()
    (checkpoint / "chat" / "template.jinja").write_text("{{ messages }}")
    return checkpoint


def whole(step: int | str) -> Path:
    checkpoint = begun(step)
    finish(checkpoint, {"step": step})
    return checkpoint


def names() -> list[str]:
    return sorted(path.name for path in (OUT / "checkpoints").iterdir())


def test_a_manifest_tells_sizes_and_digests_of_all_files() -> None:
    checkpoint = whole(3)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert manifest["step"] == 3
    assert manifest["files"].keys() == {"model.safetensors", "trainer_state.json", "chat/template.jinja"}
    # printf weights | sha256sum
    digest = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert manifest["files"]["model.safetensors"] == {"size": 7, "sha256": digest}
    assert not (checkpoint / BEGUN).exists()
    assert damage(checkpoint) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json", "chat/template.jinja"])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, "is missing"),
        (flip, "is not as it was written"),
        (cut, "bytes instead of"),
        (empty, "has 0 bytes"),
    ],
)
def test_damage_is_found_and_its_file_named(harm: Callable[[Path], None], said: str, name: str) -> None:
    checkpoint = whole(3)
    harm(checkpoint / name)
    found = damage(checkpoint)
    assert found is not None
    assert found.startswith(name) and said in found


def test_without_a_manifest_a_checkpoint_was_not_written_to_its_end() -> None:
    assert damage(begun(3)) == "it was not written to its end"
    checkpoint = whole(4)
    (checkpoint / MANIFEST).unlink()
    assert damage(checkpoint) == "it was not written to its end"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": []}', '{"files": {}}', '{"files": {"a": 1}}'])
def test_a_damaged_manifest_is_told_as_such(content: str) -> None:
    checkpoint = whole(3)
    (checkpoint / MANIFEST).write_text(content)
    assert damage(checkpoint) == "manifest.json is damaged"


def test_a_manifest_that_says_nothing_of_a_file_does_not_vouch_for_it() -> None:
    checkpoint = whole(3)
    (checkpoint / MANIFEST).write_text(json.dumps({"files": {"trainer_state.json": None}}))
    assert damage(checkpoint) == "trainer_state.json has 2 bytes instead of None"


def test_the_newest_is_that_of_the_highest_step_and_folders_of_the_user_are_none() -> None:
    for step in (9, 10, 2, "best", "5-copy"):
        whole(step)
    assert [path.name for path in newest_first(OUT)] == ["checkpoint-10", "checkpoint-9", "checkpoint-2"]


def test_a_checkpoint_that_is_written_anew_has_nothing_of_the_old() -> None:
    (whole(3) / "stale.bin").write_bytes(b"old")
    checkpoint = OUT / "checkpoints" / "checkpoint-3"
    begin(checkpoint)
    assert [path.name for path in checkpoint.iterdir()] == [BEGUN]
    assert read_manifest(checkpoint) is None


def test_what_is_not_ours_is_not_taken_away() -> None:
    theirs = OUT / "checkpoints" / "checkpoint-3"
    theirs.mkdir(parents=True)
    (theirs / "notes.txt").write_text("mine")
    begin(theirs)
    assert (theirs / "notes.txt").read_text() == "mine"


def test_the_newest_are_kept_and_the_best() -> None:
    for step in range(1, 7):
        whole(step)
    retain(OUT, 6, 3, best=OUT / "checkpoints" / "checkpoint-2")
    assert names() == ["checkpoint-2", "checkpoint-5", "checkpoint-6"]
    retain(OUT, 6, 1, best=(OUT / "checkpoints" / "checkpoint-2").absolute())
    assert names() == ["checkpoint-2", "checkpoint-6"]
    retain(OUT, 6, 1, best=None)
    assert names() == ["checkpoint-6"]


def test_only_checkpoints_of_ours_are_removed_however_many_there_are() -> None:
    for step in (1, 2, 3):
        whole(step)
    begun(4)
    for name in ("checkpoint-best", "checkpoint-0", "notes"):
        (OUT / "checkpoints" / name).mkdir()
        (OUT / "checkpoints" / name / "mine.txt").write_text("mine")
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.txt").write_text("mine")
    (OUT / "checkpoints" / "checkpoint-5").symlink_to(Path("elsewhere").absolute())
    whole(6)
    retain(OUT, 6, 1, best=None)
    assert names() == ["checkpoint-0", "checkpoint-5", "checkpoint-6", "checkpoint-best", "notes"]
    remove_all(OUT)
    assert names() == ["checkpoint-0", "checkpoint-5", "checkpoint-best", "notes"]
    assert Path("elsewhere/mine.txt").read_text() == "mine"


def test_those_of_an_earlier_attempt_that_got_further_are_not_counted() -> None:
    for step in (2, 4, 6, 8):
        whole(step)
    retain(OUT, 6, 1, best=None)
    assert names() == ["checkpoint-6", "checkpoint-8"]


def test_a_checkpoint_that_is_removed_by_half_is_known_as_ours_and_does_not_count() -> None:
    checkpoint = whole(3)
    (checkpoint / "chat" / "template.jinja").unlink()
    (checkpoint / "chat").rmdir()
    (checkpoint / BEGUN).touch()
    (checkpoint / MANIFEST).unlink()
    assert damage(checkpoint) == "it was not written to its end"
    remove_all(OUT)
    assert not (OUT / "checkpoints").exists()


def test_what_was_begun_is_tidied_up_and_what_is_whole_loses_only_the_word_of_it() -> None:
    good, half = whole(2), begun(4)
    (good / BEGUN).touch()
    theirs = OUT / "checkpoints" / "checkpoint-9"
    theirs.mkdir()
    (theirs / "mine.txt").write_text("mine")
    tidy(OUT)
    assert names() == ["checkpoint-2", "checkpoint-9"]
    assert not (good / BEGUN).exists() and damage(good) is None
    assert not half.exists()


def test_an_empty_folder_of_a_checkpoint_is_ours() -> None:
    (OUT / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    remove_all(OUT)
    assert not (OUT / "checkpoints").exists()
    remove_all(Path("nowhere"))


def test_a_checkpoint_is_removed_whole() -> None:
    checkpoint = whole(3)
    Path("mine.txt").write_text("mine")
    (checkpoint / "link").symlink_to(Path("mine.txt").absolute())
    remove(checkpoint)
    assert not checkpoint.exists()
    assert Path("mine.txt").read_text() == "mine"
