"""Texts and models that the tests train; nothing is fetched."""

from __future__ import annotations

import pytest

from lmtasks.testing.specimens import corpus

SHAPE = "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=64"


@pytest.fixture
def text(tmp_path):
    """A file with 60 short documents."""
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(corpus(60)), encoding="utf-8")
    return file


@pytest.fixture
def words(text):
    """The command that trains a tiny roberta on it, without what is to be tried."""
    return [
        *["run", "masked-lm", "--train_file", str(text), "--sample_by", "paragraph", "--block_size", "32"],
        *["--model_type", "roberta", "--config_overrides", SHAPE, "--train_tokenizer", "300"],
        *["--per_device_train_batch_size", "4", "--max_steps", "4", "--logging_steps", "1", "--report_to", "none"],
    ]
