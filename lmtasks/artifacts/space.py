"""A Space on the Hub: the page of ``lmtasks demo``, for a model that was published.

It holds no code but a call of that command, so it is what its author saw on the own machine; the requirements name
the package that has the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from lmtasks.artifacts.publish import command, explained, finished_record, push, require_id
from lmtasks.errors import InputError

APP = '''\
"""A page to try {model} on, by lmtasks."""

import sys

from lmtasks.cli import main

sys.exit(main({words}))
'''

CARD = """\
---
title: {title}
sdk: gradio
{sdk_version}app_file: app.py
models:
  - {model}
tags:
  - lmtasks
---

A page to try [{model}](https://huggingface.co/{model}) on, made by `lmtasks push --space`. Where that model is private,
the Space needs a token that reads it: a secret with the name `HF_TOKEN`, in its settings.
"""


def push_with_space(run_dir: str | Path, repo_id: str, space: str, **options: Any) -> tuple[str, str]:
    """Publish a finished run and a Space to try it on, both private or neither.

    Args:
        space: ``NAMESPACE/NAME`` of the Space, or ``NAME`` for one of your own; it is created if need be.
        options: of :func:`lmtasks.artifacts.publish.push`.

    Returns:
        the address of the model's commit, and of the Space.

    Raises:
        InputError: as for the model alone; also where its recipe is in no package, or a pull request is asked for.
        RunError: the Hub refused, failed or did not answer.
    """
    require_id(space)
    if options.get("create_pr"):
        raise InputError("a Space shows what is published, and a pull request is not yet", "leave out one of the two")
    require_package(finished_record(Path(run_dir)))
    url = push(run_dir, repo_id, **options)
    again = f"{command(str(run_dir), repo_id, options)} --space {space}"
    return url, _push_space(Path(run_dir), repo_id, space, again, options)


def _push_space(folder: Path, repo_id: str, space: str, again: str, options: Mapping[str, Any]) -> str:
    api, private = HfApi(token=True, library_name="lmtasks"), options.get("private")
    with explained(space, again, "the Space was not published", "safe to repeat"):
        # Nothing is made of the model's: it is there, and its full name is wanted.
        model = api.create_repo(repo_id, exist_ok=True).repo_id
        made = api.create_repo(space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
        if private and not api.space_info(made.repo_id).private:
            hint = "make it private in its settings, or choose another"
            raise InputError(f"the Space {made.repo_id} exists and is public, but --private was asked for", hint)
        content = space_files(finished_record(folder), model, made.repo_id.partition("/")[2], options.get("revision"))
        files = [CommitOperationAdd(name, text.encode()) for name, text in content.items()]
        api.create_commit(made.repo_id, files, repo_type="space", commit_message=f"A page to try {model} on")
    return str(made)


def require_package(record: Mapping[str, Any]) -> tuple[str, str]:
    """The package that a run's recipe comes from, and its version.

    Raises:
        InputError: it is in a file, or was made in memory, and so in no other place.
    """
    origin = record.get("origin")
    if record.get("owner", "").partition(":")[0] == "lmtasks":
        return "lmtasks", str((record.get("versions") or {}).get("lmtasks") or version("lmtasks"))
    if isinstance(origin, Mapping) and "package" in origin:
        return str(origin["package"]), str(origin.get("version") or "")
    raise InputError(
        f"the recipe '{record.get('recipe')}' is in no package that a Space could install",
        "lmtasks new-plugin NAME makes one",
    )


def space_files(record: Mapping[str, Any], model: str, title: str, revision: str | None = None) -> dict[str, str]:
    """The files of a Space, by name.

    Args:
        record: of the run that is published.
        model: its full id.
        title: of the page.
    """
    package, its_version = require_package(record)
    words = ["demo", model, "--host", "0.0.0.0", "--port", "7860"]
    words += ["--recipe", str(record["recipe"]) if package == "lmtasks" else f"{package}:{record['recipe']}"]
    words += ["--revision", revision] if revision else []
    own = (record.get("versions") or {}).get("lmtasks") or version("lmtasks")
    required = [f"lmtasks[demo]=={own}"]
    if package != "lmtasks":
        required.append(f"{package}=={its_version}" if its_version else package)
    return {
        "app.py": APP.format(model=model, words=json.dumps(words)),
        "requirements.txt": "\n".join([*required, ""]),
        "README.md": CARD.format(title=json.dumps(title), model=model, sdk_version=_sdk_version()),
    }


def _sdk_version() -> str:
    """The version of Gradio that the page was looked at with, as a line; none where Gradio is not installed."""
    try:
        return f"sdk_version: {version('gradio')}\n"
    except PackageNotFoundError:
        return ""
