"""The verdict on a run: each of its sentences, and what it advises."""

from __future__ import annotations

from typing import Any

import pytest

from lmtasks.artifacts.verdict import Verdict, recorded_verdict, ten_times, verdict_of

TRAINING = {"learning_rate": 0.007, "num_train_epochs": 3.0, "max_steps": -1, "weight_decay": 0.0}
FALLING = [6.0, 5.8, 5.6, 5.4, 5.2, 5.0, 4.8, 4.6]
ABOVE = [loss + 1.5 for loss in FALLING]
FLAT = [6.0, 5.0, 4.61, 4.6, 4.61, 4.6, 4.61, 4.6]


def verdict(
    loss: float = 4.7, losses: list[float] | None = None, evaluated: list[float] | None = None, **more: Any
) -> Verdict:
    """Of a run whose baseline is 5.76, evaluated and logged every ten steps."""
    training = TRAINING | {name: value for name, value in more.items() if name in (*TRAINING, "load_best_model_at_end")}
    metrics = {"eval_loss": loss, "unigram_loss": 5.76, "eval_targets": 9} | more.get("metrics", {})
    metrics = {name: value for name, value in metrics.items() if value is not None}
    history = [{"step": 10 * step, "loss": value} for step, value in enumerate(losses or [], 1)]
    history += [{"step": 10 * step, "eval_loss": value} for step, value in enumerate(evaluated or [], 1)]
    record = {"metrics": metrics, "training": training, "base_model": more.get("base_model")}
    return verdict_of(record, history)


@pytest.mark.parametrize(
    ("loss", "sentence", "publishable"),
    [
        (5.08, "0.68 nats under the unigram baseline of 5.76: it uses the text around a word", True),
        (5.70, "0.06 nats under the unigram baseline of 5.76: hardly better than frequency", True),
        (7.48, "1.72 nats ABOVE the unigram baseline of 5.76: guessing by frequency is better", False),
    ],
)
def test_the_baseline_says_what_it_is_worth(loss: float, sentence: str, publishable: bool) -> None:
    found = verdict(loss)
    assert found.sentences == (sentence,)
    assert found.publishable is publishable


@pytest.mark.parametrize(
    "metrics",
    [
        {"unigram_loss": None},
        {"unigram_loss": "nan"},
        {"eval_hidden_loss": 3.0},  # a term: the loss is a weighted sum
    ],
)
def test_without_a_baseline_nothing_is_said_of_it(metrics: dict[str, Any]) -> None:
    assert verdict(9.0, metrics=metrics) == Verdict((), "", True)


def test_losses_of_sets_are_no_terms() -> None:
    sets = {"eval_wiki_loss": 5.08, "eval_wiki_targets": 4, "eval_wiki_unigram_loss": 5.76}
    assert verdict(5.08, metrics=sets).sentences[0].startswith("0.68 nats under")


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (FALLING, "still falling: 0.40 nats of training loss in the last quarter of the steps"),
        ([*FALLING[:4], 4.6, 4.6, 5.0, 5.0], "rising: 0.40 nats of training loss in the last quarter of the steps"),
        (FLAT, "flat: less than 0.02 nats of training loss in the last half of the steps"),
        # Two standard errors: the variances are 0.02 and 0.08, of two losses each.
        (
            [6.0, 5.0, 4.0, 4.0, 4.1, 3.9, 4.1, 3.7],
            "flat: less than 0.45 nats of training loss in the last half of the steps",
        ),
    ],
)
def test_the_last_half_says_where_it_is_going(losses: list[float], sentence: str) -> None:
    assert verdict(losses=losses).sentences[1] == sentence


def test_a_short_log_says_nothing_of_where_it_is_going() -> None:
    assert len(verdict(losses=FALLING[:7]).sentences) == 1


@pytest.mark.parametrize(
    ("loss", "losses", "sentence"),
    [
        (4.75, FALLING, "underfitted: no better on the training text than on the text held out"),
        (4.75, FLAT, "neither over- nor underfitted: 4.61 nats in training, 4.75 held out"),
        (5.30, FALLING, "about to overfit: 0.60 nats better on the training text than held out"),
    ],
)
def test_training_text_against_held_out_text(loss: float, losses: list[float], sentence: str) -> None:
    assert verdict(loss, losses).sentences[2] == sentence


def test_overfitted_is_what_was_better_before() -> None:
    said = "overfitted: evaluation was best at step 20 of 40, by 0.25 nats"
    assert verdict(5.25, FALLING, [5.5, 5.0, 5.1, 5.25]).sentences[2] == said
    kept = verdict(5.0, FALLING, [5.5, 5.0, 5.1, 5.25], load_best_model_at_end=True)
    assert kept.sentences[2] == f"{said}; that model was kept"
    by_chance = verdict(5.01, FLAT, [5.5, 5.0, 5.01]).sentences[2]
    assert by_chance.startswith("neither over- nor underfitted")


def test_what_ten_times_as_much_would_take() -> None:
    assert ten_times({"train_runtime": 33.4}) == "ten times the steps, or the text, would take 5 min 34 s"
    assert ten_times({"eval_loss": 1.0}) == ""


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({"losses": FALLING}, "--num_train_epochs 9"),
        ({"losses": FALLING, "num_train_epochs": 0.5}, "--num_train_epochs 1.5"),
        ({"losses": FALLING, "max_steps": 120}, "--max_steps 360"),
        ({"losses": FLAT}, ""),
        ({"losses": [loss + 1.5 for loss in FLAT], "loss": 6.2}, "--num_train_epochs 9"),
        ({"losses": ABOVE, "loss": 6.2, "learning_rate": 5e-5}, "--learning_rate 0.001 --num_train_epochs 9"),
        ({"losses": ABOVE, "loss": 6.2, "learning_rate": 5e-5, "base_model": "me/it"}, "--num_train_epochs 9"),
        ({"losses": [*FALLING[:4], 4.6, 4.6, 5.0, 5.0]}, "--learning_rate 0.002"),
        ({"losses": FALLING, "loss": 5.3}, "--weight_decay 0.1"),
        ({"losses": FALLING, "loss": 5.3, "weight_decay": 0.01}, ""),
        ({"losses": FALLING, "evaluated": [5.0, 4.5, 4.7]}, "--max_steps 20 --weight_decay 0.1"),
        ({"losses": FALLING, "evaluated": [5.0, 4.5, 4.7], "load_best_model_at_end": True}, "--weight_decay 0.1"),
    ],
)
def test_what_to_try_next_can_be_typed(asked: dict[str, Any], flags: str) -> None:
    assert verdict(**asked).flags == flags


def test_a_record_gives_its_verdict_back() -> None:
    kept = {"sentences": ["a", "b"], "flags": "--max_steps 3", "publishable": False}
    assert recorded_verdict({"verdict": kept}) == Verdict(("a", "b"), "--max_steps 3", False)
    assert recorded_verdict({}) is None
    assert recorded_verdict({"verdict": "good"}) is None, "somebody has written into the record"
