"""What transformers and lmtasks expect of a model, and what its configuration refuses."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from lmtasks_mega import MEGA
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.layers import Dropout
from lmtasks_mega.model import MegaForCausalLM, MegaForMaskedLM, MegaModel
from transformers import AutoModel

import lmtasks
from lmtasks.models.lm_head import separate_head, separated

TINY = {**MEGA.tiny, "vocab_size": 50}
CAUSAL = {"is_decoder": True, "bidirectional": False}
BOTH = pytest.mark.parametrize(("kind", "settings"), [(MegaForMaskedLM, {}), (MegaForCausalLM, CAUSAL)])


def build(kind=MegaForMaskedLM, **settings):
    torch.manual_seed(0)
    return kind(MegaConfig(**{**TINY, **settings}))


def ids(rows=2, length=12):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


@BOTH
def test_the_head_runs_apart_from_the_body(kind, settings):
    model = build(kind, **settings)
    assert separate_head(model, {"input_ids": ids()}) is None
    assert separated(model)


@BOTH
@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_grows(kind, settings, tied):
    model = build(kind, **settings, tie_word_embeddings=tied).eval()
    before = model(ids()).logits
    model.resize_token_embeddings(53)
    after = model(ids()).logits
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert after.shape[-1] == len(model.get_output_embeddings().bias) == 53
    torch.testing.assert_close(after[..., :50], before)


def test_the_body_alone_is_an_auto_model(tmp_path):
    lmtasks.register_architectures()
    whole = build().eval()
    whole.save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is MegaModel
    torch.testing.assert_close(body(ids()).last_hidden_state, whole.mega(ids()).last_hidden_state)


@BOTH
@pytest.mark.parametrize("normalization", ["scalenorm", "layernorm", "rmsnorm", "batchnorm"])
def test_fresh_models_guess_evenly_and_learn_by_heart(kind, settings, normalization):
    model = build(kind, **settings, normalization_type=normalization)
    labels = ids()
    assert model.eval()(labels, labels=labels).loss.item() == pytest.approx(math.log(50), rel=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.train()
    for _ in range(100):
        loss = model(labels, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval()(labels, labels=labels).loss.item() < 0.5
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_fresh_weights_are_drawn_as_the_configuration_says():
    model = build(hidden_size=200, ema_projection_size=16, relative_positional_bias="simple", vocab_size=500)
    block = model.mega.layers[0].mega_layer
    ema = block.ema_gate
    signs = torch.tensor([1.0, -1.0] * 8)[:, None]
    spreads = {
        ema.damping_factor: 0.2,
        ema.decay_factor: 0.2,
        ema.kernel_projection_matrix: 1.0,
        ema.residual_weight: 1.0,
        ema.ema_expansion_matrix - signs: 0.02,
        block.v_proj.weight: 0.02,
        block.rel_pos_bias.rel_pos_bias: 0.02,
        block.qk_weight: 0.02,
        model.get_input_embeddings().weight: 200**-0.5,
        model.dense.weight: 0.02,
    }
    for drawn, spread in spreads.items():
        assert drawn.std().item() == pytest.approx(spread, rel=0.2)
        assert abs(drawn.mean().item()) < spread / 3
    assert not block.qk_bias.any() and not block.v_proj.bias.any()
    assert block.norm.norm.scalar.item() == 1


def test_the_loss_can_be_divided_by_a_count_from_outside():
    """The Trainer's way to count the targets of a whole step."""
    model, labels = build().eval(), ids()
    mean = model(labels, labels=labels).loss
    torch.testing.assert_close(model(labels, labels=labels, num_items_in_batch=48).loss, mean * labels.numel() / 48)


def test_gradient_checkpointing_changes_no_gradient():
    plain, saving = build(dropout_prob=0.0).train(), build(dropout_prob=0.0).train()
    # What gradient_checkpointing_enable calls, under whichever name this version of transformers has it.
    enable = getattr(saving, "activation_checkpointing_enable", None) or saving.gradient_checkpointing_enable
    enable()
    for model in (plain, saving):
        torch.manual_seed(1)
        model(ids(), labels=ids()).loss.backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@BOTH
def test_bfloat16_comes_near(kind, settings):
    exact, rough = build(kind, **settings).eval(), build(kind, **settings).eval().to(torch.bfloat16)
    expected = exact(ids()).logits
    assert rough(ids()).logits.dtype == torch.bfloat16
    torch.testing.assert_close(rough(ids()).logits.float(), expected, rtol=0, atol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(exact(ids()).logits.float(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("settings", [{}, {"bidirectional": False}, {"bidirectional": False, "truncation": 3}])
def test_averages_are_float32_under_autocast(settings):
    ema = build(**settings).mega.layers[0].mega_layer.ema_gate
    x = torch.randn(1, 12, TINY["hidden_size"])
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = ema(x)
    assert torch.equal(under_autocast, ema(x))


def test_dropout_is_of_numbers_or_of_features():
    x = torch.ones(4, 50, 60)
    for whole in (False, True):
        dropout = Dropout(0.25, MegaConfig(use_feature_dropout=whole))
        dropped = dropout(x)
        assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
        assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.05)
        assert bool((dropped == dropped[:, :1]).all()) == whole
        assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize(
    "name", ["dropout_prob", "hidden_dropout_prob", "attention_probs_dropout_prob", "nffn_activation_dropout_prob"]
)
def test_each_dropout_is_one_of_training(name):
    silent = dict.fromkeys(
        ["dropout_prob", "hidden_dropout_prob", "attention_probs_dropout_prob", "nffn_activation_dropout_prob"], 0.0
    )
    model = build(**{**silent, name: 0.5})
    assert not torch.equal(model.train()(ids()).logits, model(ids()).logits)
    assert torch.equal(model.eval()(ids()).logits, model(ids()).logits)


def test_inputs_are_ids_or_embeddings():
    model = build().eval()
    torch.testing.assert_close(model(inputs_embeds=model.get_input_embeddings()(ids())).logits, model(ids()).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


def test_a_mask_of_pairs_is_refused():
    with pytest.raises(ValueError, match=r"shape \[2, 12\], not \[2, 1, 12, 12\]"):
        build()(ids(), attention_mask=torch.ones(2, 1, 12, 12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_activation": "sigmoid"}, "attention_activation"),
        ({"normalization_type": "groupnorm"}, "normalization_type"),
        ({"relative_positional_bias": "alibi"}, "relative_positional_bias"),
        ({"num_attention_heads": 2}, "num_attention_heads"),
        ({"activation": "sili"}, "no activation 'sili'"),
        ({"use_chunking": True}, "chunk_size of 1 or more, not -1"),
        ({"truncation": 0}, "truncation must be 1 or more, not 0"),
        ({"shared_representation_size": 15}, "even shared_representation_size, not 15"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(StrictDataclassError, match=message):
        MegaConfig(**settings)


def test_an_odd_width_goes_with_the_simple_bias():
    assert build(shared_representation_size=15, relative_positional_bias="simple")(ids()).logits.isfinite().all()


@pytest.mark.parametrize("position", ["simple", "rotary"])
@pytest.mark.parametrize("normalization", ["scalenorm", "layernorm", "rmsnorm", "batchnorm", "syncbatchnorm"])
def test_no_parameter_is_left_as_it_was_allocated(normalization, position):
    model = build(normalization_type=normalization, relative_positional_bias=position, add_token_type_embeddings=True)
    tensors = [*model.parameters(), *(one for one in model.buffers() if one.is_floating_point())]
    with torch.no_grad():
        for tensor in tensors:
            tensor.fill_(float("nan"))
    for module in model.modules():
        model._init_weights(module)
    assert all(tensor.isfinite().all() for tensor in tensors)
