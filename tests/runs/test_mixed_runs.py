"""Runs on a mix of sources: what is said before, what is trained on, and what is measured after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lmtasks as package
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.request import configure
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_sources
from lmtasks.errors import InputError
from lmtasks.runs.plan import Plan
from lmtasks.runs.prepare import prepare

MIX = """
sources:
  - name: wiki
    train_file: wiki.jsonl
    weight: 0.8
    test_size: 0.25
  - name: code
    train_file: code.txt
    weight: 0.2
    validation_file: held-out.txt
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"text": document[:300]}) for document in documents[:16]]
    Path("wiki.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    Path("code.txt").write_text("\n".join(documents[20:22]), encoding="utf-8")
    Path("held-out.txt").write_text(documents[30][:900], encoding="utf-8")
    Path("mix.yaml").write_text(MIX)
    return tmp_path


def asked(model: Path, **more: Any) -> dict[str, Any]:
    values = {"model": str(model), "data": "mix.yaml", "block_size": 16, "learning_rate": 5e-3, "seed": 1}
    return {**values, "num_train_epochs": 2, "output_dir": "out", **more}


def contents(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder, "model.safetensors"))


def test_the_plan_says_how_often_each_source_is_seen(model_folders: dict[str, Path]) -> None:
    plan = package.run("causal-lm", **asked(model_folders["gpt2"], dry_run=True))
    assert isinstance(plan, Plan)
    wiki, code = plan.sources["wiki"], plan.sources["code"]
    assert (wiki["rows"], wiki["weight"], code["weight"]) == (12, 0.8, 0.2), "a quarter of 16 is held out"
    examples = plan.train["examples_per_epoch"]
    assert 0 <= wiki["blocks"] * 16 - wiki["tokens_per_epoch"] <= 16, "the first that is exhausted, but for a rounding"
    assert wiki["times_seen"] == pytest.approx(plan.epochs, abs=0.02)
    assert abs(wiki["tokens_per_epoch"] / (16 * examples) - 0.8) < 1 / examples
    assert code["times_seen"] == pytest.approx(plan.epochs * code["tokens_per_epoch"] / 16 / code["blocks"], abs=0.02)
    lines = plan.lines()
    assert plan.block_size == 16 and lines[1] == "data       wiki (wiki.jsonl) + code (code.txt)"
    assert lines[3:7] == [
        f"  source   wiki: 12 documents, {wiki['tokens']:,} tokens, weight 0.8,"
        f" {wiki['tokens_per_epoch']:,} tokens per epoch, {wiki['times_seen']} times seen",
        f"  source   code: {code['rows']} lines, {code['tokens']:,} tokens, weight 0.2,"
        f" {code['tokens_per_epoch']:,} tokens per epoch, {code['times_seen']} times seen",
        f"  held out wiki: 4 documents, {plan.evaluations['wiki']['tokens']:,} tokens,"
        f" {plan.evaluations['wiki']['blocks']} blocks, {plan.evaluations['wiki']['tail']} tokens left over",
        f"  held out code: {plan.evaluations['code']['rows']} lines, {plan.evaluations['code']['tokens']:,} tokens,"
        f" {plan.evaluations['code']['blocks']} blocks, {plan.evaluations['code']['tail']} tokens left over",
    ]


def test_workers_and_a_resumption_in_an_epoch_change_nothing(model_folders: dict[str, Path]) -> None:
    """The same final weights, bit for bit: masks, order and sources are those of the run that nothing stopped."""
    values = asked(model_folders["gpt2"], save_steps=5, max_train_samples=60)
    package.run("causal-lm", **values)
    whole = weights("out")
    shutil.rmtree("out")
    package.run("causal-lm", **values, dataloader_num_workers=2)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights("out").items())
    record = contents("out/run.json")
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    Path("out/model.safetensors").unlink()
    package.run("causal-lm", **values, dataloader_num_workers=2, resume_from_checkpoint="out/checkpoints/checkpoint-10")
    resumed = weights("out")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_leaves_its_mix_and_is_evaluated_on_each_source(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    words = ("--model", model_folders["gpt2"], "--data", "mix.yaml", "--block_size", 16, "--max_steps", 3)
    done = lmtasks("run", "causal-lm", *words, "--output_dir", "out")
    assert done.code == 0, done.err
    record, results = contents("out/run.json"), contents("out/all_results.json")
    assert record["settings"]["data"]["sources"][1] == {
        "name": "code",
        "weight": 0.2,
        "train_file": ["code.txt"],
        "validation_file": ["held-out.txt"],
    }
    assert record["data"]["sources"].keys() == record["data"]["evaluations"].keys() == {"wiki", "code"}
    assert {"eval_loss", "eval_wiki_loss", "eval_code_loss"} <= results.keys()
    assert results["eval_loss"] == results["eval_wiki_loss"]
    card = Path("out/README.md").read_text()
    wiki = record["data"]["sources"]["wiki"]
    assert f"| wiki | wiki.jsonl | 0.8 | 12 | documents | {wiki['tokens']:,} | {wiki['tokens_per_epoch']:,} |" in card
    assert "wiki: Perplexity" in card and "code: Perplexity" in card
    other = lmtasks("evaluate", model_folders["llama"], "--data", "mix.yaml", "--block_size", 16, "--json")
    assert {"eval_wiki_loss", "eval_code_loss"} <= json.loads(other.out).keys(), other.err
    # Without the file of the mix: the record has all of it.
    Path("mix.yaml").unlink()
    Path("code.txt").unlink()
    again = lmtasks("evaluate", "out", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out).items() <= results.items()
    Path("held-out.txt").write_text("other\n")
    assert "the code text that the run in 'out' held out is no longer there" in lmtasks("evaluate", "out").err
    assert lmtasks("evaluate", "out", "--validation_file", "held-out.txt").code == 0


def test_settings_hold_for_sources_that_do_not_say_otherwise(documents: list[str]) -> None:
    one: dict[str, Any] = {"name": "wiki", "train_file": ["wiki.jsonl"], "weight": 1}
    two = {"name": "half", "train_file": ["wiki.jsonl"], "weight": 1, "validation_split_percentage": 25}
    corpus = load_sources(DataSettings(data={"sources": [one, two]}, test_size=0.5))
    assert {name: len(split) for name, split in corpus.training.items()} == {"wiki": 8, "half": 12}
    assert {name: len(split) for name, split in corpus.evaluations.items()} == {"wiki": 8, "half": 4}
    off = load_sources(DataSettings(data={"sources": [one, {**two, "weight": 0}]}))
    assert (off.training.keys(), off.evaluations.keys()) == ({"wiki"}, {"wiki", "half"}), "weight 0 is evaluated only"


def test_a_tokenizer_learns_from_all_sources() -> None:
    sources = [("a", "xyxyxyxy " * 40, 0.99), ("b", "qzqzqzqz " * 40, 0.01)]
    for name, text, _ in sources:
        Path(f"{name}.txt").write_text("\n".join([text] * 20))
    mix = {"sources": [{"name": name, "train_file": f"{name}.txt", "weight": weight} for name, _, weight in sources]}
    config = "n_layer=1,n_embd=16,n_head=2,n_positions=64"
    values = {"model_type": "gpt2", "config_overrides": config, "data": mix, "train_tokenizer": 320, "dry_run": True}
    prepared = prepare(configure(CAUSAL_LM, {**values, "block_size": 16, "max_steps": 1, "output_dir": "out"}))
    tokens = prepared.processor.get_vocab()
    assert "xyxyxyxy" in tokens and "qzqzqzqz" in tokens


SOURCE = {"name": "a", "train_file": "code.txt", "weight": 1}


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ({"train_file": "code.txt"}, "--data and --train_file exclude each other", "each source"),
        ({"validation_file": "held-out.txt"}, "--data and --validation_file exclude each other", "validation_file"),
        ({"eval_dataset": ["x"]}, "--data and --eval_dataset exclude each other", ""),
        ({"train_split": "train[:5]"}, "--data and --train_split exclude each other", ""),
        (
            {"data": {"sources": [{**SOURCE, "train_file": "gone.txt"}]}},
            "source 'a' of --data: --train_file: no such file: gone.txt",
            "",
        ),
        (
            {
                "data": {
                    "sources": [
                        {"name": "a", "train_file": "code.txt", "weight": 1, "validation_file": "n=held-out.txt"}
                    ]
                }
            },
            "source 'a' of --data: validation_file names sets",
            "leave the names out",
        ),
    ],
)
def test_contradictions(more: dict[str, Any], message: str, hint: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError) as caught:
        package.run("causal-lm", **asked(model_folders["gpt2"], dry_run=True, **more))
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
