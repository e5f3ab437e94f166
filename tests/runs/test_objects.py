"""Runs of what only a program holds: a model and a tokenizer in memory, callbacks and figures of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import peft
import pytest
import torch
import transformers
from transformers import TrainerCallback

from lmtasks import InputError, run

SMALL: dict[str, Any] = {"block_size": 16, "max_steps": 3, "learning_rate": 1e-3, "output_dir": "out"}
KINDS = {
    "masked-lm": ("roberta", transformers.AutoModelForMaskedLM),
    "causal-lm": ("gpt2", transformers.AutoModelForCausalLM),
}
RECIPES = pytest.mark.parametrize("recipe", KINDS)
TIMES = ("runtime", "per_second")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def objects(model_folders: dict[str, Path]) -> Any:
    """(model, tokenizer) of a recipe, in memory."""

    def load(recipe: str) -> tuple[Any, Any]:
        kind, model_class = KINDS[recipe]
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders[kind])
        return model_class.from_pretrained(model_folders[kind]), tokenizer

    return load


def figures(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(TIMES)}


def left_over() -> list[str]:
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "lmtasks" / "objects"
    return os.listdir(folder) if folder.exists() else []


# --- a model and a tokenizer ---


@RECIPES
def test_model_in_memory_is_trained_as_from_its_folder_and_stays_as_it_was(
    recipe: str, objects: Any, model_folders: dict[str, Path], documents: list[str]
) -> None:
    model, tokenizer = objects(recipe)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    named = run(recipe, model=str(model_folders[KINDS[recipe][0]]), train_dataset=documents, **SMALL)
    held = run(recipe, model=model, tokenizer=tokenizer, train_dataset=documents, **SMALL | {"output_dir": "held"})
    assert figures(held.metrics) == figures(named.metrics)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(held.model.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert left_over() == []


def test_weights_in_bfloat16_are_trained_in_float32_as_those_of_a_file(objects: Any, documents: list[str]) -> None:
    model, tokenizer = objects("masked-lm")
    done = run("masked-lm", model=model.to(torch.bfloat16), tokenizer=tokenizer, train_dataset=documents, **SMALL)
    assert done.model.dtype == torch.float32


@pytest.mark.parametrize("name", ["tokenizer", "processing_class", "tokenizer_name"])
def test_tokenizer_by_name_or_in_memory(
    name: str, objects: Any, model_folders: dict[str, Path], documents: list[str]
) -> None:
    model, tokenizer = objects("masked-lm")
    by_name = run("masked-lm", model=model, train_dataset=documents, **{name: str(model_folders["roberta"])}, **SMALL)
    assert len(by_name.tokenizer) == len(tokenizer)


def test_new_model_with_a_tokenizer_in_memory(objects: Any, documents: list[str]) -> None:
    _, tokenizer = objects("causal-lm")
    shape = "n_layer=1,n_embd=16,n_head=2,n_positions=32"
    done = run(
        "causal-lm", model_type="gpt2", config_overrides=shape, tokenizer=tokenizer, train_dataset=documents, **SMALL
    )
    assert done.model.config.vocab_size == len(tokenizer) == len(done.tokenizer)


def test_same_object_is_the_same_run_and_another_is_another(
    objects: Any, documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    again = {**SMALL, "resume_from_checkpoint": "auto", "train_dataset": documents}
    model, tokenizer = objects("masked-lm")
    first = run("masked-lm", model=model, tokenizer=tokenizer, **again)
    capsys.readouterr()
    other, tokenizer = objects("masked-lm")  # the same weights, in another object
    assert run("masked-lm", model=other, tokenizer=tokenizer, **again).metrics == first.metrics
    assert "the run in 'out' is finished" in capsys.readouterr().err
    with torch.no_grad():
        other.get_input_embeddings().weight[5, 3] += 1e-3
    with pytest.raises(InputError, match="model_name_or_path"):
        run("masked-lm", model=other, tokenizer=tokenizer, **again)


def test_data_frame(objects: Any, documents: list[str]) -> None:
    model, tokenizer = objects("masked-lm")
    listed = run("masked-lm", model=model, tokenizer=tokenizer, train_dataset=documents, **SMALL)
    frame = pandas.DataFrame({"text": documents, "number": range(len(documents))})
    framed = run("masked-lm", model=model, tokenizer=tokenizer, train_dataset=frame, **SMALL | {"output_dir": "frame"})
    assert figures(framed.metrics) == figures(listed.metrics)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, "model cannot be a int"),
        ({"model": torch.nn.Linear(2, 2)}, "model cannot be a Linear"),
        ({"tokenizer": object()}, "tokenizer cannot be a object"),
        ({"model_name_or_path": "other"}, "model and model_name_or_path are given"),
        ({"tokenizer": "one", "tokenizer_name": "other"}, "tokenizer and tokenizer_name are given"),
        ({"callbacks": [print]}, "callbacks cannot hold a builtin_function_or_method"),
        ({"callbacks": [transformers.Trainer]}, "callbacks cannot hold a Trainer"),
        ({"compute_metrics": "accuracy"}, "compute_metrics cannot be a str"),
        ({"compute_metrics": len, "preprocess_logits_for_metrics": 1}, "preprocess_logits_for_metrics cannot be a int"),
        ({"preprocess_logits_for_metrics": max}, "preprocess_logits_for_metrics means nothing alone"),
        ({"train_dataset": "one text"}, "train_dataset cannot be a str"),
        ({"learning_rate": torch.nn.Linear(2, 2)}, "--learning_rate cannot be a Linear"),
        ({"block_size": [torch.nn.Linear(2, 2)] * 99}, "--block_size cannot be [Linear("),
        ({"model": "word" * 500}, f"--model_name_or_path '{'word' * 10}'…"),
        ({"tokenizer": "t" * 500}, f"--tokenizer_name '{'t' * 40}'…"),
        ({"output_dir": "o" * 500}, f"--output_dir '{'o' * 40}'…"),
    ],
)
def test_what_cannot_be_is_told_in_one_short_line(
    given: dict[str, Any], message: str, model_folders: dict[str, Path], documents: list[str]
) -> None:
    values = {"model": str(model_folders["roberta"]), "train_dataset": documents, **SMALL, **given}
    with pytest.raises(InputError) as caught:
        run("masked-lm", **values)
    assert caught.value.message.startswith(message)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert os.listdir() == []


def test_text_in_place_of_a_file_is_no_name(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"--train_file 'a a .* is no name of a file or folder"):
        run("masked-lm", model=str(model_folders["roberta"]), train_file="a " * 1000, **SMALL)


def test_model_without_its_tokenizer(objects: Any, documents: list[str]) -> None:
    with pytest.raises(InputError, match="without its tokenizer"):
        run("masked-lm", model=objects("masked-lm")[0], train_dataset=documents, **SMALL)
    assert left_over() == []


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # inside peft
def test_adapter_in_memory_and_adapter_for_a_model_in_memory(objects: Any, documents: list[str]) -> None:
    model, tokenizer = objects("causal-lm")
    values = {"tokenizer": tokenizer, "train_dataset": documents, **SMALL}
    done = run("causal-lm", model=model, use_peft=True, **values)
    assert done.plan.base_model == model.name_or_path, "it lies there, and others find it"
    model.lm_head.weight.data += 1e-3
    with pytest.raises(InputError, match=f"this is not '{model.name_or_path}' any more"):
        run("causal-lm", model=model, use_peft=True, **{**values, "output_dir": "other"})
    made = type(model)(model.config)
    made.config._name_or_path = made.name_or_path = ""
    with pytest.raises(InputError, match="an adapter needs its base where others find it, and this is in memory only"):
        run("causal-lm", model=made, use_peft=True, **{**values, "output_dir": "other"})
    assert left_over() == [] and not Path("other").exists()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True))
    with pytest.raises(InputError, match="PeftModelForCausalLM") as caught:
        run("causal-lm", model=wrapped, **values)
    assert "use_peft=True" in str(caught.value.hint)


# --- callbacks ---


class Counting(TrainerCallback):
    """Counts steps, and wants the end after some."""

    steps = 0

    def __init__(self, end: int = 99) -> None:
        self.end = end

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        Counting.steps += 1
        control.should_training_stop = control.should_training_stop or state.global_step >= self.end


@pytest.mark.parametrize("given", [[Counting()], [Counting], Counting()])
def test_callbacks_are_called_and_change_nothing(
    given: Any, model_folders: dict[str, Path], documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "steps", 0)
    values = {"model": str(model_folders["roberta"]), "train_dataset": documents, **SMALL}
    plain = run("masked-lm", **values)
    called = run("masked-lm", **values | {"output_dir": "called"}, callbacks=given)
    assert Counting.steps == 3
    assert figures(called.metrics) == figures(plain.metrics)


def test_callback_may_end_training(model_folders: dict[str, Path], documents: list[str]) -> None:
    values = {"model": str(model_folders["roberta"]), "train_dataset": documents, **SMALL}
    ended = run("masked-lm", **values, callbacks=[Counting(2)])
    shorter = run("masked-lm", **values | {"output_dir": "two", "max_steps": 2, "lr_scheduler_type": "linear"})
    assert ended.history.index.max() == 2
    assert ended.metrics["eval_loss"] != shorter.metrics["eval_loss"], "the schedule is that of three steps"


def test_error_in_a_callback_is_the_programs_own(model_folders: dict[str, Path], documents: list[str]) -> None:
    class Wrong(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run("masked-lm", model=str(model_folders["roberta"]), train_dataset=documents, callbacks=[Wrong()], **SMALL)


# --- figures of one's own ---


def share_right(prediction: transformers.EvalPrediction, ids: bool = False) -> dict[str, float]:
    """The share of right guesses, for masked and (shifted by one) for causal models alike."""
    guesses = prediction.predictions if ids else prediction.predictions.argmax(-1)
    labels = prediction.label_ids
    return {"right": float((guesses == labels)[labels != -100].mean()), "targets_seen": float((labels != -100).sum())}


def shifted(prediction: transformers.EvalPrediction) -> dict[str, float]:
    return share_right(transformers.EvalPrediction(prediction.predictions[:, :-1], prediction.label_ids[:, 1:]))


@pytest.mark.parametrize("line_by_line", [False, True])
@RECIPES
def test_compute_metrics_sees_what_lmtasks_measures(
    recipe: str, line_by_line: bool, model_folders: dict[str, Path], documents: list[str]
) -> None:
    seen = []

    def compute(prediction: transformers.EvalPrediction) -> dict[str, float]:
        seen.append((prediction.predictions.shape, prediction.label_ids.shape))
        return share_right(prediction) if recipe == "masked-lm" else shifted(prediction)

    model = str(model_folders[KINDS[recipe][0]])
    texts = [document[:60] for document in documents]
    values = {"model": model, "train_dataset": texts, "line_by_line": line_by_line, **SMALL}
    done = run(recipe, **values, compute_metrics=compute)
    assert done.metrics["eval_right"] == pytest.approx(done.metrics["accuracy"], abs=1e-12)
    assert done.metrics["eval_targets_seen"] == done.metrics["eval_targets"]
    (predictions, labels), *others = seen
    assert not others
    assert predictions[:2] == labels
    plain = run(recipe, **values | {"output_dir": "plain"})
    own = {"eval_right", "eval_targets_seen"}
    assert {name: value for name, value in figures(done.metrics).items() if name not in own} == figures(plain.metrics)


def test_less_than_all_logits(model_folders: dict[str, Path], documents: list[str]) -> None:
    done = run(
        "masked-lm",
        model=str(model_folders["roberta"]),
        train_dataset=documents,
        compute_metrics=lambda prediction: share_right(prediction, ids=True),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        **SMALL,
    )
    assert done.metrics["eval_right"] == pytest.approx(done.metrics["accuracy"], abs=1e-12)


def test_each_set_has_its_figures_and_ours_are_never_replaced(
    model_folders: dict[str, Path], documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = iter((10.0, 20.0))
    done = run(
        "masked-lm",
        model=str(model_folders["roberta"]),
        train_dataset=documents,
        eval_dataset={"one": documents[:5], "two": documents[5:20]},
        compute_metrics=lambda prediction: {"size": next(sizes), "eval_loss": np.float32(0)},
        **SMALL,
    )
    assert (done.metrics["eval_size"], done.metrics["eval_one_size"], done.metrics["eval_two_size"]) == (10, 10, 20)
    assert done.metrics["eval_loss"] > 1
    assert (
        "compute_metrics: its eval_loss is left out, lmtasks has measured eval_loss itself" in capsys.readouterr().err
    )


# --- manners ---


def test_libraries_speak_as_before_and_not_during_a_run(
    model_folders: dict[str, Path], documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    transformers.logging.set_verbosity_info()
    transformers.logging.enable_progress_bar()
    try:
        run("masked-lm", model=str(model_folders["roberta"]), train_dataset=documents, **SMALL)
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
        assert transformers.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity_warning()
    said = capsys.readouterr().err
    assert "Loading weights" not in said
    assert "loading configuration file" not in said
