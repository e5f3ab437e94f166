"""What a function of a plugin returns is looked at where it returns, and told like any fault of a plugin."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin_folder import plugin_folder

from lmtasks.api import BATCH, CALLBACKS, RETURNS, Blocks, LossTerm, wrong_sums
from lmtasks.builtin.masked_lm import MASKED_LM

CODE = '''
"""masked-lm, of which a function returns what the environment says."""

import dataclasses
import os

from lmtasks import hookimpl, masked_loss
from lmtasks.builtin.masked_lm import MASKED_LM

STAGE, _, WHAT = os.environ.get("RETURNED", "").partition(":")


def returning(stage, right):
    """The function, or in its place one that returns the other thing."""

    def other(*arguments):
        result = right(*arguments)
        return eval(WHAT, {"result": result}) if stage == STAGE else result

    return other


def collator(tokenizer, options, training):
    return returning("batch", MASKED_LM.collator(tokenizer, options, training))


def loss(model, batch):
    return masked_loss(model, batch)


FIELDS = ("preprocess", "targets", "views", "perplexity_name", "prompt", "answers")
MINE = dataclasses.replace(
    MASKED_LM,
    name="mine",
    collator=returning("collator", collator),
    loss=returning("loss", loss),
    metrics=os.environ.get("METRICS", "lmtasks.metrics:Perplexity").split(),
    starter=None,
    **{field: returning(field, getattr(MASKED_LM, field)) for field in FIELDS},
)
if "NAMED" in os.environ:
    field, name = os.environ["NAMED"].split("=")
    MINE = dataclasses.replace(MINE, **{field: (name,) if field == "metrics" else name})


class Words:
    """No figures."""

    features = {"loss": None}

    def __init__(self, keep_in_memory):
        pass

    def compute(self, loss):
        return "low"


@hookimpl
def lmtasks_recipes():
    return [MINE]
'''

RUN = ["--model", "model", "--train_file", "text.txt", "--block_size", "16", "--max_steps", "1", "--output_dir", "out"]


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the plugin's module, in a folder with a text and a model."""
    with plugin_folder(tmp_path, "returning", CODE, text_file, model_folders["roberta"], monkeypatch) as name:
        yield name


IN_A_RUN = {
    "preprocess:None": ("preprocess", "preprocess returns None", "return lmtasks.Blocks"),
    "collator:{}": ("collator", "collator returns a dict", "return a function from a list of examples"),
    "batch:None": ("collator", "the batch is None", "return a dictionary of tensors"),
    "batch:{**result, 'labels': result['labels'].tolist()}": (
        "collator",
        "'labels' of the batch is a list",
        "return a",
    ),
    "targets:None": ("targets", "targets gives None", "return the ids of the targets"),
    "views:None": ("views", "views is None", "return {name: Blocks"),
    "perplexity_name:None": ("perplexity_name", "the name is None", "return a text"),
    "loss:None": ("loss", "loss returns None, no pair and no triple", "return (sum of the losses"),
    "loss:result[0]": ("loss", "loss returns a tensor [], no pair and no triple", "return (sum of the losses"),
    "loss:(result[0].item(), result[1])": ("loss", "the loss is a float, no scalar tensor", "return (sum"),
    "loss:(result[0].expand(3), result[1])": ("loss", "the loss is a tensor [3], no scalar tensor", "return (sum"),
    "loss:{'one': result}": ("loss", "the term 'one' is a tuple, no LossTerm", "return (sum of the losses"),
}


@pytest.mark.parametrize("returned", IN_A_RUN)
def test_what_is_no_result_is_told_where_it_was_returned(
    returned: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, wrong, advice = IN_A_RUN[returned]
    monkeypatch.setenv("RETURNED", returned)
    done = lmtasks("run", "mine", "--plugin", here, *RUN)
    assert done.code == 1, done.err
    *_, error, hint = done.err.splitlines()
    said = rf"error: recipe 'mine' of {here} failed in its {stage}: {re.escape(wrong)} \({here}\.py, line \d+\)"
    assert re.fullmatch(said, error), error
    assert hint.startswith(f"hint: {advice}")
    assert "Traceback" not in done.err
    assert stage == "perplexity_name" or not Path("out").exists(), "nothing was written"


NAMES = {
    "model_class=transformers:AutoModelForMaskedLLM": "module transformers has no attribute AutoModelForMaskedLLM",
    "loss=lmtasks:maskedloss": "module 'lmtasks' has no attribute 'maskedloss'",
    "metrics=lmtasks.metrics:Acuracy": "module 'lmtasks.metrics' has no attribute 'Acuracy'",
    "targets=no_such_package:targets": "No module named 'no_such_package'",
    "processor=transformers:AutoTokeniser": "module transformers has no attribute AutoTokeniser",
    "pipeline=no_such_package:Pipe": "No module named 'no_such_package'",
}


@pytest.mark.parametrize("named", NAMES)
def test_a_name_of_nothing_is_told_before_anything_is_loaded(
    named: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMED", named)
    field, name = named.split("=")
    done = lmtasks("run", "mine", "--plugin", here, *RUN)
    *_, error, hint = done.err.splitlines()
    assert done.code == 1
    said = f"error: recipe 'mine' of {here} names '{name}' as its {field}, which cannot be imported: {NAMES[named]}"
    assert error == said
    assert hint == "hint: correct the name, or install what it is in"
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["run", "predict"])
def test_a_pipeline_of_no_task_is_told_before_anything_is_loaded(
    command: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would train for hours what nobody could use."""
    monkeypatch.setenv("NAMED", "pipeline=fil-mask")
    words = ("mine", *RUN) if command == "run" else ("model", "a <mask>", "--recipe", "mine")
    done = lmtasks(command, *words, "--plugin", here)
    *_, error, hint = done.err.splitlines()
    assert done.code == 1
    said = "names 'fil-mask' as its pipeline, which is no task of transformers.pipeline, did you mean 'fill-mask'?"
    assert error == f"error: recipe 'mine' of {here} {said}"
    assert hint == "hint: correct the name, or install what it is in"
    assert not Path("out").exists()


def test_who_evaluates_needs_no_pipeline(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMED", "pipeline=no_such_package:Pipe")
    done = lmtasks("evaluate", "model", "--validation_file", "text.txt", "--recipe", "mine", "--plugin", here)
    assert done.code == 0, done.err


@pytest.mark.parametrize("named", ["model_class=transformers:AutoModelForMaskedLLM", "pipeline=no_such_package:Pipe"])
def test_a_name_of_nothing_is_told_by_a_prediction(
    named: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMED", named)
    done = lmtasks("predict", "model", "a <mask>", "--recipe", "mine", "--plugin", here)
    *_, error, hint = done.err.splitlines()
    field, name = named.split("=")
    assert done.code == 1
    assert f"names '{name}' as its {field}, which cannot be imported" in error
    assert hint == "hint: correct the name, or install what it is in"


def test_a_name_of_nothing_is_nobody_elses_trouble(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose recipe takes a model is asked of all recipes, where nobody says, and where the one named does not."""
    monkeypatch.setenv("NAMED", "model_class=transformers:AutoModelForMaskedLLM")
    done = lmtasks("predict", "model", "a <mask>", "--plugin", here)
    assert done.code == 0, done.err
    done = lmtasks("run", "causal-lm", "--plugin", here, *RUN, "--config_overrides", "is_decoder=false")
    assert (done.code, "Traceback" in done.err) == (2, False), done.err


def test_a_loss_without_a_gradient_is_refused(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETURNED", "loss:(result[0].detach(), *result[1:])")
    done = lmtasks("run", "mine", "--plugin", here, *RUN)
    *_, error, hint = done.err.splitlines()
    assert (done.code, error) == (2, "error: the loss of mine has no gradient: nothing would be learned"), done.err
    assert hint == "hint: compute it from what the model gives, without detach(), item() or torch.no_grad()"
    assert not Path("out").exists()


def test_a_metric_that_asks_for_a_sum_that_nobody_gives_is_refused_before_training(
    here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETURNED", "loss:result[:2]")
    monkeypatch.setenv("METRICS", "lmtasks.metrics:Accuracy")
    done = lmtasks("run", "mine", "--plugin", here, *RUN)
    *_, error, hint = done.err.splitlines()
    wants = "the metric lmtasks.metrics:Accuracy of mine wants correct, its loss gives loss, targets"
    assert (done.code, error) == (2, f"error: {wants}"), done.err
    assert hint == "hint: let the loss return {'correct': sum} as its last item, or take the metric out of `metrics`"
    assert not Path("out").exists()


def test_a_metric_that_gives_no_figures_is_named(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS", f"{here}:Words")
    done = lmtasks("run", "mine", "--plugin", here, *RUN)
    named = (
        f"error: recipe 'mine' of {here} failed in its metrics: TypeError: {here}:Words gives a str, no figures by name"
    )
    assert (done.code, named) == (1, done.err.splitlines()[-2]), done.err


ONE = torch.tensor(1.0)

RIGHT = [
    (ONE, ONE),
    (ONE, 1, {"correct": ONE}),
    {"a": LossTerm(ONE, ONE)},
    ({"a": LossTerm(ONE, ONE), "b": LossTerm(ONE, ONE, 2.0)}, {"correct": torch.ones(3)}),
]


@pytest.mark.parametrize("said", RIGHT, ids=["pair", "triple", "terms", "terms and sums"])
def test_what_a_loss_may_return(said: Any) -> None:
    assert wrong_sums(said) == ""


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([ONE, ONE], "loss returns a list, no pair and no triple"),
        ((ONE, ONE, ONE), "what it returns beside the loss is a tensor [], no {name: tensor}"),
        ((ONE, ONE, {"correct": 3}), "what it returns beside the loss is a int, no {name: tensor}"),
        ((ONE, ONE, {"correct": None}), "what it returns beside the loss is None, no {name: tensor}"),
        ((ONE, ONE, torch.ones(3)), "what it returns beside the loss is a tensor [3], no {name: tensor}"),
        ((ONE, ONE, 0), "what it returns beside the loss is a int, no {name: tensor}"),
        ((ONE, torch.ones(2)), "the count is a tensor [2], no scalar tensor"),
        ({"a": LossTerm(torch.ones(2), ONE)}, "the loss of the term 'a' is a tensor [2], no scalar tensor"),
    ],
)
def test_what_a_loss_may_not_return(said: Any, wrong: str) -> None:
    assert wrong_sums(said) == wrong


def test_what_the_other_functions_may_return() -> None:
    right = {
        "preprocess": Blocks(size=8),
        "collator": print,
        "targets": torch.ones(2),
        "views": {},
        "perplexity_name": "perplexity",
        "prompt": "text",
        "answers": ["line"],
    }
    assert right.keys() | {"loss"} == RETURNS.keys()
    assert {name: RETURNS[name].wrong(value) for name, value in right.items()} == dict.fromkeys(right, "")
    assert BATCH.wrong({"labels": ONE}) == ""
    assert BATCH.wrong({"labels": np.ones(2)}) == "'labels' of the batch is a ndarray [2]"
    assert RETURNS["prompt"].wrong(None) == "prompt returns None"
    assert RETURNS["answers"].wrong("a line") == "what answers returns is a str"
    assert CALLBACKS.wrong([]) == ""
    assert CALLBACKS.wrong(None) == "callbacks gives None"


def test_an_attention_that_is_none_of_both_is_no_recipe() -> None:
    with pytest.raises(ValueError, match="recipe 'masked-lm' has attention='bidirectonal': it is 'causal', 'bidirect"):
        dataclasses.replace(MASKED_LM, attention="bidirectonal")
