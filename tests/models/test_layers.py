"""A model with fewer of its layers: which stay, that it still works, what is refused."""

import pytest
import torch
import transformers

import lmtasks

GPT2 = {"n_embd": 8, "n_head": 2, "vocab_size": 20, "n_positions": 8}


@pytest.mark.parametrize(("count", "kept"), [(6, [0, 2, 4, 7, 9, 11]), (1, [0]), (2, [0, 11]), (12, list(range(12)))])
def test_the_first_the_last_and_others_evenly_between_stay(count: int, kept: list[int]) -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=12, **GPT2))
    before = [layer.attn.c_attn.weight.clone() for layer in model.transformer.h]
    lmtasks.keep_layers(model, count)
    assert model.config.num_hidden_layers == count == len(model.transformer.h)
    pairs = zip(model.transformer.h, kept, strict=True)
    assert all(torch.equal(layer.attn.c_attn.weight, before[place]) for layer, place in pairs)


def test_a_model_cut_in_place_is_the_one_that_is_loaded_after(tmp_path) -> None:
    """The layers know their new places: with what they keep of a text, the text goes on as without."""
    config = transformers.GPT2Config(n_layer=5, initializer_range=0.5, **GPT2)
    model = transformers.GPT2LMHeadModel(config).eval()
    lmtasks.keep_layers(model, 3)
    lmtasks.keep_layers(model, 3)  # nothing more
    model.save_pretrained(tmp_path)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)
        kept = model(ids[:, :2], use_cache=True)
        step = model(ids[:, 2:], past_key_values=kept.past_key_values).logits
        assert len(kept.past_key_values) == 3
        assert torch.allclose(step[:, -1], loaded(ids).logits[:, -1], atol=1e-5)


def test_kinds_of_layers_stay_with_their_layers() -> None:
    config = transformers.ModernBertConfig(
        num_hidden_layers=4, hidden_size=16, num_attention_heads=2, intermediate_size=16, vocab_size=20,
        pad_token_id=0, global_attn_every_n_layers=3,
    )  # fmt: skip
    model = transformers.ModernBertForMaskedLM(config)
    kinds = list(config.layer_types)
    lmtasks.keep_layers(model, 2)
    assert model.config.layer_types == [kinds[0], kinds[3]]


@pytest.mark.parametrize("count", [0, 3])
def test_what_cannot_be_kept_is_refused_and_nothing_changes(count: int) -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=2, **GPT2))
    with pytest.raises(lmtasks.InputError, match=f"a model of 2 layers, gpt2, cannot become one of {count}"):
        lmtasks.keep_layers(model, count)
    assert len(model.transformer.h) == 2


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    config = transformers.AlbertConfig(
        num_hidden_layers=3, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=20
    )
    with pytest.raises(lmtasks.InputError, match="a model of 3 layers, albert, cannot become one of 2"):
        lmtasks.keep_layers(transformers.AlbertForMaskedLM(config), 2)
