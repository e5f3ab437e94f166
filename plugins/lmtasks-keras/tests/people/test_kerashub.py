"""Tiny models of KerasHub, made here: they become transformers' models with the same logits, or are refused."""

import json
from tempfile import TemporaryDirectory

import lmtasks_keras
import numpy as np
import pytest
import torch
import transformers

from lmtasks import InputError
from lmtasks.testing.specimens import corpus

pytestmark = pytest.mark.keras
keras = pytest.importorskip("keras", reason="tox run -e keras")
hub = pytest.importorskip("keras_hub", reason="tox run -e keras").models

SHAPE = {"num_layers": 2, "hidden_dim": 32, "intermediate_dim": 128}
GROUPED = {**SHAPE, "num_query_heads": 4, "num_key_value_heads": 2}
SPECIAL = {
    "GPT2": ["<|endoftext|>"],
    "Llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    "Qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}


def _tokenizer(kind, *texts):
    """A byte-pair tokenizer of KerasHub, trained with GPT-2's way of splitting words."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*corpus(), *texts], 300, special_tokens=SPECIAL[kind], show_progress=False)
    model = json.loads(trained.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return getattr(hub, f"{kind}Tokenizer")(vocabulary=model["vocab"], merges=merges)


def _sharp(model):
    """The model with weights so large that every token of the context matters."""
    draw = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(draw.normal(0, 0.2, weight.shape).astype("float32"))
    return model


def _causal(kind, *texts, **shape):
    tokenizer = _tokenizer(kind, *texts)
    backbone = getattr(hub, f"{kind}Backbone")(vocabulary_size=tokenizer.vocabulary_size(), **shape)
    return _sharp(getattr(hub, f"{kind}CausalLM")(backbone, getattr(hub, f"{kind}CausalLMPreprocessor")(tokenizer)))


@pytest.fixture(scope="module")
def gpt2():
    return _causal("GPT2", **SHAPE, num_heads=4, max_sequence_length=64)


def _logits(causal, ids):
    return keras.ops.convert_to_numpy(causal({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


def _same(causal, converted, length=24):
    ids = np.random.default_rng(2).integers(0, causal.backbone.vocabulary_size, (2, length)).astype("int32")
    with torch.no_grad():
        theirs = converted(torch.from_numpy(ids).long()).logits.numpy()
    ours = _logits(causal, ids)
    # Another tokenizer may have more words: the model has grown by these.
    return np.abs(ours - theirs[..., : ours.shape[-1]]).max() / np.abs(ours).max()


@pytest.mark.parametrize(("kind", "model_type"), [("GPT2", "gpt2"), ("Llama3", "llama"), ("Qwen", "qwen2")])
def test_a_causal_model_is_the_same_in_transformers_and_back(kind, model_type, gpt2, tmp_path):
    causal = gpt2 if kind == "GPT2" else _causal(kind, **GROUPED)
    model = lmtasks_keras.from_keras_hub(causal, batch_size=4, block_size=16)
    saved = lmtasks_keras.save(model, tmp_path / "model")
    converted = transformers.AutoModelForCausalLM.from_pretrained(saved)
    assert converted.config.model_type == model_type
    assert _same(causal, converted) < 1e-5
    tokenizer, text = transformers.AutoTokenizer.from_pretrained(saved), "the quick fox sees a white river"
    ids = np.asarray(keras.ops.convert_to_numpy(causal.preprocessor.tokenizer(text))).tolist()
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    back = type(causal).from_preset(str(saved), preprocessor=None)
    assert _same(back, converted) < 1e-5


def test_it_is_trained_like_any_other(gpt2, texts):
    model = lmtasks_keras.from_keras_hub(gpt2, batch_size=4, block_size=32)
    before = model.evaluate(held_out := lmtasks_keras.dataset(texts[1], model, training=False), verbose=0)
    model.compile(optimizer=keras.optimizers.AdamW(5e-3))
    model.fit(lmtasks_keras.dataset(texts[0], model), epochs=1, verbose=0)
    assert model.evaluate(held_out, verbose=0) < before - 0.5


def test_a_preset_that_cannot_be_fetched_is_told():
    with pytest.raises(InputError, match="KerasHub has no causal model in 'hf://nobody/nothing': "):
        lmtasks_keras.from_keras_hub("hf://nobody/nothing")


def test_a_preset_is_named_by_its_folder(gpt2, tmp_path):
    gpt2.save_to_preset(str(tmp_path / "preset"))
    model = lmtasks_keras.from_keras_hub(str(tmp_path / "preset"), block_size=16)
    assert _same(gpt2, model.pretrained()) < 1e-5


def test_mistral_is_the_same_beyond_its_window():
    from lmtasks_keras.kerashub import require_same_logits

    backbone = hub.MistralBackbone(vocabulary_size=300, **GROUPED, sliding_window=8)
    causal = _sharp(hub.MistralCausalLM(backbone))
    with TemporaryDirectory() as folder:
        causal.export_to_transformers(folder)
        require_same_logits(causal, folder)


def _refused(model):
    with pytest.raises(InputError) as refusal:
        lmtasks_keras.from_keras_hub(model)
    return refusal.value.message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Roberta", "no token-type embeddings, and counts positions from 2"),
        ("XLMRoberta", "no token-type embeddings, and counts positions from 2"),
        ("Bert", "head of masked language modelling goes into no folder"),
        ("DistilBert", "head of masked language modelling goes into no folder"),
        ("Albert", "head of masked language modelling goes into no folder"),
    ],
)
def test_masked_models_are_refused_with_the_reason(kind, reason, tmp_path):
    narrow = {"embedding_dim": 16} if kind == "Albert" else {}
    backbone = getattr(hub, f"{kind}Backbone")(vocabulary_size=300, **SHAPE, **narrow, num_heads=4)
    masked = getattr(hub, f"{kind}MaskedLM")(backbone)
    assert reason in _refused(masked)
    assert reason in _refused(backbone)
    if kind == "Roberta":
        masked.save_to_preset(str(tmp_path))
        assert reason in _refused(str(tmp_path))


def test_roberta_really_computes_something_else(folders):
    """The reason, measured: KerasHub's own conversion of the folder has other hidden states than transformers."""
    backbone = hub.RobertaBackbone.from_preset(str(folders["roberta"]))
    model = transformers.AutoModel.from_pretrained(folders["roberta"]).eval()
    ids = np.random.default_rng(0).integers(10, 300, (1, 16)).astype("int32")
    ours = keras.ops.convert_to_numpy(backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids).long()).last_hidden_state.numpy()
    assert np.abs(ours - theirs).max() > 0.01


def test_what_kerashub_converts_wrongly_or_not_at_all_is_refused():
    from lmtasks_keras.kerashub import export, require_same_logits

    many = {"vocabulary_size": 300, **SHAPE, "num_query_heads": 4, "num_key_value_heads": 1, "head_dim": 8}
    second = {"use_post_ffw_norm": True, "use_post_attention_norm": True, "attention_logit_soft_cap": 50.0}
    gemma = [_sharp(hub.GemmaCausalLM(hub.GemmaBackbone(**many, **more))) for more in ({}, second)]
    with TemporaryDirectory() as folder:
        export(gemma[0], folder)
        require_same_logits(gemma[0], folder)
    with TemporaryDirectory() as folder, pytest.raises(InputError, match="the logits differ by"):
        export(gemma[1], folder)
        require_same_logits(gemma[1], folder)
    with TemporaryDirectory() as folder, pytest.raises(InputError, match="not implemented for LlamaBackbone"):
        export(hub.LlamaCausalLM(hub.LlamaBackbone(vocabulary_size=300, **GROUPED)), folder)


def test_what_is_no_model_of_kerashub_is_refused(gpt2):
    assert "a int is no model of KerasHub" in _refused(3)
    assert "no causal model in 'nowhere'" in _refused("nowhere")
    assert "has no preprocessor" in _refused(hub.GPT2CausalLM(gpt2.backbone))


def test_a_tokenizer_that_reads_otherwise_is_refused_and_another_may_be_named(folders, monkeypatch):
    """KerasHub splits runs of blanks otherwise, which shows where they are words of the vocabulary."""
    blanks = _causal("GPT2", *["a    b      c  d"] * 500, **SHAPE, num_heads=4, max_sequence_length=64)
    monkeypatch.setattr("lmtasks_keras.kerashub.TEXT", "two  blanks")
    assert "reads a text as other tokens" in _refused(blanks)
    named = lmtasks_keras.from_keras_hub(blanks, block_size=16, tokenizer_name=str(folders["gpt2"]))
    assert _same(blanks, named.pretrained()) < 1e-5
