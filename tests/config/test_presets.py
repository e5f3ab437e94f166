"""Presets: what they choose, for whom, and that whatever somebody sets wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lmtasks
from lmtasks.api import options_of
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.presets import PRESETS
from lmtasks.config.request import Request, as_record, configure, fingerprint, read_yaml
from lmtasks.config.settings import LoopSettings
from lmtasks.errors import InputError
from lmtasks.runs.plan import Plan

FRESH = {"model_type": "roberta", "train_tokenizer": 400}
SHAPE = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=64"


def values(request: Request) -> dict[str, Any]:
    """What the settings of the preset came to."""
    return {
        "learning_rate": request.training["learning_rate"],
        "warmup_steps": request.training["warmup_steps"],
        "mlm_probability": getattr(request.options, "mlm_probability", None),
        "unigram_bias": request.model.unigram_bias,
    }


def test_every_preset_can_be_named() -> None:
    assert options_of(LoopSettings)["preset"].choices == tuple(PRESETS)


@pytest.mark.parametrize(
    ("recipe", "given", "expected"),
    [
        (MASKED_LM, FRESH, (5e-5, 0.1, 0.3, True)),  # the rate of a new model comes from its width, later
        (MASKED_LM, {"model": "some"}, (1e-4, 0.1, 0.3, None)),
        (CAUSAL_LM, {"model": "some"}, (1e-4, 0.1, None, None)),
        (CAUSAL_LM, {}, (4e-3, 0.1, None, True)),  # the recipe's own small model keeps its rate
        (MASKED_LM, {"model": "some", "learning_rate": 3e-4, "mlm_probability": 0.15}, (3e-4, 0.1, 0.15, None)),
        (MASKED_LM, FRESH | {"unigram_bias": False, "warmup_steps": 0}, (5e-5, 0, 0.3, False)),
        (MASKED_LM, FRESH | {"warmup-steps": 7}, (5e-5, 7, 0.3, True)),
    ],
)
def test_what_is_not_set_goes_by_the_preset(recipe: Any, given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    request = configure(recipe, given | {"preset": "fast"})
    assert tuple(values(request).values()) == expected
    assert request.given == {"model_name_or_path" if name == "model" else name.replace("-", "_") for name in given} | {
        "preset"
    }
    assert request.preset.keys() == {
        name for name in PRESETS["fast"] if name not in request.given and name in _applicable(recipe, given)
    }


def _applicable(recipe: Any, given: dict[str, Any]) -> set[str]:
    own = {"warmup_steps", "learning_rate" if "model" in given else "unigram_bias"}
    return own | ({"mlm_probability"} if recipe is MASKED_LM else set())


def test_without_a_preset_nothing_is_chosen_and_records_are_as_they_were() -> None:
    request = configure(MASKED_LM, FRESH)
    assert request.preset == {}
    assert not {"preset", "unigram_bias"} & as_record(request)["settings"].keys()


def test_yaml_and_python_ask_alike_and_the_record_has_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: fast\nmodel_type: roberta\ntrain_tokenizer: 400\n")
    typed, written = configure(MASKED_LM, FRESH | {"preset": "fast"}), configure(MASKED_LM, {}, read_yaml(file))
    assert fingerprint(typed) == fingerprint(written) != fingerprint(configure(MASKED_LM, FRESH))
    record = as_record(written)
    assert record["settings"]["preset"] == "fast"
    assert record["settings"]["unigram_bias"] is True
    assert (record["options"]["mlm_probability"], record["training"]["warmup_steps"]) == (0.3, 0.1)


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(InputError) as caught:
        configure(MASKED_LM, {"preset": "fats"})
    assert caught.value.message == "--preset cannot be 'fats': it must be one of fast, did you mean 'fast'?"
    assert "fast" in caught.value.hint


def test_the_plan_says_what_was_chosen_and_why(text_file: Path, tmp_path: Path) -> None:
    how = {**FRESH, "config_overrides": SHAPE, "train_file": str(text_file), "block_size": 16}
    plan = lmtasks.run("masked-lm", preset="fast", dry_run=True, output_dir=str(tmp_path / "out"), **how)
    assert isinstance(plan, Plan)
    assert plan.learning_rate == 1e-2
    assert [note for note in plan.notes if "preset" in note] == [
        "preset fast: warmup_steps 0.1: a larger rate needs a beginning",
        "preset fast: mlm_probability 0.3: twice as many targets in a step (Wettig et al. 2023)",
        "preset fast: unigram_bias true: word frequencies need not be learned (Meister et al. 2023)",
    ]
    assert not [note for note in plan.notes if "warm-up" in note]  # nobody chooses it a second time
