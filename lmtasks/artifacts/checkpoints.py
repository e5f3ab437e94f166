"""Checkpoints of a run: whose they are, whether they are whole, and which are kept.

``manifest.json``, written last, says what lies in a checkpoint: without it, or where a file is not as it says, a
checkpoint does not count. ``.begun``, written first, says of one that is not whole yet that it is ours. Folders are
never renamed, which shared file systems cannot do for several machines at once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmtasks.artifacts.durable import digest, flush, write_json

FOLDER = "checkpoints"
"""A folder of their own: so OUT is a clean model, and nobody's ``checkpoint-best`` is taken for one of ours."""

MANIFEST = "manifest.json"
BEGUN = ".begun"


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of a run's checkpoint after so many steps."""
    return run / FOLDER / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The steps that were done when a checkpoint was made, as its name tells."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def newest_first(run: Path) -> list[Path]:
    """All folders of a run that have the name of a checkpoint, whole or not."""
    named = [path for path in (run / FOLDER).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(named, key=step_of, reverse=True)


def begin(checkpoint: Path) -> None:
    """Make the folder of a checkpoint that is about to be written, in place of one of ours that is there."""
    if _is_ours(checkpoint):
        remove(checkpoint)
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / BEGUN).touch()


def finish(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Flush all files of a checkpoint to the disk, and write the manifest that makes it count.

    Args:
        facts: what else the manifest tells, ``request`` (fingerprint of the run) among it.
    """
    files = {}
    for path in _files(checkpoint):
        flush(path)
        files[path.relative_to(checkpoint).as_posix()] = {"size": path.stat().st_size, "sha256": digest(path)}
    for folder in (*(path for path in checkpoint.rglob("*") if path.is_dir()), checkpoint, checkpoint.parent):
        flush(folder)
    write_json(checkpoint / MANIFEST, {**facts, "files": files})
    (checkpoint / BEGUN).unlink(missing_ok=True)


def read_manifest(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where it says nothing that can be read."""
    try:
        content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return None
    return content


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where every file is as its manifest says."""
    manifest = read_manifest(checkpoint)
    if manifest is None:
        there = (checkpoint / MANIFEST).exists()
        return f"{MANIFEST} is damaged" if there else "it was not written to its end"
    if "trainer_state.json" not in manifest["files"]:
        return f"{MANIFEST} is damaged"
    # All sizes before the first digest: most damage is found without reading gigabytes.
    for found in (_wrong_size, _wrong_content):
        for name, facts in manifest["files"].items():
            if wrong := found(checkpoint / name, facts):
                return f"{name} {wrong}"
    return None


def _wrong_size(path: Path, facts: Any) -> str | None:
    if not path.is_file():
        return "is missing"
    size, wanted = path.stat().st_size, facts.get("size") if isinstance(facts, dict) else None
    return None if size == wanted else f"has {size} bytes instead of {wanted}"


def _wrong_content(path: Path, facts: Mapping[str, Any]) -> str | None:
    return None if digest(path) == facts.get("sha256") else "is not as it was written"


def retain(run: Path, step: int, limit: int, best: str | Path | None) -> None:
    """Remove the oldest checkpoints of ours, so that so many are left; the newest and the best always are.

    Args:
        step: of the newest; those of more steps are of an earlier attempt, and not counted.
        best: the checkpoint of the best model, if there is one.
    """
    kept = [path for path in newest_first(run) if step_of(path) <= step and _is_ours(path)]
    best = Path(best).absolute() if best else None
    protected = [path for path in kept if step_of(path) == step or path.absolute() == best]
    others = [path for path in kept if path not in protected]
    for path in others[max(0, limit - len(protected)) :]:
        remove(path)


def tidy(run: Path) -> None:
    """Remove what was begun and is not whole, and the word of it from what is; for who has the run's folder."""
    for path in newest_first(run):
        if path.is_symlink() or not (path / BEGUN).exists():
            continue
        if read_manifest(path) is None:
            remove(path)
        else:  # the plug was pulled right after the manifest was written
            (path / BEGUN).unlink()


def remove_all(run: Path) -> None:
    """Remove the checkpoints of ours; what else lies beside them stays."""
    folder = run / FOLDER
    if folder.is_symlink():
        folder.unlink()  # and not what it points to
        return
    for path in newest_first(run):
        if _is_ours(path):
            remove(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint; one that is removed by half, because somebody pulled the plug, is still known as ours."""
    (checkpoint / BEGUN).touch()
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    for path in checkpoint.iterdir():
        if path.name == BEGUN:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (checkpoint / BEGUN).unlink()
    checkpoint.rmdir()


def _is_ours(checkpoint: Path) -> bool:
    """Whether this program made a folder: a link, and what has no word of ours in it, is somebody's own."""
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return False
    return (checkpoint / BEGUN).exists() or read_manifest(checkpoint) is not None or not any(checkpoint.iterdir())


def _files(checkpoint: Path) -> Iterator[Path]:
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name not in (BEGUN, MANIFEST):
            yield path
