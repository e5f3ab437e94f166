"""What only a Python program can give: a model and a tokenizer that it holds, callbacks, figures of its own.

A model in memory is written to a folder first, which lmtasks then reads like any other: so every check of a checkpoint
is made of it as well, the program's own object stays as it was, and the result is the run's. The folder is named by
what is in it, so that the same object, given again, is the same run, which then can go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from lmtasks.config import caches
from lmtasks.config.hooks import Hooks
from lmtasks.errors import InputError, first_line
from lmtasks.models.checkpoint import pretrained

MODEL = ("model", "model_name_or_path")
PROCESSOR = ("tokenizer", "processing_class", "tokenizer_name", "processor_name")
"""Names under which a model and a processing class may be given, as objects or by name."""


def hooks_of(callbacks: Any, compute_metrics: Any, preprocess: Any) -> Hooks:
    """The hooks that were given; a callback may be given as its class.

    Raises:
        InputError: something that the Trainer would not take.
    """
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    made = tuple(one() if isinstance(one, type) and issubclass(one, TrainerCallback) else one for one in given)
    for one in made:
        if not isinstance(one, TrainerCallback):
            hint = "callbacks=[CALLBACK], of transformers.TrainerCallback"
            raise InputError(f"callbacks cannot hold a {_kind(one)}", hint)
    for name, function in (("compute_metrics", compute_metrics), ("preprocess_logits_for_metrics", preprocess)):
        if function is not None and not callable(function):
            raise InputError(f"{name} cannot be a {_kind(function)}", f"{name}=FUNCTION")
    if preprocess and not compute_metrics:
        raise InputError("preprocess_logits_for_metrics means nothing alone", "add compute_metrics=FUNCTION")
    return Hooks(made, compute_metrics, preprocess)


@contextmanager
def written(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values, with the folders of a model and a processing class where they are objects, until this is closed.

    Raises:
        InputError: an object that cannot be one, or that cannot be written.
    """
    named, made = dict(values), []
    try:
        for names, write, known in ((MODEL, _write_model, "model"), (PROCESSOR, _write_processor, "tokenizer_name")):
            given = [name for name in names if named.get(name) is not None]
            if len(given) > 1:
                raise InputError(f"{given[0]} and {given[1]} are given, which are one", "give one of the two")
            for name in given:
                value = named.pop(name)
                if not isinstance(value, str | os.PathLike):
                    made.append(write(name, value))
                    value = str(made[-1])
                named[known] = value
        if named.get("use_peft") and Path(named.get("model", "")) in made:
            _require_tokenizer(named)
            named |= _origin(next(value for name in MODEL if (value := values.get(name)) is not None))
        if Path(named.get("model", "")) in made:
            _require_tokenizer(named)
        yield named
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def _require_tokenizer(named: Mapping[str, Any]) -> None:
    if "tokenizer_name" not in named:
        raise InputError("a model in memory comes without its tokenizer", "tokenizer=TOKENIZER, or its name")


def _origin(model: PreTrainedModel) -> dict[str, str]:
    """Where a model in memory was loaded from, if it still is the one that lies there: others will find it there.

    Raises:
        InputError: it is another one.
    """
    name, commit = model.name_or_path, getattr(model.config, "_commit_hash", None)
    how: dict[str, Any] = {"dtype": model.dtype, "revision": commit or "main", "trust_remote_code": False}
    hint = "model.save_pretrained(FOLDER), then model=FOLDER"
    try:
        theirs = pretrained(type(model), name, **how)[0].state_dict()
    except InputError as error:
        raise InputError("an adapter needs its base where others find it, and this is in memory only", hint) from error
    ours = model.state_dict()
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[key].cpu(), theirs[key]) for key in ours):
        raise InputError(f"an adapter needs its base where others find it, and this is not '{name}' any more", hint)
    return {"model": name, **({"revision": commit} if commit else {})}


def _write_model(name: str, model: Any) -> Path:
    if not isinstance(model, PreTrainedModel):
        peft = type(model).__module__.partition(".")[0] == "peft"
        hint = "the model that it is for, with use_peft=True" if peft else "a name, a folder or a PreTrainedModel"
        raise InputError(f"{name} cannot be a {_kind(model)}", f"give {hint}")
    about = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    seen = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=8)
    for key, tensor in sorted(model.state_dict().items()):
        seen.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        seen.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return _written(f"{type(model).__name__}-{seen.hexdigest()}", model)


def _write_processor(name: str, processor: Any) -> Path:
    if not hasattr(processor, "save_pretrained"):
        raise InputError(f"{name} cannot be a {_kind(processor)}", "give a name, a folder, a tokenizer or a processor")
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        seen = hashlib.blake2b(digest_size=8)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            seen.update(path.name.encode() + path.read_bytes())
    return _written(f"{type(processor).__name__}-{seen.hexdigest()}", processor)


def _written(name: str, thing: Any) -> Path:
    """The folder of an object, whole at once: other processes of the run write the same."""
    home = Path(caches.own(), "objects")
    home.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".", dir=home))
    try:
        thing.save_pretrained(half)
        half.rename(home / name)
    except OSError as error:
        if not (home / name).is_dir():
            told = f"{name} cannot be written to '{home}': {first_line(error)}"
            raise InputError(told, "make room, or set XDG_CACHE_HOME") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return home / name


def _kind(thing: Any) -> str:
    return (thing if isinstance(thing, type) else type(thing)).__name__
