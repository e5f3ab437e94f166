"""The model card: what it says, what it must not say, and that the Hub can read it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, parse_eval_result_entries

from lmtasks.artifacts.eval_results import eval_results
from lmtasks.artifacts.model_card import model_card, write_card
from lmtasks.artifacts.redact import redacted

LEAKED = "hf_" + "leaked0" * 5
RECORD: dict[str, Any] = {
    "status": "done",
    "recipe": "masked-lm",
    "owner": "lmtasks:masked-lm",
    "summary": "Fill in hidden words from both sides.",
    "pipeline": "fill-mask",
    "model_class": "transformers:AutoModelForMaskedLM",
    "perplexity_label": "masked-token perplexity (15 % of tokens, mask seed 0)",
    "base_model": "answerdotai/ModernBERT-base",
    "model_type": "modernbert",
    "parameters": 1234567,
    "data": {
        "source": "eli5",
        "dataset_name": "someone/eli5",
        "train": {"rows": 900, "unit": "documents", "tokens": 123456, "blocks": 241},
        "evaluation": {"rows": 100, "unit": "documents", "tokens": 13579, "blocks": 27},
    },
    "options": {"mlm_probability": 0.15, "block_size": 512},
    "settings": {
        "dataset_name": "someone/eli5",
        "dataset_config_name": "default",
        "validation_split": "test",
        "dataset_revision": None,
        "output_dir": "/home/someone/runs/masked-lm",
        "train_file": None,
        "hub_token": LEAKED,
        "text_column": "answers.text",
        "dry_run": False,
    },
    "training": {"learning_rate": 5e-5, "num_train_epochs": 3.0, "weight_decay": 0.0},
    "seeds": {"seed": 0, "split_seed": 1234},
    "versions": {"lmtasks": "0.1.0", "transformers": "5.23.0", "torch": "2.13.0"},
    "example": "The capital of France is [MASK].",
    "metrics": {
        "eval_loss": 2.0794415416798357,
        "perplexity": 8.000000000000002,
        "bits_per_byte": 0.9,
        "accuracy": 0.5625,
        "eval_targets": 2048,
        "unigram_loss": 6.25,
        "train_runtime": 61.5,
        "train_tokens_per_second": 6022.25,
    },
}
CARD = r"""---
base_model: answerdotai/ModernBERT-base
datasets:
- someone/eli5
library_name: transformers
pipeline_tag: fill-mask
tags:
- lmtasks
- recipe:masked-lm
model-index:
- name: modernbert-masked-lm
  results:
  - task:
      type: fill-mask
    dataset:
      name: someone/eli5
      type: someone/eli5
      config: default
      split: test
    metrics:
(?:    - type: \w+
      value: [\d.]+
      name: [^\n]+
){4}---

# modernbert-masked-lm

Fill in hidden words from both sides\.

A `modernbert` model of 1,234,567 parameters, trained by the `masked-lm` recipe of lmtasks, \
starting from \[answerdotai/ModernBERT-base\]\(https://huggingface\.co/answerdotai/ModernBERT-base\)\.

## How to use it

```bash
lmtasks predict REPO_OR_FOLDER "The capital of France is \[MASK\]\."
```

```python
from transformers import pipeline

model = pipeline\("fill-mask", model="REPO_OR_FOLDER"\)
print\(model\('The capital of France is \[MASK\]\.'\)\)
```

## Training data

Source: \[someone/eli5\]\(https://huggingface\.co/datasets/someone/eli5\)

\| split \| rows \| unit \| tokens \| blocks \|
\| --- \| --- \| --- \| --- \| --- \|
\| train \| 900 \| documents \| 123,456 \| 241 \|
\| evaluation \| 100 \| documents \| 13,579 \| 27 \|

## Hyperparameters

\| of \| name \| value \|
\| --- \| --- \| --- \|
\| Recipe \| `mlm_probability` \| 0\.15 \|
\| Recipe \| `block_size` \| 512 \|
\| Training \| `learning_rate` \| 5e-05 \|
\| Training \| `num_train_epochs` \| 3\.0 \|
\| Training \| `weight_decay` \| 0\.0 \|
\| Data and model \| `dataset_name` \| someone/eli5 \|
\| Data and model \| `dataset_config_name` \| default \|
\| Data and model \| `validation_split` \| test \|
\| Data and model \| `text_column` \| answers\.text \|
\| Seeds \| `seed` \| 0 \|
\| Seeds \| `split_seed` \| 1234 \|

## Results

\| metric \| value \|
\| --- \| --- \|
\| Loss \| 2\.0794 \|
\| Masked-token perplexity \(15 % of tokens, mask seed 0\) \| 8 \|
\| Bits per byte \| 0\.9 \|
\| Accuracy \| 0\.5625 \|

Measured on 2,048 predicted tokens of the evaluation data\. \
Guessing by word frequency alone has a loss of 6\.25\. \
Training took 61\.5 seconds\. Training speed: 6,022\.25 tokens per second\.

## Versions

- lmtasks 0\.1\.0
- transformers 5\.23\.0
- torch 2\.13\.0
""".replace("\\\n", "")  # long lines of the card are folded here


def _card(**changes: Any) -> str:
    return str(model_card({**copy.deepcopy(RECORD), **changes}))


def _metadata(**changes: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load(_card(**changes).split("---\n")[1])
    return metadata


def test_whole_card() -> None:
    assert re.fullmatch(CARD, _card()), _card()


def test_model_index_holds_the_metrics_unrounded() -> None:
    metrics = _metadata()["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics} == {
        "loss": RECORD["metrics"]["eval_loss"],
        "perplexity": RECORD["metrics"]["perplexity"],
        "bits_per_byte": RECORD["metrics"]["bits_per_byte"],
        "accuracy": RECORD["metrics"]["accuracy"],
    }


def test_metric_that_a_recipe_brings_is_listed_too() -> None:
    metrics = _metadata(metrics={"rouge_l": 0.25})["model-index"][0]["results"][0]["metrics"]
    assert metrics == [{"type": "rouge_l", "value": 0.25, "name": "Rouge l"}]


def test_write_card_is_what_huggingface_hub_reads_back(tmp_path: Path) -> None:
    path = write_card(tmp_path, RECORD)
    assert path == tmp_path / "README.md"
    card = ModelCard.load(path)
    assert str(card) == path.read_text(encoding="utf-8")
    assert card.data.eval_results[1].metric_value == RECORD["metrics"]["perplexity"]


def test_language_licence_picture_and_verdict(tmp_path: Path) -> None:
    verdict = {"sentences": ["0.68 nats under the unigram baseline"], "flags": "--max_steps 9", "publishable": True}
    known = {"language": ["en", "pt-BR"], "license": "apache-2.0", "curve": "learning_curve.svg", "verdict": verdict}
    card = ModelCard.load(write_card(tmp_path, {**RECORD, **known}))
    assert (card.data.language, card.data.license) == (["en", "pt-BR"], "apache-2.0")
    assert (card.data.base_model, card.data.datasets) == ("answerdotai/ModernBERT-base", ["someone/eli5"])
    assert "](learning_curve.svg)\n\n| metric | value |" in card.text
    assert "\n\n- 0.68 nats under the unigram baseline\n\n## Versions" in card.text
    # What the Hub reads of a card: metadata that come back as they were, and results of one model.
    again = ModelCardData(**yaml.safe_load(card.data.to_yaml()))
    assert again.to_yaml() == card.data.to_yaml()
    assert [type(one) for one in card.data.eval_results] == [EvalResult] * 4
    assert "learning_curve" not in _card() and "license" not in _metadata()


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, True),
        ({"dataset_name": None}, False),
        ({"validation_split": None}, False),  # a share of the training split, which nobody else has
        ({"validation_file": ["held-out.txt"]}, False),
        ({"max_eval_samples": 8}, False),
        ({"dataset_name": "/home/someone/eli5"}, False),
    ],
)
def test_a_whole_split_of_the_hub_has_a_result_in_the_hubs_own_format(settings: dict[str, Any], there: bool) -> None:
    record = {**RECORD, "settings": RECORD["settings"] | settings, "started": "2026-01-02T03:04:05Z"}
    said = eval_results(record)
    assert bool(said) is there
    if said:
        assert parse_eval_result_entries(yaml.safe_load(said)) == [
            EvalResultEntry(
                dataset_id="someone/eli5",
                task_id="default",
                value=RECORD["metrics"]["perplexity"],
                date="2026-01-02T03:04:05Z",
                notes="masked-token perplexity (15 % of tokens, mask seed 0), split test",
            )
        ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "n/a", True])
def test_what_is_no_number_is_no_result(value: Any) -> None:
    metadata = _metadata(metrics={"eval_loss": value, "accuracy": 0.5})
    assert [metric["type"] for metric in metadata["model-index"][0]["results"][0]["metrics"]] == ["accuracy"]


def test_record_with_the_recipe_alone() -> None:
    assert model_card({"recipe": "odd-task"}).data.to_dict() == {
        "library_name": "transformers",
        "tags": ["lmtasks", "recipe:odd-task"],
    }


def test_private_things_stay_out() -> None:
    card = _card(
        base_model="/home/someone/secret/path",
        data={"source": "/home/someone/corpus.txt", "dataset_name": "/home/someone/saved"},
        training={"logging_dir": "/home/someone/logs", "deepspeed": "C:\\Users\\someone\\ds.json"},
        settings={"train_file": ["/home/someone/secret/corpus.txt"], "api_key": "abcdef", "note": f"with {LEAKED}"},
    )
    for private in ("/home", "someone", "secret", "C:\\", "abcdef", LEAKED):
        assert private not in card
    assert "Source: corpus.txt" in card
    assert "starting from a local checkpoint" in card
    assert "base_model" not in card.split("---")[1] and "datasets" not in card.split("---")[1]


def test_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runs/base`` could be either; what exists here as a folder was loaded from there."""
    monkeypatch.chdir(tmp_path)
    assert _metadata(base_model="runs/base")["base_model"] == "runs/base"
    (tmp_path / "runs" / "base").mkdir(parents=True)
    assert "base_model" not in _metadata(base_model="runs/base")


def test_name_of_the_repository_names_the_model() -> None:
    assert _metadata(settings={"hub_model_id": "someone/my-model"})["model-index"][0]["name"] == "my-model"


def test_recipe_of_a_plugin_says_what_to_install() -> None:
    assert "`pip install lmtasks lmtasks-odd`" in _card(owner="lmtasks-odd:odd-task")
    assert "pip install" not in _card()


def test_pipeline_that_only_a_plugin_has_is_no_tag() -> None:
    card = _card(pipeline="odd.package:Pipeline")
    assert "pipeline_tag" not in card and "from transformers" not in card


@pytest.mark.parametrize(
    ("example", "shell", "python"),
    [
        (None, '"..."', "'...'"),
        ("Hello world", '"Hello world"', "'Hello world'"),
        ('It\'s $5 "now"', "'It'\"'\"'s $5 \"now\"'", "'It\\'s $5 \"now\"'"),
        ("two\nlines", '"two lines"', "'two lines'"),
        ("```\n# Not ours", '"..."', "'...'"),
    ],
)
def test_example_survives_shell_python_and_markdown(example: str | None, shell: str, python: str) -> None:
    card = _card(example=example)
    assert f"lmtasks predict REPO_OR_FOLDER {shell}\n" in card
    assert f"print(model({python}))\n" in card


def test_values_cannot_break_out_of_their_cell_or_the_metadata() -> None:
    card = _card(options={"separator": "a | b\nc"}, pipeline="fill-mask", perplexity_label="a: b\n---\nlicense: mit")
    assert "| Recipe | `separator` | a \\| b c |" in card
    assert "license" not in ModelCard(card).data.to_dict()


# What redacting does, beyond cards


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("/home/someone/secret/path", "[local path]"),
        ("/home/some one/my texts/a b.txt", "a b.txt"),
        ("/home/someone/data.jsonl.gz", "data.jsonl.gz"),
        ("/home/anna.smith", "[local path]"),
        ("~/texts", "[local path]"),
        ("~someone/texts/x", "[local path]"),
        ("../../someone/texts", "[local path]"),
        ("file:///home/someone/a.csv", "a.csv"),
        (r"C:\Users\someone\texts", "[local path]"),
        (r"\\server\someone\a.txt", "a.txt"),
        ("2 files in /home/someone/texts, cached", "2 files in [local path], cached"),
        ("files:/home/someone/a.txt", "files:a.txt"),
        (f"Bearer {LEAKED}", "Bearer [redacted]"),
        (Path("/home/someone/x"), "[local path]"),
    ],
)
def test_private_texts(private: str | Path, public: str) -> None:
    assert redacted({"x": [private]}) == {"x": [public]}


@pytest.mark.parametrize(
    "text",
    [
        "someone/model",
        "runs/masked-lm",
        "train[:5000]",
        "https://huggingface.co/someone/model",
        "hf://datasets/someone/eli5",
        "and/or",
        "3/4",
        "</s>",
        "./texts/a.txt",
        "hf_xet",
        "The cat / the dog",
        "",
    ],
)
def test_public_texts_stay(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("key", ["token", "hub_token", "HF_TOKEN", "hubToken", "api_key", "password", "client-secret"])
def test_secret_keys(key: str) -> None:
    assert redacted({"deep": [{key: "abc"}]}) == {"deep": [{key: "[redacted]"}]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_tokens_per_second", 7.5),
        ("tokens", "12"),
        ("tokenizer_name", "gpt2"),
        ("train_tokenizer", 300),
        ("mask_token", "[MASK]"),
        ("max_token", 5),
        ("hub_token", None),
        ("text_key", "answers"),
    ],
)
def test_keys_that_are_no_secrets(key: str, value: Any) -> None:
    assert redacted({key: value}) == {key: value}
