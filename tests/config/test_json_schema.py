"""``lmtasks schema``: what it takes, a run takes, and what a run refuses, it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_request import OTHERS
from transformers import TrainingArguments

from lmtasks import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.elsewhere import ELSEWHERE
from lmtasks.config.json_schema import DIALECT, schema_of
from lmtasks.config.request import configure, groups_of
from lmtasks.config.training_arguments import REFUSED, training_options
from lmtasks.errors import InputError

BOTH = pytest.mark.parametrize("recipe", [MASKED_LM, CAUSAL_LM], ids=lambda recipe: recipe.name)

TYPES: dict[str, Any] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "object": dict,
    "array": list,
}


def fits(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """What JSON Schema says of a value, as far as our schemas go; a word that this does not know fails."""
    checks = {
        "type": lambda name: isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)),
        "enum": lambda values: value in values and not isinstance(value, bool),
        "const": lambda only: value is only,
        "minimum": lambda limit: value >= limit,
        "maximum": lambda limit: value <= limit,
        "exclusiveMinimum": lambda limit: value > limit,
        "exclusiveMaximum": lambda limit: value < limit,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "items": lambda items: all(fits(items, item, root) for item in value),
        "anyOf": lambda shapes: any(fits(shape, value, root) for shape in shapes),
        "allOf": lambda shapes: all(fits(shape, value, root) for shape in shapes),
        "not": lambda shape: not fits(shape, value, root),
        "required": lambda names: set(names) <= value.keys(),
        "$ref": lambda place: fits(root["properties"][place.removeprefix("#/properties/")], value, root),
        "properties": lambda own: all(fits(own[name], item, root) for name, item in value.items() if name in own),
        "additionalProperties": lambda more: value.keys() <= schema["properties"].keys(),
    }
    telling = {"$schema", "title", "description", "default"}
    return all(checks[word](said) for word, said in schema.items() if word not in telling)


def takes(values: dict[str, Any], recipe: Recipe = MASKED_LM) -> bool:
    schema = schema_of(recipe)
    return fits(schema, values, schema)


@BOTH
def test_it_has_every_name_that_yaml_may_hold_and_no_other(recipe: Recipe) -> None:
    options = [option for group in groups_of(recipe).values() for option in group.values() if not option.python_only]
    named = {name for option in options for name in (option.name, *option.aliases)}
    schema = schema_of(recipe)
    assert schema["properties"].keys() == named | training_options().keys() | {"recipe"}
    assert not schema["properties"].keys() & {*REFUSED, *ELSEWHERE, "train_dataset"}
    assert (schema["$schema"], schema["additionalProperties"]) == (DIALECT, False)
    assert next(iter(schema["properties"])) == next(iter(groups_of(recipe)["options"])), "the recipe's own come first"


@BOTH
def test_every_option_has_a_default_and_a_description(recipe: Recipe) -> None:
    properties = schema_of(recipe)["properties"]
    json.dumps(properties)
    for group in groups_of(recipe).values():
        for option in (option for option in group.values() if not option.python_only):
            assert properties[option.name]["description"] == option.help
            assert properties[option.name]["default"] == option.default
            assert all(properties[alias]["$ref"] == f"#/properties/{option.name}" for alias in option.aliases)
    lacking = [name for name, said in properties.items() if "default" not in said and "$ref" not in said]
    assert lacking == ["do_train", "do_eval"]


@BOTH
def test_every_default_is_valid(recipe: Recipe) -> None:
    schema = schema_of(recipe)
    for name, said in schema["properties"].items():
        if "default" in said:
            assert fits(schema, {name: said["default"]}, schema), name


@pytest.mark.parametrize("name", OTHERS)
def test_what_arrives_is_valid(name: str) -> None:
    typed, value = OTHERS[name]
    assert takes({name: value})
    configure(MASKED_LM, {"model": "m"}, {name: value})
    if isinstance(value, float):
        assert takes({name: typed}), "a number as text"


VALID = [
    "model: m\nmax_seq_length: 64\nlearning_rate: 1e-4\ntrain_file: [a.txt, b.txt]\nbf16: no\n",
    "train_file: a.txt\n",
    "block_size:\n",
    "mask_unit: word\n",
    "report_to: [tensorboard]\n",
    "resume_from_checkpoint: out/checkpoints/checkpoint-3\n",
    "do_train: true\n",
    "lr_scheduler_type: cosine\noptim: adafactor\nlr_scheduler_kwargs: {num_cycles: 2}\n",
]


@pytest.mark.parametrize("text", VALID)
def test_files_that_work_are_valid(text: str) -> None:
    assert takes(yaml.safe_load(text))
    configure(MASKED_LM, {}, yaml.safe_load(text))


INVALID = [
    "learning_rte: 1\n",
    "learning_rate: fast\n",
    "learning_rate: 101\n",
    "learning_rate: -1\n",
    "mlm_probability: 0\n",
    "mlm_probability: 1\n",
    "block_size: 1\n",
    "block_size: 2.5\n",
    "mask_unit: letter\n",
    "save_strategy: never\n",
    "bf16: maybe\n",
    "dataset_name: 3\n",
    "test_size: 1\n",
    "label_smoothing_factor: 1\n",
    "do_eval: false\n",
    "fp16_full_eval: true\n",
    "keep_linebreaks: true\n",
    "block_size: 64\nmax_seq_length: 64\n",
    "model: m\nmodel_type: roberta\n",
    "model_name_or_path: m\ntrain_tokenizer: 500\n",
]


@pytest.mark.parametrize("text", INVALID)
def test_files_that_do_not_work_are_invalid(text: str) -> None:
    assert not takes(yaml.safe_load(text))
    with pytest.raises(InputError):
        configure(MASKED_LM, {}, yaml.safe_load(text))


def test_words_that_only_transformers_knows_are_an_enum(tmp_path: Path) -> None:
    assert not takes({"optim": "adafactr"})
    assert not takes({"lr_scheduler_type": "wavy"})
    properties = schema_of(MASKED_LM)["properties"]
    for name in ("logging_strategy", "optim", "lr_scheduler_type"):
        words = next(kind["enum"] for kind in properties[name]["anyOf"] if "enum" in kind)
        assert properties[name]["default"] in words
        for word in words:
            if name == "logging_strategy":
                TrainingArguments(output_dir=str(tmp_path), **{name: word})


def test_a_recipe_of_a_plugin_has_its_own() -> None:
    recipe = dataclasses.replace(CAUSAL_LM, name="other", summary="Other.")
    assert schema_of(recipe)["title"] == "lmtasks run other"
    assert "stride" in schema_of(recipe)["properties"]
    assert "mlm_probability" not in schema_of(recipe)["properties"]


def test_the_command_prints_it(lmtasks: Any) -> None:
    outcome = lmtasks("schema", "masked-lm")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == schema_of(MASKED_LM)
    assert lmtasks("schema", "masked-lm", "--json") == outcome
    assert lmtasks("schema").code == lmtasks("schema", "masked-ml").code == 2


@BOTH
def test_it_is_a_schema_of_its_dialect(recipe: Recipe) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema_of(recipe))
    if recipe is MASKED_LM:
        assert all(validator(schema_of(recipe)).is_valid(yaml.safe_load(text)) for text in VALID)
        assert not any(validator(schema_of(recipe)).is_valid(yaml.safe_load(text)) for text in INVALID)
