"""Tiny models for people who know Keras, on the backend that KERAS_BACKEND names; without it, on JAX."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.testing.specimens import corpus, tokenizer_for

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STILL = {
    "roberta": {**TINY, "max_position_embeddings": 66, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
             "attn_pdrop": 0.0},
}  # fmt: skip
"""Models without dropout, whose training can be compared."""


@pytest.fixture(scope="session")
def texts():
    """Documents to train on, and to hold out."""
    return corpus(61), corpus(21, seed=1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of tiny models with their tokenizers, by model type. Do not write to them."""
    made = {}
    for kind, recipe, auto in (
        ("roberta", MASKED_LM, transformers.AutoModelForMaskedLM),
        ("gpt2", CAUSAL_LM, transformers.AutoModelForCausalLM),
    ):
        torch.manual_seed(0)
        tokenizer, made[kind] = tokenizer_for(recipe), tmp_path_factory.mktemp(kind)
        roles = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
        config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **roles, **STILL[kind])
        for part in (auto.from_config(config), tokenizer):
            part.save_pretrained(made[kind])
    return made
