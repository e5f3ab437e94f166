"""Runs on prepared data: the figures of the same run on the data themselves, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from launched import distance, in_two_processes, lines_of

from lmtasks import InputError, RunError, evaluate, prepare, run
from lmtasks.api import Blocks
from lmtasks.artifacts.checkpoints import newest_first, step_of
from lmtasks.data import mixed
from lmtasks.data.prepared.local_copies import LocalCopies
from lmtasks.data.prepared.sharded import Sharded
from lmtasks.data.prepared.store import Store
from lmtasks.runs.data_preparation import Preparation
from lmtasks.runs.plan import Plan
from lmtasks.training.positions import Positions

SMALL = 600 / 10**6
"""MB of a shard of 300 tokens."""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def masked(model_folders: dict[str, Path]) -> dict[str, Any]:
    return {"model": str(model_folders["modernbert"]), "block_size": 16}


@pytest.fixture
def there(masked: dict[str, Any]) -> Preparation:
    return prepare("masked-lm", "there", **masked, train_file="text.txt", shard_size=SMALL)


def files(folder: str = "there") -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).iterdir()}


def losses(folder: str) -> list[float]:
    return [line["loss"] for line in lines_of(Path(folder, "log.jsonl")) if "loss" in line]


def results(folder: str) -> dict[str, float]:
    return dict(json.loads(Path(folder, "eval_results.json").read_text()))


def cut(folder: str, step: int) -> None:
    """Let a run be one that was stopped after so many steps."""
    for checkpoint in newest_first(Path(folder)):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
    record = json.loads(Path(folder, "run.json").read_text())
    Path(folder, "run.json").write_text(json.dumps({**record, "status": "running"}))


# --- the same figures ---


@pytest.mark.parametrize("lines", [False, True])
def test_in_the_same_order_it_is_the_same_run_to_the_last_bit(
    lines: bool, masked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**masked, "line_by_line": lines}
    prepare("masked-lm", "there", **asked, train_file="text.txt", shard_size=SMALL)
    steps = {"max_steps": 6, "logging_steps": 1, "learning_rate": 1e-3}
    run("masked-lm", **asked, **steps, train_file="text.txt", train_sampling_strategy="sequential", output_dir="plain")
    monkeypatch.setattr(Sharded, "in_order", lambda self, position, epoch: position)
    run("masked-lm", **asked, **steps, prepared="there", output_dir="out")
    assert losses("out") == losses("plain") and len(losses("out")) == 6
    assert results("out") == results("plain")
    assert distance(Path("out"), Path("plain")) == 0
    records = [json.loads(Path(folder, "run.json").read_text()) for folder in ("out", "plain")]
    assert records[0]["data"]["evaluation"] == records[1]["data"]["evaluation"]
    assert records[0]["data"]["train"]["fingerprint"] == records[1]["data"]["train"]["fingerprint"]


def test_evaluation_is_the_same_to_the_last_bit_in_every_view(masked: dict[str, Any], there: Preparation) -> None:
    how = {"pseudo_perplexity": True, "block_size": 16, "max_eval_samples": 3}
    model = masked["model"]
    figures = evaluate(model, recipe="masked-lm", prepared="there", **how)
    assert figures == evaluate(model, recipe="masked-lm", train_file="text.txt", **how)
    assert "pseudo_perplexity" in figures


def test_several_evaluation_sets_keep_their_names(masked: dict[str, Any]) -> None:
    Path("other.txt").write_text("Some other text.\n" * 20)
    sets = {"train_file": "text.txt", "validation_file": ["one=other.txt", "two=other.txt"]}
    prepare("masked-lm", "there", **masked, **sets)
    figures = evaluate(masked["model"], recipe="masked-lm", prepared="there", block_size=16)
    assert figures == evaluate(masked["model"], recipe="masked-lm", **sets, block_size=16)
    assert {"eval_one_loss", "eval_two_loss"} <= figures.keys()


def test_the_run_itself_is_evaluated_again(masked: dict[str, Any], there: Preparation) -> None:
    done = run("masked-lm", **masked, prepared="there", max_steps=2, output_dir="out")
    again = evaluate("out")
    assert again["eval_loss"] == done.metrics["eval_loss"]
    Path("other.txt").write_text("Some other text.\n" * 60)
    prepare("masked-lm", "other", **masked, train_file="other.txt")
    shutil.rmtree("there")
    Path("other").rename("there")
    with pytest.raises(InputError, match="the text that the run in 'out' held out is no longer there as it was"):
        evaluate("out")


def test_a_resumed_run_is_the_uninterrupted_one(
    masked: dict[str, Any], there: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Any] = []
    plain = Positions.__iter__
    monkeypatch.setattr(Positions, "__iter__", lambda self: (asked_for.append(one) or one for one in plain(self)))
    asked = {**masked, "prepared": "there", "num_train_epochs": 2, "max_train_samples": 60, "train_batch_size": 8}
    asked |= {"save_steps": 3, "logging_steps": 1, "prepared_window": 20, "max_eval_samples": 5}
    run("masked-lm", **asked, output_dir="whole")
    epoch = [*(range(first, first + 8) for first in range(0, 56, 8)), range(56, 60)]
    assert asked_for == 2 * epoch
    asked_for.clear()
    shutil.copytree("whole", "out")
    cut("out", 6)  # in the first epoch
    run("masked-lm", **asked, output_dir="out", resume_from_checkpoint="auto", prepared_cache=1)
    assert asked_for == [*[()] * 6, *epoch[6:], *epoch], "what is done is not even counted through"
    assert losses("out") == losses("whole") and len(losses("whole")) == 16
    assert distance(Path("out"), Path("whole")) == 0
    with pytest.raises(InputError, match="--prepared_window 20 there"):
        run("masked-lm", **{**asked, "prepared_window": 21}, output_dir="out", resume_from_checkpoint="auto")


def test_two_processes_are_one(masked: dict[str, Any], there: Preparation) -> None:
    asked = {**masked, "prepared": "there", "max_steps": 8, "train_batch_size": 8, "prepared_lanes": 8}
    asked |= {"logging_steps": 1, "max_eval_samples": 7, "max_train_samples": 29, "dataloader_num_workers": 1}
    run("masked-lm", **asked, output_dir="one")
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    in_two_processes("run", "masked-lm", *words, "--output_dir", "two")
    assert losses("two") == pytest.approx(losses("one"), abs=1e-5) and len(losses("one")) == 8
    assert distance(Path("one"), Path("two")) < 1e-4
    assert results("two")["eval_loss"] == pytest.approx(results("one")["eval_loss"], rel=1e-6)


def test_a_tokenizer_that_was_trained_comes_with_the_data(lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("prepare", "causal-lm", "--train_file", "text.txt", "--output_dir", "there")
    assert done.code == 0, done.err
    assert "  train    " in done.out and "written    " in done.out
    done = lmtasks("run", "causal-lm", "--prepared", "there", "--max_steps", 1, "--output_dir", "out")
    assert done.code == 0, done.err
    assert "training a tokenizer" not in done.err
    assert done.err.count("data       text.txt, prepared\n") == 1
    done = lmtasks("run", "causal-lm", "--prepared", "there", "--train_tokenizer", 700, "--output_dir", "other")
    assert (done.code, done.err.splitlines()[0]) == (
        2, "error: --prepared there has a tokenizer trained with --train_tokenizer 2000, --tokenizer_model bpe"
    )  # fmt: skip
    Path("there/tokenizer.json").unlink()
    done = lmtasks("run", "causal-lm", "--prepared", "there", "--output_dir", "other")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: 'there/tokenizer.json' is missing")


def test_a_stream_is_prepared_on_the_way(masked: dict[str, Any]) -> None:
    lines = Path("text.txt").read_text().splitlines()
    stream = datasets.IterableDataset.from_generator(lambda: ({"text": line} for line in lines if line))
    told = prepare("masked-lm", "there", **masked, train_dataset=stream, shard_size=SMALL)
    rows = prepare("masked-lm", "rows", **masked, train_dataset=[line for line in lines if line], shard_size=SMALL)
    assert told.manifest.train[""]["sizes"] == rows.manifest.train[""]["sizes"]
    assert [one.sha256 for one in told.manifest.shards[""]] == [one.sha256 for one in rows.manifest.shards[""]]


def test_the_data_can_be_looked_at(masked: dict[str, Any], there: Preparation, lmtasks: Callable[..., Any]) -> None:
    flags = [word for name, value in masked.items() for word in (f"--{name}", value)]
    shown = json.loads(lmtasks("data", "masked-lm", *flags, "--prepared", "there", "--json").out)
    plain = json.loads(lmtasks("data", "masked-lm", *flags, "--train_file", "text.txt", "--json").out)
    assert shown["examples"] == plain["examples"] and len(shown["examples"]) == 3
    assert shown["splits"]["evaluation"] == plain["splits"]["evaluation"]


def test_the_plan_tells_what_it_would_of_the_data_themselves(masked: dict[str, Any], there: Preparation) -> None:
    plans = [
        run("masked-lm", **masked, **source, max_steps=1, dry_run=True)
        for source in ({"prepared": "there"}, {"train_file": "text.txt"})
    ]
    for plan in plans:
        assert isinstance(plan, Plan)
    assert plans[0].first_text == plans[1].first_text
    assert plans[0].block_size == plans[1].block_size == 16
    assert plans[0].evaluation == plans[1].evaluation
    assert plans[0].train == {**plans[1].train, "shards": len(there.manifest.shards[""])}


# --- preparation ---


KILLED = """
import os, signal
from contextlib import contextmanager
from lmtasks import prepare
from lmtasks.data.prepared.store import Store

new, written = Store.new, []

@contextmanager
def killed(self, name):
    with new(self, name) as path:
        yield path
        written.append(name)
        if len(written) == 5:  # its content is there, and it has not got its name
            os.kill(os.getpid(), signal.SIGKILL)

Store.new = killed
prepare("masked-lm", "again", **{asked})
"""


def test_what_was_killed_goes_on_and_writes_nothing_twice(masked: dict[str, Any], there: Preparation) -> None:
    asked = {**masked, "train_file": "text.txt", "shard_size": SMALL}
    whole = files()
    done = subprocess.run([sys.executable, "-c", KILLED.replace("{asked}", repr(asked))], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert "manifest.json" not in files("again")
    with pytest.raises(InputError, match="--prepared again is not prepared to the end"):
        run("masked-lm", **masked, prepared="again", output_dir="out")
    before = files("again")
    prepare("masked-lm", "again", **asked)
    after = files("again")
    assert {name: content for name, (_, content) in after.items()} == {name: one for name, (_, one) in whole.items()}
    kept = {name for name in before if name.startswith("train-")}
    assert kept and all(after[name] == before[name] for name in kept), "not touched"
    damaged = Path("again", sorted(kept)[0])
    damaged.write_bytes(bytes(damaged.stat().st_size))
    prepare("masked-lm", "again", **asked)
    assert files("again")[damaged.name][1] == whole[damaged.name][1], "written again where it was damaged"


@pytest.mark.parametrize("url", ["memory://bucket/there", "file://{here}/other"])
def test_wherever_they_lie(url: str, masked: dict[str, Any], there: Preparation) -> None:
    url = url.format(here=Path.cwd())
    fsspec.filesystem("memory").store.clear()
    written = prepare("masked-lm", url, **masked, train_file="text.txt", shard_size=SMALL)
    assert written.manifest == there.manifest
    asked = {**masked, "max_steps": 3, "logging_steps": 1, "max_eval_samples": 5}
    for name, place in (("out", url), ("plain", "there")):
        run("masked-lm", **asked, prepared=place, output_dir=name)
    assert losses("out") == losses("plain") and len(losses("out")) == 3
    assert results("out") == results("plain")
    fsspec.filesystem("memory").store.clear()


def test_a_server_of_web_pages_is_read_from(masked: dict[str, Any], there: Preparation) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        asked = {**masked, "max_steps": 3, "logging_steps": 1, "max_eval_samples": 5}
        for name, place in (("out", f"{url}/there"), ("plain", "there")):
            run("masked-lm", **asked, prepared=place, output_dir=name)
        with pytest.raises(InputError, match=f"--prepared {url}/out has no manifest.json"):
            run("masked-lm", **asked, prepared=f"{url}/out", output_dir="other")
        server.shutdown()
    assert losses("out") == losses("plain") and len(losses("out")) == 3
    with pytest.raises(RunError, match=f"'{url}/there': ClientConnectorError: Cannot connect") as caught:
        run("masked-lm", **asked, prepared=f"{url}/there", output_dir="other")
    assert caught.value.hint == "see that it is reached, then try again"
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"prepared": "x"}, "--prepared means nothing to lmtasks prepare"),
        ({"train_file": "text.txt", "max_train_samples": 5}, "--max_train_samples means nothing to lmtasks prepare"),
        ({"train_file": "text.txt", "max_eval_samples": 5}, "--max_eval_samples means nothing to lmtasks prepare"),
        ({"train_file": "none.txt"}, "no such file"),
        ({}, "output_dir 'there' holds other prepared data"),
    ],
)
def test_what_cannot_be_prepared(asked: dict[str, Any], told: str, masked: dict[str, Any], there: Preparation) -> None:
    before = files()
    with pytest.raises(InputError, match=told):
        prepare("masked-lm", "there", **{**masked, **asked, "block_size": 8})
    assert files() == before


def test_folders_of_other_things_are_left_alone(masked: dict[str, Any], lmtasks: Callable[..., Any]) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="output_dir 'full' holds files that are no prepared data"):
        prepare("masked-lm", "full", **masked, train_file="text.txt")
    with pytest.raises(InputError, match=r"output_dir 'full/mine\.txt/in' lies below the file '.*full/mine\.txt'"):
        prepare("masked-lm", "full/mine.txt/in", **masked, train_file="text.txt")
    with pytest.raises(InputError, match="output_dir '/proc/in' cannot be made: '/proc' takes no files"):
        prepare("masked-lm", "/proc/in", **masked, train_file="text.txt")
    with pytest.raises(InputError, match="output_dir 'full/in' is inside 'full', which --train_file reads"):
        prepare("masked-lm", "full/in", **masked, train_file="full")
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]


def test_bad_flags_of_the_command(lmtasks: Callable[..., Any]) -> None:
    for words, told, hint in (
        ([], "prepare needs a place to write to", "--output_dir FOLDER, or a URL"),
        (["--output_dir", "x", "--shard_size", 0], "--shard_size cannot be 0", "64 to 256, in MB"),
        (["--output_dir", "s3://bucket/x"], "--output_dir s3://bucket/x: Install s3fs", "pip install s3fs"),
    ):
        done = lmtasks("prepare", "masked-lm", "--train_file", "text.txt", *words)
        assert done.code == 2
        assert done.err.splitlines()[-2].startswith(f"error: {told}")
        assert done.err.splitlines()[-1] == f"hint: {hint}"


# --- refusals of a run ---


@pytest.mark.parametrize(
    ("recipe", "asked", "told"),
    [
        ("masked-lm", {"block_size": 32}, r"in other blocks \(size 16 there, 32 here\)"),
        ("masked-lm", {"line_by_line": True}, r"in other blocks \(line_by_line false there, true here\)"),
        ("masked-lm", {"model": "bert"}, "prepared of another tokenizer"),
        ("masked-lm", {"split_special_tokens": True}, "prepared of another tokenizer"),
        ("causal-lm", {"model": "llama"}, "prepared for the recipe masked-lm, and this is causal-lm"),
        ("masked-lm", {"train_file": "text.txt"}, "--train_file says something about data that --prepared there has"),
        ("masked-lm", {"sample_by": "paragraph"}, "--sample_by says something about data that --prepared there has"),
        ("masked-lm", {"train_sampling_strategy": "group_by_length"}, "prepared data have an order of their own"),
        ("masked-lm", {"prepared": "ther"}, "--prepared: no such folder: ther, did you mean '.*there'"),
        ("masked-lm", {"prepared": "memory://nothing"}, "--prepared memory://nothing has no manifest.json"),
        ("masked-lm", {"prepared_lanes": 0}, "prepared_lanes"),
        ("masked-lm", {"prepared": None, "prepared_lanes": 8}, "--prepared_lanes means nothing without --prepared"),
        ("masked-lm", {"output_dir": "there"}, "output_dir 'there' is what --prepared reads"),
        ("masked-lm", {"output_dir": "there/in"}, "output_dir 'there/in' is inside 'there', which --prepared reads"),
    ],
)
def test_what_does_not_fit_is_refused(
    recipe: str,
    asked: dict[str, Any],
    told: str,
    masked: dict[str, Any],
    there: Preparation,
    all_model_folders: dict[str, Path],
    in_folder: Path,
) -> None:
    before = files()
    asked = {**masked, "prepared": "there", "max_steps": 1, "output_dir": "out", **asked}
    if asked["model"] == "bert":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(all_model_folders["modernbert"])
        tokenizer.add_tokens(["prepared"])
        shutil.copytree(all_model_folders["modernbert"], "bert")
        tokenizer.save_pretrained("bert")
        asked |= {"tokenizer_name": "bert", "model": masked["model"]}
    elif asked["model"] == "llama":
        asked["model"] = str(all_model_folders["llama"])
    with pytest.raises(InputError, match=told):
        run(recipe, **asked)
    assert not Path("out").exists() and files() == before


@pytest.mark.parametrize("held_out", [False, True])
def test_shards_that_are_not_as_they_were_are_refused(
    held_out: bool, masked: dict[str, Any], there: Preparation
) -> None:
    asked = {**masked, "prepared": "there", "max_steps": 1, "output_dir": "out"}
    shard = there.manifest.held_out[""] if held_out else there.manifest.shards[""][0]
    path = Path("there", shard.file)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"'there/{shard.file}' is not as it was written"):
        run("masked-lm", **asked)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"has {len(content) - 1:,} bytes, and {len(content):,} were written"):
        run("masked-lm", **asked)
    path.unlink()
    with pytest.raises(InputError, match=f"'there/{shard.file}' is missing"):
        run("masked-lm", **asked)
    assert not Path("out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_found_damaged_in_training_ends_the_run(
    workers: int, masked: dict[str, Any], there: Preparation
) -> None:
    for shard in there.manifest.shards[""][1:]:
        path = Path("there", shard.file)
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RunError, match=r"'there/train-\d+-\w+\.bin' is not as it was written") as caught:
        run("masked-lm", **masked, prepared="there", max_steps=3, output_dir="out", dataloader_num_workers=workers)
    assert caught.value.hint.startswith("remove what is left of it")
    assert "\n" not in caught.value.message


def test_another_medium_cannot_be_prepared(lmtasks: Callable[..., Any], in_folder: Path) -> None:
    (in_folder / "sounds.py").write_text(SOUNDS)
    done = lmtasks("prepare", "./sounds.py", "--train_file", "text.txt", "--output_dir", "there")
    assert (done.code, done.err.splitlines()[-2]) == (2, "error: only text can be prepared, and sounds is about audio")


SOUNDS = """
from dataclasses import replace
from lmtasks import Medium
from lmtasks.builtin.masked_lm import MASKED_LM

nothing = "os:getcwd"
AUDIO = Medium(
    name="audio", suffixes=[".wav"], files=nothing, items=nothing, select=nothing, filled=nothing, duplicates=nothing
)
SOUNDS = replace(MASKED_LM, name="sounds", medium=AUDIO)
"""


# --- mixes ---


def mix(*, weights: tuple[float, float] = (3, 1)) -> dict[str, Any]:
    """Two sources, the second the shorter one, with text held out of each."""
    lines = Path("text.txt").read_text().splitlines(keepends=True)
    for name, part in {"a": lines[:80], "b": lines[80:120]}.items():
        Path(f"{name}.txt").write_text("".join(part))
    sources = [
        {"name": name, "train_file": f"{name}.txt", "weight": weight}
        for name, weight in zip("ab", weights, strict=True)
    ]
    return {"sources": sources}


def test_a_mix_is_mixed_as_the_sources_themselves(masked: dict[str, Any]) -> None:
    """Shares, sizes and figures are the same; and an epoch has the same number of examples of each source."""
    written = prepare("masked-lm", "there", **masked, data=mix(), shard_size=SMALL)
    assert {name: len(shards) > 1 for name, shards in written.manifest.shards.items()} == {"a": True, "b": True}
    plain, prepared = (
        run("masked-lm", **masked, **source, max_steps=1, dry_run=True)
        for source in ({"data": mix()}, {"prepared": "there"})
    )
    assert isinstance(plain, Plan) and isinstance(prepared, Plan)
    assert prepared.evaluations == plain.evaluations and plain.evaluations.keys() == {"a", "b"}
    own = {"shards": sum(map(len, written.manifest.shards.values()))}
    assert prepared.train == {**plain.train, **own, "fingerprint": plain.train["fingerprint"]}
    for name, source in plain.sources.items():
        assert prepared.sources[name] == {**source, "shards": len(written.manifest.shards[name])}
    figures = [
        evaluate(masked["model"], recipe="masked-lm", block_size=16, **source)
        for source in ({"data": mix()}, {"prepared": "there"})
    ]
    assert figures[0] == figures[1] and {"eval_a_loss", "eval_b_loss"} <= figures[0].keys()


def test_in_the_same_order_a_mix_is_the_same_run_to_the_last_bit(
    masked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("masked-lm", "there", **masked, data=mix(), shard_size=SMALL)
    steps = {"num_train_epochs": 2, "train_batch_size": 8, "logging_steps": 1, "learning_rate": 1e-3}
    monkeypatch.setattr(mixed, "_Ordered", lambda examples, size: mixed._Stride(examples, size, 0))
    stride = mixed._Stride
    monkeypatch.setattr(mixed, "_Stride", lambda examples, size, start: stride(examples, size, 0))
    run("masked-lm", **masked, **steps, data=mix(), train_sampling_strategy="sequential", output_dir="plain")
    run("masked-lm", **masked, **steps, prepared="there", output_dir="out")
    assert losses("out") == losses("plain") and len(losses("out")) > 6
    assert results("out") == results("plain")
    assert distance(Path("out"), Path("plain")) == 0


def test_a_prepared_mix_has_every_example_of_a_source_once_before_one_comes_again(masked: dict[str, Any]) -> None:
    there = prepare("masked-lm", "there", **masked, data=mix(), shard_size=SMALL).manifest
    files, blocks = LocalCopies(Store("there", "url"), 10**9), Blocks(**there.identity["blocks"])
    parts = {
        name: Sharded(there.shards[name], told, blocks, files, seed=3, window=5) for name, told in there.train.items()
    }
    for most in (None, 12):
        examples = mixed.Mixed(parts, **there.mix, seed=3).head(most)
        seen: dict[int, list[int]] = {0: [], 1: []}
        for epoch in range(4):
            for number in range(len(examples)):
                source, there_too = examples.place(number, epoch)
                seen[source].append(there_too)
        for source, part in enumerate(parts.values()):
            numbers, size = seen[source], len(part) if most is None else examples.counts[source]
            assert len(numbers) == 4 * examples.counts[source]
            passes = [numbers[first : first + size] for first in range(0, len(numbers), size)]
            assert all(len(set(once)) == len(once) <= size for once in passes)
            assert passes[0] != passes[1][: len(passes[0])] and max(numbers) < size
        assert sorted(examples.longest_first()) == [*range(len(examples))]


def test_a_prepared_mix_goes_on_where_it_was_and_in_two_processes(masked: dict[str, Any]) -> None:
    prepare("masked-lm", "there", **masked, data=mix(), shard_size=SMALL)
    asked = {**masked, "prepared": "there", "num_train_epochs": 2, "max_train_samples": 60, "train_batch_size": 8}
    asked |= {"save_steps": 3, "logging_steps": 1, "prepared_window": 20, "max_eval_samples": 5}
    run("masked-lm", **asked, output_dir="whole")
    shutil.copytree("whole", "out")
    cut("out", 6)
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    in_two_processes("run", "masked-lm", *words, "--output_dir", "out", "--resume_from_checkpoint", "auto")
    assert losses("out") == pytest.approx(losses("whole"), abs=1e-5) and len(losses("whole")) == 16
    assert distance(Path("out"), Path("whole")) < 1e-4


def test_other_weights_of_the_same_sources_change_the_manifest_and_no_shard(masked: dict[str, Any]) -> None:
    prepare("masked-lm", "there", **masked, data=mix(), shard_size=SMALL)
    before = files()
    again = prepare("masked-lm", "there", **masked, data=mix(weights=(1, 1)), shard_size=SMALL)
    assert again.manifest.mix["weights"] == {"a": 1, "b": 1}
    after = files()
    assert before.keys() == after.keys()
    assert {name for name, one in before.items() if after[name] != one} == {"manifest.json"}
