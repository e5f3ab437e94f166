"""Fuzzing: flags, files and metadata that nobody would write, and that must not break anything.

    cd benchmarks; python -m reliability.fuzz [--count 200] [--only json]

Whatever is typed or lies there, a command does what it should or ends with exit code 2, one error and one hint; there
is no traceback, and no file is left behind, changed or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reliability.bad_inputs import Shelf, answered, listing, made

Attempt = Callable[[Shelf, Any], list[str]]
"""Puts an example into the working directory, and tells the words that are to be typed."""

_SMALL = "--block_size 16 --max_steps 1 --use_cpu --output_dir out --dry_run"
_RUN = f"run masked-lm --model @roberta {_SMALL} --train_file good.txt"

JUNK = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 1, 3, 1.5, "", "x", "a/b", "nan", "\0", "é", [], {}, [1], ["x"], {"a": 1}]
    ),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=5),
)
"""Values of any kind."""

TREES = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
"""Values within values."""

ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "a", "b"]), TREES, max_size=3) | TREES, max_size=5)


def _names() -> list[str]:
    """Options of a run that a dry run may have; what runs code of others, or writes, is left out."""
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.config.request import groups_of

    left_out = {"dry_run", "filter", "trust_remote_code", "train_file", "preprocessing_num_workers"}
    every = [option for group in groups_of(MASKED_LM).values() for option in group.values()]
    return [option.name for option in every if not option.python_only and option.name not in left_out]


def _values() -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(
            ["", "-1", "0", "1", "2", "nan", "1e99", "true", "none", "[1]", "{", "a=b", "é", "9" * 30, "*"]
        ),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    )


def _flags() -> st.SearchStrategy[Any]:
    flag = st.builds(
        lambda name, value: [f"--{name}", *value], st.sampled_from(_names()), st.lists(_values(), max_size=2)
    )
    stray = st.builds(lambda text: [f"--{text}"], st.from_regex(r"[a-z_-]{1,8}", fullmatch=True))
    return st.lists(flag | flag | flag | stray, min_size=1, max_size=3).map(
        lambda parts: list(chain.from_iterable(parts))
    )


def _typed_flags(shelf: Shelf, words: list[str]) -> list[str]:
    return [*shelf.words(_RUN), *words]


def _yaml() -> st.SearchStrategy[bytes]:
    name = st.sampled_from([*_names(), "nosuch"])
    lines = st.lists(st.builds(lambda key, value: f"{key}: {json.dumps(value)}", name, TREES), max_size=3)
    return st.one_of(
        lines.map(lambda several: "\n".join(several).encode("utf-8", "replace")),
        st.text(st.sampled_from("seed: 1[]{}&*!|>'\"-\n\t#%@`?,"), max_size=40).map(str.encode),
        st.binary(max_size=40),
    )


def _file(name: str, words: str) -> Attempt:
    def attempt(shelf: Shelf, content: bytes) -> list[str]:
        Path(name).write_bytes(content)
        return shelf.words(words)

    return attempt


def _data(kind: str) -> Attempt:
    return _file(f"b.{kind}", f"data masked-lm --tokenizer_name @roberta --model @roberta --train_file b.{kind}")


def _json() -> st.SearchStrategy[bytes]:
    rows = ROWS.map(json.dumps)
    return st.one_of(
        rows.map(str.encode),
        st.tuples(rows, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]].encode()),
        st.text(st.sampled_from('[]{}:,"\\u0 text1.e-\n'), max_size=30).map(str.encode),
        st.binary(max_size=30),
    )


def _jsonl() -> st.SearchStrategy[bytes]:
    return st.one_of(
        ROWS.map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
        st.text(st.sampled_from('{}:,"\\u0 text1\n'), max_size=40).map(str.encode),
        st.binary(max_size=30),
    )


def _csv() -> st.SearchStrategy[bytes]:
    text = st.text(st.sampled_from(",;\t|\"'\n\r ab1é\0"), max_size=60)
    return text.map(str.encode) | text.map(lambda part: f"text,id\n{part}".encode()) | st.binary(max_size=40)


def _fasta() -> st.SearchStrategy[bytes]:
    text = st.text(st.sampled_from(">;\n\r ACDEFGHIKL*-.123\0é"), max_size=60)
    return text.map(str.encode) | text.map(lambda part: f">a\n{part}".encode()) | st.binary(max_size=40)


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON document a value stands, but for what is below long lists."""
    inner = list(content.items()) if isinstance(content, dict) else []
    return [path, *(place for key, value in inner[:40] for place in _places(value, (*path, key)))]


def _metadata(model: str, file: str, words: str) -> Attempt:
    """A file of JSON in a copy of what is on the shelf, with another value in one place, or cut."""

    def attempt(shelf: Shelf, example: tuple[int, Any, bool]) -> list[str]:
        number, value, cut = example
        shutil.copytree(shelf.path(model), "model")
        (path,) = Path("model").glob(file)
        content = json.loads(path.read_text())
        places = _places(content)
        *parents, last = [None, *places[number % len(places)]]
        holder = content
        for key in parents[1:]:
            holder = holder[key]
        if last is None:
            content = value
        else:
            holder[last] = value
        text = json.dumps(content)
        path.write_text(text[: number % len(text)] if cut else text)
        return shelf.words(words)

    return attempt


_CHANGES = st.tuples(
    st.integers(0, 10**6), JUNK.filter(lambda value: not _is_large(value)), st.sampled_from([False] * 4 + [True])
)
_RESUME = (
    "run masked-lm --model @roberta --block_size 16 --max_steps 1 --use_cpu --train_file good.txt --output_dir model"
)


def _is_large(value: Any) -> bool:
    """Whether a model of that size would take the machine's memory, which is another measurement."""
    return isinstance(value, int | float) and not abs(value) < 10_000


TARGETS: Mapping[str, tuple[Callable[[], st.SearchStrategy[Any]], Attempt]] = {
    "flags": (_flags, _typed_flags),
    "yaml": (_yaml, _file("b.yaml", f"{_RUN} --config b.yaml")),
    "json": (_json, _data("json")),
    "jsonl": (_jsonl, _data("jsonl")),
    "csv": (_csv, _data("csv")),
    "fasta": (_fasta, _data("fasta")),
    "text": (lambda: st.binary(max_size=60), _data("txt")),
    "config.json": (lambda: _CHANGES, _metadata("roberta", "config.json", "predict model 'a <mask>'")),
    "config.json of a run": (
        lambda: _CHANGES,
        _metadata("roberta", "config.json", f"{_RUN.replace('@roberta', 'model')}"),
    ),
    "tokenizer_config.json": (
        lambda: _CHANGES,
        _metadata("roberta", "tokenizer_config.json", "predict model 'a <mask>'"),
    ),
    "generation_config.json": (
        lambda: _CHANGES,
        _metadata("gpt2", "generation_config.json", "predict model text --max_new_tokens 2"),
    ),
    "run.json": (lambda: _CHANGES, _metadata("run", "run.json", "predict model 'a <mask>'")),
    "run.json to evaluate": (
        lambda: _CHANGES,
        _metadata("run", "run.json", "evaluate model --validation_file good.txt --max_eval_samples 4"),
    ),
    "run.json to publish": (lambda: _CHANGES, _metadata("run", "run.json", "push model me/it")),
    "trainer_state.json": (
        lambda: _CHANGES,
        _metadata(
            "unfinished", "checkpoints/checkpoint-1/trainer_state.json", f"{_RESUME} --resume_from_checkpoint true"
        ),
    ),
}
"""What is fuzzed: where examples come from, and what is done with each."""


def fuzzed(name: str, shelf: Shelf, folder: Path, count: int) -> tuple[int, list[str]]:
    """How many examples of a target were tried, and a line for each kind of wrong answer, with an example of it."""
    examples, attempt = TARGETS[name]
    tried, wrong = 0, {}

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples())
    def one(example: Any) -> None:
        nonlocal tried
        place = folder / str(tried)
        tried += 1
        place.mkdir(parents=True)
        with contextlib.chdir(place):
            shutil.copy(shelf.path("good.txt"), "good.txt")
            words = attempt(shelf, example)
            before = listing(place)
            told = answered(words, (0, 2))
            if listing(place) != before:
                told.append("something was written, changed or removed")
        shutil.rmtree(place)
        for line in told:
            wrong.setdefault(line, f"fuzz {name}: {line}, given {example!r:.300}")

    one()
    return tried, list(wrong.values())


def shelved(folder: Path) -> Shelf:
    """The shelf of the bad inputs, with a run that has a checkpoint and no end."""
    shelf = made(folder)
    if not Path(shelf.path("unfinished")).exists():
        shutil.copytree(shelf.path("run"), shelf.path("unfinished"))
        record = Path(shelf.path("unfinished"), "run.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    return shelf


def measure(folder: Path, limit: int | None = None) -> tuple[int, list[str]]:
    """How many examples of all targets were tried, and a line for each kind of wrong answer.

    Args:
        limit: examples of each target; 200 when not given.
    """
    shelf = shelved(folder / "shelf")
    results = [fuzzed(name, shelf, folder / name.replace(" ", "-"), limit or 200) for name in TARGETS]
    return sum(tried for tried, _ in results), [line for _, wrong in results for line in wrong]


def _main() -> int:
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="examples of each target")
    parser.add_argument("--only", choices=TARGETS, help="this target")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        if asked.only:
            tried, wrong = fuzzed(asked.only, shelved(Path(folder, "shelf")), Path(folder, "tries"), asked.count)
        else:
            tried, wrong = measure(Path(folder), asked.count)
    print(*wrong, f"{tried} examples, {len(wrong)} kinds of wrong answers", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(_main())
