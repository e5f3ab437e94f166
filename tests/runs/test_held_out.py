"""What a model makes of held-out text is what its logits say, and is told only where that is what it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_terms import TWO_TERMS

from lmtasks import run
from lmtasks.api import Recipe
from lmtasks.artifacts.report.reading import Reading
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.data.dataset import ExampleDataset
from lmtasks.models.losses import masked_loss
from lmtasks.runs import held_out
from lmtasks.runs.figures import figures_of
from lmtasks.runs.held_out import read_held_out
from lmtasks.runs.load import Loaded, load


def loaded(recipe: Recipe, model: Path, text: Path, **more: Any) -> Loaded:
    values = {"model": str(model), "validation_file": str(text), "block_size": 32, "max_eval_samples": 40, **more}
    return load(configure(recipe, values), training=False)


def read(found: Loaded) -> Reading | None:
    return read_held_out(found.model, found.data)


@pytest.mark.parametrize(
    ("recipe", "kind", "more"),
    [
        (MASKED_LM, "roberta", {}),
        (CAUSAL_LM, "gpt2", {}),
        (CAUSAL_LM, "llama", {"isolate_documents": True, "sample_by": "paragraph"}),
        (MASKED_LM, "modernbert", {"line_by_line": True}),
    ],
)
def test_its_sums_are_those_of_the_evaluation(
    recipe: Recipe, kind: str, more: dict[str, Any], model_folders: dict[str, Path], text_file: Path
) -> None:
    found = loaded(recipe, model_folders[kind], text_file, **more)
    figures = figures_of(found.model, found.data.request, found.data.processor, found.data.encoded.evaluations)
    reading = read(found)
    assert reading is not None
    assert (reading.examples, reading.targets) == (40, figures["eval_targets"])
    losses = math.fsum(one.count * one.loss for one in reading.positions)
    assert losses / reading.targets == pytest.approx(figures["eval_loss"], rel=1e-5)
    assert sum(one.count for one in reading.positions) == reading.targets
    right = math.fsum(one.count * one.right for one in reading.calibration)
    assert right / reading.targets == pytest.approx(figures["accuracy"], rel=1e-9)
    assert sum(one.count for one in reading.calibration) == reading.targets


@pytest.mark.parametrize(("recipe", "kind"), [(MASKED_LM, "roberta"), (CAUSAL_LM, "gpt2")])
def test_what_is_shown_is_the_text_with_the_models_own_probabilities(
    recipe: Recipe, kind: str, model_folders: dict[str, Path], text_file: Path
) -> None:
    found = loaded(recipe, model_folders[kind], text_file, max_eval_samples=1)
    reading, tokenizer = read(found), found.data.processor
    assert reading is not None
    (shown,) = reading.shown
    example = ExampleDataset(found.data.encoded.evaluation, 0)[0]
    batch = recipe.collator(tokenizer, found.data.request.options, False)([example])
    with torch.no_grad():
        logits = found.model(input_ids=batch["input_ids"]).logits[0].double().log_softmax(-1).exp()
    rows = logits if recipe is MASKED_LM else logits.roll(1, dims=0)
    ids, labels = torch.as_tensor(np.asarray(example["input_ids"])), batch["labels"][0]
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert "".join(text for text, _ in shown) == (
        whole.removeprefix("<s>").removesuffix("</s>") if recipe is MASKED_LM else whole
    )
    expected = {place: float(rows[place, ids[place]]) for place in (labels != -100).nonzero()[:, 0].tolist()}
    told = {place: guessed for place, (_, guessed) in enumerate(shown) if guessed}
    assert {place: guessed.probability for place, guessed in told.items()} == pytest.approx(expected, rel=1e-4)
    for place, guessed in told.items():
        best = rows[place].topk(3)
        assert [text for text, _ in guessed.guesses] == [tokenizer.decode([token]) for token in best.indices.tolist()]
        assert [chance for _, chance in guessed.guesses] == pytest.approx(best.values.tolist(), rel=1e-4)
    chances = [one.guessed.probability for one in reading.surprising]
    assert chances == pytest.approx(sorted(expected.values())[: held_out.SURPRISING], rel=1e-4)
    for one in reading.surprising:
        assert f"{one.before}{one.text}{one.after}" in "".join(text for text, _ in shown)


def _doubled(model: Any, batch: Any) -> Any:
    total, count, more = masked_loss(model, batch)
    return 2 * total, count, more


@pytest.mark.parametrize("recipe", [TWO_TERMS, replace(MASKED_LM, name="doubled", loss=_doubled)])
def test_a_loss_of_something_else_is_not_read(recipe: Recipe, model_folders: dict[str, Path], text_file: Path) -> None:
    assert read(loaded(recipe, model_folders["roberta"], text_file)) is None


def _of_ids_alone(model: Any, batch: Any) -> Any:
    return masked_loss(model, {"input_ids": batch["input_ids"], "labels": batch["labels"]})


def _with_more(tokenizer: Any, options: Any, training: bool) -> Any:
    collate = MASKED_LM.collator(tokenizer, options, training)
    return lambda examples: {**collate(examples), "inputs_embeds": torch.zeros(1)}


def test_a_model_that_does_not_take_the_batch_is_not_read(model_folders: dict[str, Path], text_file: Path) -> None:
    found = loaded(MASKED_LM, model_folders["roberta"], text_file)
    recipe = replace(MASKED_LM, name="other", loss=_of_ids_alone, collator=_with_more)
    data = replace(found.data, request=replace(found.data.request, recipe=recipe))
    assert read_held_out(found.model, data) is None


def test_time_memory_and_examples_are_bounded(
    model_folders: dict[str, Path], text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loaded(CAUSAL_LM, model_folders["gpt2"], text_file)
    monkeypatch.setattr(held_out, "EXAMPLES", 7)
    reading = read(found)
    assert reading is not None and (reading.examples, len(reading.shown)) == (7, 5)
    with monkeypatch.context() as patch:
        patch.setattr(held_out, "LOGITS", 2 * 32 * 400)
        assert (few := read(found)) is not None and few.examples == 7
        assert [one.probability for _, one in few.shown[0] if one] == pytest.approx(
            [one.probability for _, one in reading.shown[0] if one], rel=1e-5
        )
        patch.setattr(held_out, "LOGITS", 32 * 400 - 1)
        assert read(found) is None
    monkeypatch.setattr(held_out, "SECONDS", 0.0)
    assert (reading := read(found)) is not None and reading.examples == 7, "no more than one batch"


def test_a_model_that_was_trained_in_bfloat16_is_read_as_well(
    text_file: Path, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    asked = {"model": str(model_folders["roberta"]), "train_file": str(text_file), "max_steps": 1, "block_size": 32}
    done = run("masked-lm", output_dir=str(tmp_path / "out"), bf16=True, max_eval_samples=4, **asked)
    assert (done.output_dir / "report.json").is_file()
