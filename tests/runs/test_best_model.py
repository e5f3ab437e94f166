"""The best model: which of two is the better comes from the figure, and only figures that will be there count."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate
import pytest

import lmtasks as package
from lmtasks.api import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.request import configure
from lmtasks.errors import InputError
from lmtasks.runs.arguments import fitted_arguments
from lmtasks.runs.prepare import prepare
from lmtasks.runs.prepared import Prepared
from lmtasks.runs.result import Run

WATCHED: dict[str, Any] = {"block_size": 16, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}


class Counted(evaluate.Metric):
    """How many batches there were, and minus that: nobody says which is better."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"targets": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, targets: list[int]) -> dict[str, Any]:
        return {"batches": len(targets), "less": -len(targets)}


class Told(Counted):
    """The same, and of one figure it is said."""

    greater_is_better: ClassVar = {"less": False}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, rows in {"train.txt": documents[:4], "a.txt": documents[8:9], "b.txt": documents[10:11]}.items():
        Path(name).write_text("\n".join(rows)[:1500] + "\n", encoding="utf-8")
    return tmp_path


def prepared(model: Path, recipe: Recipe = CAUSAL_LM, **more: Any) -> Prepared:
    given = {"model": str(model), "train_file": "train.txt", "validation_file": "a.txt", "output_dir": "out"}
    return prepare(configure(recipe, {**given, **WATCHED, **more}))


def log() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("metric", ["perplexity", "eval_bits_per_byte", "accuracy"])
def test_the_model_that_is_kept_is_the_best_one(metric: str, model_folders: dict[str, Path]) -> None:
    figure = metric.removeprefix("eval_")
    result = package.run(
        "causal-lm",
        model=str(model_folders["llama"]),
        train_file="train.txt",
        validation_file="a.txt",
        output_dir="out",
        **{**WATCHED, "max_steps": 40, "eval_steps": 5, "max_train_samples": 8},
        save_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
    )
    assert isinstance(result, Run)
    seen = [line[f"eval_{figure}"] for line in log() if f"eval_{figure}" in line]
    best, worst = (max(seen), min(seen)) if figure == "accuracy" else (min(seen), max(seen))
    assert len(seen) == 8 and best != worst
    assert result.metrics[figure] == best


DIRECTIONS = {
    "loss": False,
    "eval_loss": False,
    "perplexity": False,
    "unigram_loss": False,
    "bits_per_byte": False,
    "accuracy": True,
    "two_perplexity": False,
    "eval_one_bits_per_byte": False,
    "two_accuracy": True,
}


def test_every_figure_of_every_set_has_its_direction(model_folders: dict[str, Path]) -> None:
    made = prepared(model_folders["gpt2"], validation_file=["one=a.txt", "two=b.txt"])
    for metric, greater in DIRECTIONS.items():
        for asked in (None, greater, not greater):
            training = {**made.request.training, "metric_for_best_model": metric, "greater_is_better": asked}
            data = dataclasses.replace(made.data, request=dataclasses.replace(made.request, training=training))
            if asked is (not greater):
                with pytest.raises(InputError, match=f"--greater_is_better {str(asked).lower()} contradicts"):
                    fitted_arguments(data, made.model)
            else:
                assert fitted_arguments(data, made.model)["greater_is_better"] is greater, metric


def test_a_metric_says_its_direction_itself_or_the_user_does(model_folders: dict[str, Path]) -> None:
    told, silent = (
        dataclasses.replace(CAUSAL_LM, metrics=(f"test_best_model:{name}",)) for name in ("Told", "Counted")
    )
    gpt2 = model_folders["gpt2"]
    assert prepared(gpt2, told, metric_for_best_model="less").arguments.greater_is_better is False
    with pytest.raises(InputError, match="nobody says whether more of --metric_for_best_model batches") as caught:
        prepared(gpt2, told, metric_for_best_model="batches")
    assert "--greater_is_better" in caught.value.hint
    for greater in (True, False):
        made = prepared(gpt2, silent, metric_for_best_model="less", greater_is_better=greater)
        assert made.arguments.greater_is_better is greater


@pytest.mark.parametrize("metric", ["perplexty", "sliding_perplexity"])
def test_a_figure_that_there_will_not_be_is_refused_with_those_that_will(
    metric: str, model_folders: dict[str, Path], in_folder: Path
) -> None:
    """A view such as the sliding window is measured only once, at the end."""
    before = sorted(in_folder.rglob("*"))
    with pytest.raises(InputError, match=f"--metric_for_best_model {metric} is no figure of the evaluation") as caught:
        prepared(model_folders["gpt2"], metric_for_best_model=metric, stride=8)
    named = caught.value.hint.removeprefix("one of ").split(", ")
    assert sorted(before) == sorted(in_folder.rglob("*"))
    package.run(
        "causal-lm",
        model=str(model_folders["gpt2"]),
        train_file="train.txt",
        validation_file="a.txt",
        output_dir="out",
        **WATCHED,
    )
    (logged, *_) = (line for line in log() if "eval_loss" in line)
    assert {f"eval_{name}" for name in named} == {name for name in logged if name.startswith("eval_")}


def test_figures_that_nobody_measures_choose_nothing(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="nothing is evaluated during training") as caught:
        prepared(model_folders["gpt2"], metric_for_best_model="loss", save_strategy="best", eval_strategy="no")
    assert "--eval_strategy steps" in caught.value.hint


@pytest.mark.parametrize(
    ("metric", "given"), [("accuracy", '{"patience": 0, "eps": 0}'), ("perplexity", {"patience": 0, "eps": 0})]
)
def test_the_rate_falls_when_the_figure_gets_no_better(metric: str, given: Any, model_folders: dict[str, Path]) -> None:
    package.run(
        "causal-lm",
        model=str(model_folders["gpt2"]),
        train_file="train.txt",
        validation_file="a.txt",
        output_dir="out",
        **{**WATCHED, "max_steps": 12},
        logging_steps=1,
        learning_rate=1e-2,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs=given,
        metric_for_best_model=metric,
    )
    figures = [line[f"eval_{metric}"] for line in log() if f"eval_{metric}" in line]
    rates = [line["learning_rate"] for line in log() if "learning_rate" in line]
    rate, best, expected = 1e-2, None, []
    for figure in figures:
        expected.append(rate)
        # torch: better is better by more than 1e-4 of the best.
        better = best is None or (figure > best * 1.0001 if metric == "accuracy" else figure < best * 0.9999)
        best, rate = (figure, rate) if better else (best, rate * 0.1)
    assert len(set(expected)) > 1, "the rate fell at least once"
    assert all(math.isclose(one, other, rel_tol=1e-9) for one, other in zip(rates, expected, strict=True))


def test_a_mode_against_the_figure_is_refused(model_folders: dict[str, Path]) -> None:
    watched = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "accuracy"}
    assert prepared(model_folders["gpt2"], **watched).arguments.lr_scheduler_kwargs == {"mode": "max"}
    agreed = prepared(model_folders["gpt2"], **watched, lr_scheduler_kwargs={"mode": "max", "patience": 3})
    assert agreed.arguments.lr_scheduler_kwargs == {"mode": "max", "patience": 3}
    by_loss = prepared(model_folders["gpt2"], lr_scheduler_type="greedy")
    assert by_loss.arguments.lr_scheduler_kwargs == {"mode": "min"}
    with pytest.raises(InputError, match="mode 'min' contradicts the metric, whose mode is 'max'"):
        prepared(model_folders["gpt2"], **watched, lr_scheduler_kwargs={"mode": "min"})
