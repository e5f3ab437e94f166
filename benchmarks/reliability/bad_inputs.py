"""Bad inputs: each is typed for real, in a folder of its own, and judged by what a person and the disk see of it.

    python benchmarks/faults.py --only 'bad inputs'
    cd benchmarks; python -m reliability.bad_inputs [--count 20] [--only NAME]

Right is: exit code 2, one line that begins with ``error:``, one with ``hint:``, no traceback, nothing on stdout, and
every file that was there before, and no other, there after. Caches, which hold no result, do not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Prepare = Callable[["Shelf"], Any]
"""Puts into the working directory what a bad input needs."""

Call = Callable[["Shelf"], Any]
"""A call from Python."""


@dataclass(frozen=True)
class Shelf:
    """What all bad inputs share, and none may change: tiny models, a text, a finished run."""

    folder: Path

    def path(self, name: str) -> str:
        """Where something of the shelf lies."""
        return str(self.folder / name)

    def words(self, typed: str) -> list[str]:
        """The words of a command line, with places in the shelf for those that begin with ``@``."""
        return [self.path(word[1:]) if word.startswith("@") else word for word in shlex.split(typed)]


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Args:
        name: tells it from all others.
        act: what is typed, with ``@gpt2`` for a folder of the shelf, or a call from Python.
        prepare: puts there what it is about.
    """

    name: str
    act: str | Call
    prepare: Prepare | None = None


def measure(folder: Path, limit: int | None = None) -> tuple[int, list[str]]:
    """How many bad inputs were tried, and a line for each that was not answered as promised.

    Args:
        folder: for everything that is written.
        limit: so many at most, from all over the catalogue.
    """
    from reliability.bad_input_cases import catalogue

    cases = catalogue()
    # Evenly from all kinds, so that a few tell of all.
    chosen = cases if limit is None else [cases[place * len(cases) // limit] for place in range(min(limit, len(cases)))]
    shelf = made(folder / "shelf")
    before = listing(shelf.folder)
    failures = []
    for number, bad in enumerate(chosen):
        wrong = tried(bad, shelf, folder / "tries" / str(number))
        failures += [f"{bad.name}: {'; '.join(wrong)}"] if wrong else []
        if sys.stderr.isatty() or number % 50 == 49:
            print(f"bad inputs: {number + 1} of {len(chosen)}, {len(failures)} not as promised", file=sys.stderr)
    if listing(shelf.folder) != before:
        failures.append("the shelf: what the bad inputs share was changed")
    return len(chosen), failures


def tried(bad: Bad, shelf: Shelf, folder: Path) -> list[str]:
    """What is not as promised about the answer to a bad input; the folder is made for it, and removed."""
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        shutil.copy(shelf.path("good.txt"), "good.txt")
        try:
            if bad.prepare:
                bad.prepare(shelf)
            before = listing(folder)
            wrong = _called(bad.act, shelf) if callable(bad.act) else answered(shelf.words(bad.act))
        except Exception as error:  # a mistake in the catalogue must not end the measurement
            return [f"the try itself failed: {error!r}"]
        after = listing(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    shutil.rmtree(folder)
    return wrong + ([f"written or removed: {', '.join(changed[:3])}"] if changed else [])


def answered(typed: Sequence[str], codes: Sequence[Any] = (2,)) -> list[str]:
    """What is wrong with the answer to a command.

    Args:
        codes: exit codes that it may have; but for 2, nothing else is looked at.
    """
    from lmtasks.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(typed))
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            return [f"a traceback: {_told(error)}"]
    lines = err.getvalue().splitlines()
    marks = [line.partition(":")[0] for line in lines]
    wrong = [] if code in codes else [f"exit code {code}"]
    if code != 2 and not wrong:
        return ["a traceback on stderr"] if "Traceback" in err.getvalue() else []
    found = {mark: marks.count(mark) for mark in ("error", "hint")}
    wrong += [f"{count} lines of '{mark}:'" for mark, count in found.items() if count != 1]
    if code == 2 and marks[-2:] != ["error", "hint"]:
        wrong.append("something after the error and its hint")
    if any(not line.partition(":")[2].strip() for line in lines[-2:]):
        wrong.append("an empty error or hint")
    if "Traceback" in err.getvalue():
        wrong.append("a traceback on stderr")
    return wrong + (["something on stdout"] if code == 2 and out.getvalue() else [])


def _called(call: Call, shelf: Shelf) -> list[str]:
    """What is wrong with the answer to a call."""
    from lmtasks.errors import InputError

    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            call(shelf)
        except InputError as error:
            return [] if error.message and error.hint else ["an error without a message or a hint"]
        except BaseException as error:
            return [f"not InputError but {_told(error)}"]
    return ["no error"]


def _told(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ({Path(place.filename).name}:{place.lineno})"


def listing(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, hidden ones too, with a hash of what it holds, or where it leads."""
    return dict(_listed(folder))


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, f"link to {os.readlink(path)}"
        elif path.is_file():
            yield name, hashlib.blake2b(path.read_bytes()).hexdigest()
        else:
            yield name, ""


_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}


def made(folder: Path) -> Shelf:
    """The shelf, made if it is not there."""
    if (folder / "run" / "run.json").exists():
        return Shelf(folder)
    import torch
    import transformers

    from lmtasks.builtin.causal_lm import CAUSAL_LM
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.data.sample import sample_documents
    from lmtasks.models.tokenizer import train_tokenizer
    from lmtasks.progress import speak
    from lmtasks.runs.runner import run

    folder.mkdir(parents=True, exist_ok=True)
    documents = [document[:2000] for document in sample_documents("python")[:100]]
    (folder / "good.txt").write_text("\n".join(documents[:30]), encoding="utf-8")
    for kind in ("roberta", "gpt2", "llama"):
        recipe = MASKED_LM if kind == "roberta" else CAUSAL_LM
        tokenizer = train_tokenizer([documents], 400, recipe.tokenizer)
        shape = {**_SHAPE, "n_positions": 64} if kind == "gpt2" else _SHAPE
        ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
        config = transformers.AutoConfig.for_model(kind, **shape, vocab_size=len(tokenizer), **ids)
        model_class = transformers.AutoModelForMaskedLM if kind == "roberta" else transformers.AutoModelForCausalLM
        torch.manual_seed(0)
        model_class.from_config(config).save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        settings = {"block_size": 16, "max_steps": 1, "use_cpu": True}
        run("masked-lm", model_name_or_path="roberta", train_file="good.txt", output_dir="run", **settings)
        speak(True)
    return Shelf(folder)


def _main() -> int:
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, help="so many, from all over the catalogue")
    parser.add_argument("--only", help="those whose name holds this")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        if asked.only:
            from reliability.bad_input_cases import catalogue

            shelf = made(Path(folder, "shelf"))
            chosen = [bad for bad in catalogue() if asked.only in bad.name]
            results = [(bad.name, tried(bad, shelf, Path(folder, str(number)))) for number, bad in enumerate(chosen)]
            count, failures = len(chosen), [f"{name}: {'; '.join(wrong)}" for name, wrong in results if wrong]
        else:
            count, failures = measure(Path(folder), asked.count)
    print(*failures, f"{count} bad inputs, {len(failures)} not answered as promised", sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_main())
