"""A finished run in Python: what it knows, shows and can do, at once and when it is opened later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lmtasks import InputError, Run, load_run, run
from lmtasks.artifacts.report.page import BEGINNING


@pytest.fixture(scope="module")
def done(model_folders: dict[str, Path], documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    text = folder.parent / "text.txt"
    text.write_text("\n".join(documents), encoding="utf-8")
    done = run(
        "masked-lm",
        model=str(model_folders["roberta"]),
        train_file=str(text),
        output_dir=str(folder),
        block_size=16,
        max_steps=6,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=3,
    )
    assert isinstance(done, Run)
    return done


@pytest.fixture(params=["at once", "later"])
def either(request: pytest.FixtureRequest, done: Run) -> Run:
    return done if request.param == "at once" else load_run(done.output_dir)


def test_model_and_tokenizer_are_those_of_the_folder(either: Run) -> None:
    plain = transformers.AutoModelForMaskedLM.from_pretrained(either.output_dir)
    batch = either.tokenizer("a text", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(either.model(**batch).logits, plain(**batch).logits)
    assert not either.model.training
    assert either.model is either.model


def test_history_is_the_log(either: Run) -> None:
    history = either.history
    log = [json.loads(line) for line in (either.output_dir / "log.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    evaluations = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert history["loss"].dropna().to_dict() == losses
    assert history["eval_loss"].dropna().to_dict() == evaluations
    assert set(losses) == {2, 4, 6}
    assert {3, 6} <= set(evaluations)
    assert history.index.name == "step"


def test_evaluate_repeats_the_figures(either: Run) -> None:
    again = either.evaluate()
    assert {name: either.metrics[name] for name in again} == again


def test_prediction_fills_a_mask(either: Run) -> None:
    assert len(either.predict(f"a {either.tokenizer.mask_token}", top_k=2)) == 2


def test_report_is_in_the_folder_or_where_it_is_wanted(either: Run, tmp_path: Path) -> None:
    assert either.report() == either.output_dir / "report.html"
    there = either.report(tmp_path / "page.html")
    assert there.read_text(encoding="utf-8").startswith(BEGINNING)
    os.unlink(either.report())
    assert either.report().is_file(), "one that is gone is made again"


def test_what_is_shown_is_short(either: Run) -> None:
    loss = f"{either.metrics['eval_loss']:.4g}"
    assert repr(either).startswith(f"Run(masked-lm in {either.output_dir}: eval loss {loss}, perplexity ")
    assert "\n" not in repr(either)
    page = either._repr_html_()
    assert f"<td>{loss}</td>" in page
    assert "<svg" in page


def test_plan_and_recipe_show_what_people_read(model_folders: dict[str, Path], documents: list[str]) -> None:
    plan = run("masked-lm", model=str(model_folders["roberta"]), train_dataset=documents, dry_run=True, output_dir="x")
    lines = repr(plan).splitlines()
    assert lines[0] == "Plan"
    assert [line.split()[0] for line in lines[1:3]] == ["recipe", "data"]


def test_recipe_shows_name_and_summary(done: Run) -> None:
    assert repr(done.recipe) == "Recipe(masked-lm: Fill in hidden words using the text on both sides.)"


def test_publishing_asks_for_a_name(either: Run) -> None:
    with pytest.raises(InputError):
        either.push("no such name / at all")


def test_opened_later_it_is_the_same(done: Run) -> None:
    later = load_run(str(done.output_dir))
    facts: Any = ("metrics", "perplexity_name", "example", "verdict")
    assert [getattr(later, name) for name in facts] == [getattr(done, name) for name in facts]
    assert later.plan is None


@pytest.mark.parametrize("damage", ["missing", "empty", "unfinished"])
def test_what_is_no_finished_run(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if damage != "missing":
        folder.mkdir()
    if damage == "unfinished":
        (folder / "run.json").write_text('{"status": "running", "recipe": "masked-lm"}')
    with pytest.raises(InputError, match="not finished" if damage == "unfinished" else "no run.json"):
        load_run(folder)
