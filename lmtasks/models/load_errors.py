"""Failures between a name that a person typed and the files that it should stand for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from lmtasks.errors import InputError, LmtasksError, first_line, nearest_path

_POINTER = b"version https://git-lfs"


def require_sound_generation(name: str) -> None:
    """Refuse a folder whose generation_config.json says what cannot be, before its model is loaded.

    Raises:
        InputError: names the file, and says what is wrong with it.
    """
    file = Path(name, GENERATION_CONFIG_NAME)
    if not file.is_file():
        return
    try:
        GenerationConfig.from_pretrained(name)
    except Exception as error:
        reason = first_line(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise InputError(f"'{file}' is no generation configuration: {reason}", "mend it, or delete it") from error


def is_local(name: str) -> bool:
    """Whether the name is a path: it exists, or is written as only a path can be."""
    return os.path.exists(name) or name.startswith((".", "~", os.sep)) or name.count("/") > 1


@contextlib.contextmanager
def found_or_explained(thing: str, name: str) -> Iterator[None]:
    """One line in place of what the libraries say when a folder or Hub id cannot be loaded.

    Raises:
        InputError: for a missing folder, damaged weights, an unknown or gated repository, no network.
    """
    if is_local(name) and not Path(name).is_dir():
        raise InputError(
            f"no {thing} folder '{name}'{nearest_path(name)}", "give an existing folder or an id such as roberta-base"
        )
    try:
        yield
    except SafetensorError as error:
        damage = f"the weights in '{name}' are damaged: {first_line(error)}"
        raise InputError(damage, _fetching(name)) from error
    except (LmtasksError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a damaged file makes the libraries trip over is anything
        here = "" if Path(name).is_dir() else f"no such folder here{nearest_path(name) or ', and'} "
        failure = f"cannot load {thing} '{name}': {here}{_reason(error)}"
        raise InputError(failure, _hint(thing, name, error)) from error


def _reason(error: BaseException) -> str:
    """What is wrong, also where a pipeline puts it at the end of all that it tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1] if lines and "See the original errors" in str(error) else first_line(error)
    # Alone, what such an error says is a name, or says nothing at all.
    bare = not isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    return f"{type(error).__name__}: {told}" if bare and type(error) is not Exception else told


def _fetching(name: str) -> str:
    """How to come by weights that are damaged: git without git-lfs leaves a note about each file in its place."""
    for file in Path(name).glob("*.safetensors"):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                return "git lfs pull, in that folder: its files only say where the weights are"
    return "download or copy them again"


def _hint(thing: str, name: str, error: BaseException) -> str:
    if "custom code" in str(error):
        return "read that code; run and evaluate run it with --trust_remote_code, and nothing else does"
    if is_local(name) and thing == "tokenizer":
        return f"'{name}' must hold tokenizer.json, or a tokenizer_config.json with its tokenizer_class and files"
    if is_local(name):
        return f"'{name}' must hold a config.json, the weights as safetensors and the tokenizer's or processor's files"
    for kind, hint in (
        (HFValidationError, "give an existing folder or an id such as roberta-base"),
        (GatedRepoError, f"ask for access on the page of '{name}', then hf auth login"),
        (RevisionNotFoundError, "check --revision"),
    ):
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return hint
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set: unset it, or give a folder"
    return "check the spelling and the network; hf auth login for a private repository"
