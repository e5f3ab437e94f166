"""Generation remembers what it has seen, and must say what it would without a memory."""

import pytest
import torch
from lmtasks_mega.cache import MegaCache
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.model import MegaForCausalLM

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "shared_representation_size": 8,
    "nffn_hidden_size": 16,
    "ema_projection_size": 4,
    "initializer_range": 0.4,
    "is_decoder": True,
    "bidirectional": False,
    "eos_token_id": None,
}
VARIANTS = [
    {},
    {"attention_activation": "laplace"},
    {"attention_activation": "relu2", "relative_positional_bias": "simple"},
    {"use_chunking": True, "chunk_size": 4},
    {"use_chunking": True, "chunk_size": 4, "attention_activation": "laplace"},
    {"truncation": 3},
    {"truncation": 1},
    {"truncation": 50, "normalize_before_mega": False, "normalize_before_ffn": False},
]


def build(**settings):
    torch.manual_seed(0)
    return MegaForCausalLM(MegaConfig(**{**SHAPE, **settings})).eval()


@pytest.fixture(params=VARIANTS, ids=str)
def model(request):
    return build(**request.param)


def prompt():
    """Two texts of different length, padded on the left, as generation does."""
    ids = torch.arange(3, 25).view(2, 11)
    mask = torch.ones_like(ids)
    ids[1, :3], mask[1, :3] = 1, 0
    return ids, mask


@pytest.mark.parametrize("steps", [[11], [1] * 11, [5, 1, 1, 4], [2, 9]], ids=str)
def test_pieces_give_the_logits_of_the_whole(model, steps):
    ids, mask = prompt()
    whole = model(ids, attention_mask=mask, use_cache=False)
    assert whole.past_key_values is None
    cache, logits, seen = None, [], 0
    for step in steps:
        end = seen + step
        outputs = model(ids[:, seen:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
        cache, seen = outputs.past_key_values, end
        assert cache.get_seq_length() == end
        logits.append(outputs.logits)
    real = mask.bool()
    torch.testing.assert_close(torch.cat(logits, dim=1)[real], whole.logits[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_says_the_same_with_and_without_a_cache(model, beams):
    ids, mask = prompt()
    settings = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "num_beams": beams}
    with_cache = model.generate(ids, **settings)
    assert torch.equal(with_cache, model.generate(ids, **settings, use_cache=False))
    assert len(with_cache[0, 11:].unique()) > 2, "repeats itself, so the comparison would show little"


def test_a_batch_says_what_its_texts_say_alone(model):
    ids, mask = prompt()
    together = model.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False)
    alone = model.generate(ids[1:, 3:], max_new_tokens=9, do_sample=False)
    assert torch.equal(together[1, 3:], alone[0])


def test_generation_runs_one_token_at_a_time():
    model, lengths = build(), []
    model.mega.register_forward_hook(lambda module, inputs, output: lengths.append(output.last_hidden_state.shape[1]))
    model.generate(torch.arange(3, 9)[None], max_new_tokens=4, do_sample=False)
    assert lengths == [6, 1, 1, 1]


def test_a_conversation_goes_on_from_its_cache():
    model, ids = build(), torch.arange(3, 9)[None]
    first = model.generate(ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, torch.tensor([[5, 6]])], dim=1)
    resumed = model.generate(longer, past_key_values=first.past_key_values, max_new_tokens=5, do_sample=False)
    assert torch.equal(resumed, model.generate(longer, max_new_tokens=5, do_sample=False))


def test_memory_is_bounded_where_attention_and_average_are():
    model = build(use_chunking=True, chunk_size=4, truncation=3)
    outputs = model.generate(torch.arange(3, 9)[None], max_new_tokens=20, do_sample=False, return_dict_in_generate=True)
    layer = outputs.past_key_values.layers[0]
    assert (layer.keys.shape, layer.values.shape) == ((1, 4, 8), (1, 4, 24))
    assert (layer.inputs.shape, layer.average) == ((1, 2, 16), None)


@pytest.mark.parametrize("settings", [{"bidirectional": True}, {"is_decoder": False}], ids=str)
def test_a_model_that_looks_ahead_reads_the_whole_text_every_time(settings):
    model, lengths = build(**settings), []
    model.mega.register_forward_hook(lambda module, inputs, output: lengths.append(output.last_hidden_state.shape[1]))
    model.generate(torch.arange(3, 9)[None], max_new_tokens=3, do_sample=False)
    assert lengths == [6, 7, 8]
    with pytest.raises(ValueError, match="past_key_values"):
        model(torch.arange(3)[None], past_key_values=MegaCache(2))


def test_the_simple_bias_says_where_it_ends():
    model = build(relative_positional_bias="simple", max_positions=8)
    model.generate(torch.arange(3, 9)[None], max_new_tokens=3, do_sample=False)
    with pytest.raises(ValueError, match="max_positions=8, but attention spans 9"):
        model.generate(torch.arange(3, 9)[None], max_new_tokens=4, do_sample=False)


def test_only_the_logits_that_are_wanted():
    model, ids = build(), torch.arange(3, 9)[None]
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])


def test_training_remembers_nothing_unless_asked():
    model, ids = build(), torch.arange(3, 9)[None]
    assert model(ids).past_key_values is not None
    assert model.train()(ids).past_key_values is None
