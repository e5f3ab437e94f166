"""Several evaluation sets: each has the figures that it would have alone, everywhere that figures go."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import lmtasks as package
from lmtasks.errors import InputError
from lmtasks.runs.plan import Plan
from lmtasks.runs.result import Run

SMALL: dict[str, Any] = {"block_size": 16, "max_steps": 4, "learning_rate": 5e-3}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    parts = {"train.txt": documents[:6], "a.txt": documents[8:9], "b.txt": documents[10:11], "c.txt": documents[11:12]}
    for name, rows in parts.items():
        Path(name).write_text("\n".join(rows)[:1500] + "\n", encoding="utf-8")
    return tmp_path


def contents(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_each_set_has_its_figures_and_the_first_chooses(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    told = lmtasks(
        *("run", "causal-lm", "--model", model_folders["gpt2"], "--train_file", "train.txt", "--output_dir", "out"),
        *("--validation_file", "wiki=a.txt", "code=b.txt", "code=c.txt", "--block_size", 16, "--max_steps", 4),
        *("--eval_strategy", "steps", "--eval_steps", 2, "--save_steps", 2, "--load_best_model_at_end"),
        *("--metric_for_best_model", "loss", "--stride", 8, "--learning_rate", 5e-3),
    )
    assert told.code == 0, told.err
    results = contents("out/all_results.json")
    for name, files in {"wiki": ["a.txt"], "code": ["b.txt", "c.txt"]}.items():
        alone = package.evaluate("out", validation_file=files, block_size=16, stride=8)
        named = {f"eval_{name}_{figure.removeprefix('eval_')}": value for figure, value in alone.items()}
        assert "perplexity" in alone and named.items() <= results.items()
        if name == "wiki":
            assert alone.items() <= results.items(), "the first set has the plain names, too"
    assert results["eval_wiki_loss"] != results["eval_code_loss"]
    assert contents("out/eval_results.json").items() <= results.items()
    # In training: all of them at once, the first one's also without a name; that one chooses the best model.
    logged = [line for line in map(json.loads, Path("out/log.jsonl").read_text().splitlines()) if "eval_loss" in line]
    assert [line["step"] for line in logged] == [2, 4]
    assert all(line["eval_loss"] == line["eval_wiki_loss"] != line["eval_code_loss"] for line in logged)
    assert all(math.isclose(line["eval_code_perplexity"], math.exp(line["eval_code_loss"])) for line in logged)
    assert contents("out/trainer_state.json")["best_metric"] == min(line["eval_wiki_loss"] for line in logged)
    # The console, the plan and the card.
    for name in ("wiki", "code"):
        assert f"{name} loss" in told.out and f"{name} sliding perplexity" in told.out
        assert f"held out {name}: " in told.err
        perplexity = f"{results[f'eval_{name}_perplexity']:,.4f}".rstrip("0").rstrip(".")
        assert f"| {name}: Perplexity | {perplexity} |" in Path("out/README.md").read_text()
    assert "\nloss" not in told.out, "the first set is not told twice"
    # Evaluating the run again measures the same sets, and notices when one of them has changed.
    again = json.loads(lmtasks("evaluate", "out", "--json").out)
    assert again.items() <= results.items() and again["eval_code_loss"] == results["eval_code_loss"]
    Path("c.txt").write_text("other text\n")
    changed = lmtasks("evaluate", "out")
    assert changed.code == 2 and "the code text that the run in 'out' held out is no longer there" in changed.err


def test_early_stopping_and_best_models_may_name_any_set(model_folders: dict[str, Path], documents: list[str]) -> None:
    result = package.run(
        "causal-lm",
        model=str(model_folders["gpt2"]),
        train_dataset=documents[:5],
        eval_dataset={"one": [documents[8]], "two": datasets.Dataset.from_dict({"text": [documents[9]]})},
        output_dir="out",
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="best",
        metric_for_best_model="two_loss",
        **SMALL,
    )
    assert isinstance(result, Run)
    logged = [line for line in map(json.loads, Path("out/log.jsonl").read_text().splitlines()) if "eval_loss" in line]
    state = contents("out/trainer_state.json")
    assert state["best_metric"] == min(line["eval_two_loss"] for line in logged)
    assert {"eval_one_loss", "eval_two_loss", "eval_loss"} <= result.metrics.keys()


def test_a_best_model_by_no_figure_is_refused_with_the_figures(model_folders: dict[str, Path]) -> None:
    how = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "tow_loss",
        "validation_file": "two=a.txt",
    }
    found = "tow_loss is no figure of the evaluation during training, did you mean 'two_loss'"
    with pytest.raises(InputError, match=found) as caught:
        package.run(
            "causal-lm", model=str(model_folders["gpt2"]), train_file="train.txt", output_dir="out", **how, **SMALL
        )
    assert "two_perplexity" in str(caught.value.hint)
    assert not Path("out").exists()


def planned(model: Path, **more: Any) -> Plan:
    plan = package.run("causal-lm", model=str(model), dry_run=True, **{**SMALL, **more})
    assert isinstance(plan, Plan)
    return plan


def test_duplicates_and_rows_are_counted_for_each_set(model_folders: dict[str, Path], documents: list[str]) -> None:
    sets = {"seen": documents[2:5], "new": documents[20:24]}
    plan = planned(model_folders["gpt2"], train_dataset=documents[:5], eval_dataset=sets, max_eval_samples=2)
    assert {name: (sizes["rows"], sizes["duplicates"]) for name, sizes in plan.evaluations.items()} == {
        "seen": (3, 3),
        "new": (4, 0),
    }
    assert [sizes["blocks"] for sizes in plan.evaluations.values()] == [2, 2], "--max_eval_samples counts for each set"
    assert plan.evaluation == plan.evaluations["seen"]
    assert [note for note in plan.notes if "training text, too" in note] == [
        "3 of 3 held-out seen documents are in the training text, too"
    ]


def test_what_python_cannot_hand_over(model_folders: dict[str, Path], documents: list[str]) -> None:
    for sets, message in (
        ({}, "empty dict"),
        ({"a b": documents[:1]}, "cannot be called 'a b'"),
        ({"a": "text"}, "cannot be a str"),
        ({"a": [" "]}, "white space"),
        ({"a": datasets.DatasetDict(x=datasets.Dataset.from_dict({"text": ["x"]}), y=None)}, "several splits"),
    ):
        with pytest.raises(InputError, match=message):
            planned(model_folders["gpt2"], train_dataset=documents[:5], eval_dataset=sets)
    splits = datasets.DatasetDict(test=datasets.Dataset.from_dict({"text": documents[6:8]}))
    plan = planned(model_folders["gpt2"], train_dataset=documents[:5], eval_dataset=splits)
    assert plan.evaluations == {}, "a DatasetDict has splits, not sets"
    assert plan.evaluation["rows"] == 2


def test_a_file_for_training_is_in_no_set(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"train.txt is given for both"):
        planned(model_folders["gpt2"], train_file="train.txt", validation_file=["a=a.txt", "b=train.txt"])


def test_a_set_without_anything_to_predict_is_refused_by_its_name(model_folders: dict[str, Path]) -> None:
    Path("one.txt").write_text("<s></s><pad>")
    with pytest.raises(InputError, match="held-out tiny text has nothing to predict in its 3 tokens"):
        package.run(
            "masked-lm",
            model=str(model_folders["roberta"]),
            train_file="train.txt",
            dry_run=True,
            block_size=16,
            validation_file=["a=a.txt", "tiny=one.txt"],
        )
