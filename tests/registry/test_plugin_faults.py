"""A fault in a plugin's code: recipe, package and stage are named, with the traceback on request; ours keep theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_folder import plugin_folder

CODE = '''
"""masked-lm, of which a stage fails when the environment says so."""

import dataclasses
import errno
import os

from lmtasks import InputError, masked_loss
from lmtasks.builtin.masked_lm import MASKED_LM


def fail(stage):
    """Do what the environment wants at this stage."""
    wanted, _, how = os.environ.get("FAULT", "").partition(":")
    if wanted != stage:
        return
    if how == "input":
        raise InputError("the data is not as it should be", "mend the data")
    if how == "memory":
        raise MemoryError
    if how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise ZeroDivisionError(f"broken {stage}")


def preprocess(tokenizer, options):
    fail("preprocess")
    return MASKED_LM.preprocess(tokenizer, options)


def collator(tokenizer, options, training):
    fail("making a collator")
    collate = MASKED_LM.collator(tokenizer, options, training)

    def collated(examples):
        if training:
            fail("collator")
        return collate(examples)

    return collated


def loss(model, batch, options):
    fail("loss")
    return masked_loss(model, batch)


def targets(batch):
    fail("targets")
    return MASKED_LM.targets(batch)


def before_step(model, options, steps):
    fail("before_step")


def views(tokenizer, options):
    fail("views")
    return {}


def new_processor(config, options):
    fail("new_processor")


def perplexity_name(options):
    fail("perplexity_name")
    return "perplexity"


def prompt(tokenizer, text):
    fail("prompt")
    return MASKED_LM.prompt(tokenizer, text)


def answers(output):
    fail("answers")
    return MASKED_LM.answers(output)


def __getattr__(name):
    """Classes that need heavy imports, made when they are named."""
    if name == "Metric":
        from lmtasks.metrics import Perplexity

        class Metric(Perplexity):
            def _compute(self, loss, targets):
                fail("metrics")
                return super()._compute(loss, targets)

        return Metric
    if name == "Pipeline":
        from transformers import FillMaskPipeline

        class Pipeline(FillMaskPipeline):
            def postprocess(self, *arguments, **named):
                fail("pipeline")
                return super().postprocess(*arguments, **named)

        return Pipeline
    raise AttributeError(name)


FAULTY = dataclasses.replace(
    MASKED_LM,
    name="faulty-lm",
    preprocess=preprocess,
    collator=collator,
    loss=loss,
    targets=targets,
    before_step=before_step,
    views=views,
    new_processor=new_processor,
    metrics=(f"{__name__}:Metric",),
    pipeline=f"{__name__}:Pipeline",
    perplexity_name=perplexity_name,
    prompt=prompt,
    answers=answers,
    starter=None,
)
'''

RUN = ["--train_file", "text.txt", "--block_size", "16", "--max_steps", "1", "--max_eval_samples", "4"]
MODEL = ["--model", "model", *RUN, "--output_dir", "out"]


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the plugin's module, in a folder with a text and a model."""
    with plugin_folder(tmp_path, "faulty", CODE, text_file, model_folders["roberta"], monkeypatch) as name:
        yield name


def told(stage: str, module: str) -> str:
    """What is said of a stage."""
    where = rf"ZeroDivisionError: broken {stage} \({module}.py, line \d+\)\nhint: the same command with --traceback"
    return rf"error: recipe 'faulty-lm' of {module} failed in its {stage}: {where} shows where\n$"


IN_A_RUN = ["preprocess", "collator", "loss", "targets", "before_step", "views", "metrics", "perplexity_name"]


@pytest.mark.parametrize("stage", IN_A_RUN)
def test_each_stage_of_a_run_that_fails_is_named(
    stage: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", stage)
    done = lmtasks("run", "faulty-lm", "--plugin", here, *MODEL)
    assert done.code == 1, done.err
    assert re.search(told(stage, here), done.err), done.err
    assert "Traceback" not in done.err


def test_a_processing_class_that_cannot_be_made_is_named(
    here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "new_processor")
    done = lmtasks("run", "faulty-lm", "--plugin", here, "--model_type", "roberta", *RUN, "--output_dir", "out")
    assert done.code == 1
    assert re.search(told("new_processor", here), done.err), done.err


def test_stages_of_prediction_and_evaluation_are_named(
    here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lmtasks("run", "faulty-lm", "--plugin", here, *MODEL)
    assert run.code == 0, run.err
    record = json.loads(Path("out/run.json").read_text())
    assert (record["recipe"], record["origin"]["module"]) == ("faulty-lm", here), "who made it is still known"
    for stage in ("prompt", "pipeline", "answers"):
        monkeypatch.setenv("FAULT", stage)
        done = lmtasks("predict", "out", "the <mask> fox", "--plugin", here)
        assert done.code == 1, stage
        assert re.search(told(stage, here), done.err), done.err
    for stage in ("loss", "metrics"):
        monkeypatch.setenv("FAULT", stage)
        done = lmtasks("evaluate", "out", "--plugin", here)
        assert done.code == 1, stage
        assert re.search(told(stage, here), done.err), done.err
    monkeypatch.setenv("FAULT", "collator")
    done = lmtasks("data", "faulty-lm", "--plugin", here, "--model", "model", "--train_file", "text.txt")
    assert done.code == 1
    assert re.search(told("collator", here), done.err), done.err


def test_a_collator_that_cannot_be_made_is_one_that_fails(
    here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "making a collator")
    done = lmtasks("run", "faulty-lm", "--plugin", here, *MODEL)
    assert f"recipe 'faulty-lm' of {here} failed in its collator: ZeroDivisionError: broken making" in done.err


def test_the_traceback_is_shown_where_it_is_asked_for(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "preprocess")
    done = lmtasks("run", "faulty-lm", "--traceback", "--plugin", here, *MODEL)
    assert done.code == 1
    assert 'raise ZeroDivisionError(f"broken {stage}")\n' in done.err
    assert re.search(told("preprocess", here), done.err), "the two lines come last"
    again = lmtasks("run", "faulty-lm", "--plugin", here, *MODEL)
    assert "Traceback" not in again.err


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("", 1, "failed in its collator: ZeroDivisionError: broken collator"),
        (":input", 2, "error: the data is not as it should be\nhint: mend the data\n"),
    ],
)
def test_a_process_of_the_data_loader_says_the_same(
    how: str, code: int, message: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", f"collator{how}")
    words = ["run", "faulty-lm", "--plugin", here, *MODEL, "--dataloader_num_workers", "1", "--traceback"]
    done = lmtasks(*words)
    assert done.code == code, done.err
    assert message in done.err
    assert "Caught FromWorkerError in DataLoader worker process 0" in done.err, "it was one"
    assert 'fail("collator")' in done.err, "the traceback is that of the process"
    assert done.err.splitlines()[-2].startswith("error: ")
    assert "DataLoader" not in "".join(done.err.splitlines()[-2:])


@pytest.mark.parametrize("stage", ["preprocess", "loss"])
@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("input", 2, "error: the data is not as it should be\nhint: mend the data\n"),
        ("memory", 3, "error: out of memory"),
        ("disk", 3, "error: the disk is full"),
    ],
)
def test_what_is_no_fault_of_the_code_passes_as_it_is(
    stage: str, how: str, code: int, message: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", f"{stage}:{how}")
    done = lmtasks("run", "faulty-lm", "--plugin", here, *MODEL)
    assert done.code == code, done.err
    assert message in done.err
    assert "faulty-lm' of" not in done.err


def test_what_fails_in_code_of_ours_keeps_its_traceback(
    here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is blamed for what a loss, or whatever else, of lmtasks raises."""
    from lmtasks.builtin import masked_lm

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(masked_lm, "hide", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        lmtasks("run", "masked-lm", *MODEL)


def test_in_python_the_cause_is_there(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import lmtasks
    from lmtasks.registry.enabled_plugins import selected

    monkeypatch.setenv("FAULT", "preprocess")
    values = {"model": "model", "train_file": "text.txt", "max_steps": 1, "output_dir": "out"}
    with selected([here]):
        with pytest.raises(lmtasks.PluginError, match="failed in its preprocess") as failure:
            lmtasks.run("faulty-lm", **values)
        assert isinstance(failure.value.__cause__, ZeroDivisionError)
        declared = lmtasks.recipes()["faulty-lm"]
        with pytest.raises(lmtasks.PluginError, match="failed in its preprocess"):
            lmtasks.run(declared, **values)
    with pytest.raises(ZeroDivisionError):  # of nobody's package: its author is at work
        lmtasks.run(declared, **values)


def test_two_words_of_one_plugin_keep_their_names(here: str) -> None:
    import lmtasks
    from lmtasks.registry.enabled_plugins import selected

    with selected([here]):
        catalog = lmtasks.load_catalog()
    recipe = catalog.recipe("faulty-lm")
    seen = catalog.watched(recipe)
    assert seen is not recipe
    assert catalog.name_of(seen) == catalog.name_of(recipe) == "faulty-lm"
    assert catalog.watched(seen).loss.__wrapped__ is recipe.loss, "watched once, however often it is asked for"
    ours = catalog.recipe("masked-lm")
    assert catalog.watched(ours).loss is ours.loss, "what is ours is not watched"
