"""The loss against the model's own, and against loops by hand; and what padding must not do to it."""

from typing import Any

import numpy as np
import pytest
import torch
from lmtasks_masked_speech import MaskedSpeechOptions, cool
from lmtasks_masked_speech.hearing import ear_of
from lmtasks_masked_speech.loss import codes_of, loss, unused
from lmtasks_masked_speech.masking import collator
from lmtasks_masked_speech.metrics import CodebookPerplexity
from lmtasks_masked_speech.pieces import example_of, steps_of
from small import KINDS, chirp, extractor, model_of

LENGTHS = (0.9, 0.5, 0.73)
NOTHING = {"diversity_loss_weight": 0.0, "feature_penalty": 0.0}


def batch_of(model: Any, *numbers: int, training: bool = False, seconds: tuple = LENGTHS, **options: Any) -> dict:
    processor = extractor()
    examples = [
        {**example_of(chirp(seconds[number], number), processor, model.config), "seed": (1, 0, number)}
        for number in numbers
    ]
    return collator(processor, MaskedSpeechOptions(**{"num_negatives": 7, **options}), training)(examples)


def their_inputs(batch: dict) -> dict:
    rows, steps = batch["labels"].shape
    offsets = torch.arange(rows)[:, None, None] * steps
    inputs = {name: batch[name] for name in ("input_values", "mask_time_indices")}
    return {**inputs, "sampled_negative_indices": batch["negatives"] + offsets}


@pytest.mark.parametrize("kind", KINDS)
def test_contrastive_loss_is_that_of_the_model_itself(kind: str) -> None:
    model = model_of(kind)
    batch = batch_of(model, 0, 1, seconds=(0.8, 0.8))
    with torch.no_grad():
        total, targets, sums = loss(model, batch)
        theirs = model(**their_inputs(batch))
    assert int(targets) == int(batch["mask_time_indices"].sum()) > 20
    assert float(total) == pytest.approx(float(theirs.contrastive_loss), rel=1e-5)
    assert CodebookPerplexity().compute(codes=[sums["codes"].tolist()])["codebook_perplexity"] == pytest.approx(
        float(theirs.codevector_perplexity), rel=1e-5
    )


def test_loss_and_right_guesses_by_hand() -> None:
    model = model_of("layer")
    batch = batch_of(model, 0, 1, seconds=(0.8, 0.8))
    with torch.no_grad():
        total, _, sums = loss(model, batch)
        outputs = model(**{name: batch[name] for name in ("input_values", "mask_time_indices")})
    expected, correct = 0.0, 0
    for row, step in batch["mask_time_indices"].nonzero().tolist():
        quantized = outputs.projected_quantized_states[row].double()
        guess = outputs.projected_states[row, step].double()
        others = [
            quantized[n]
            for n in batch["negatives"][row, step].tolist()
            if not torch.equal(quantized[n], quantized[step])
        ]
        scores = torch.stack([torch.cosine_similarity(guess, one, dim=0) / 0.1 for one in (quantized[step], *others)])
        expected -= float(scores.log_softmax(0)[0])
        correct += bool(others) and bool(scores[0] > scores[1:].max())
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(sums["correct"]) == correct > 0


def test_a_collapsed_codebook_is_never_right() -> None:
    model = model_of("layer")
    with torch.no_grad():
        model.quantizer.weight_proj.weight.zero_()
        model.quantizer.weight_proj.bias[[3, 30]] = 9.0
        total, targets, sums = loss(model, batch_of(model, 0))
    assert (float(total), int(sums["correct"])) == (0.0, 0)
    assert sums["codes"][:, [3, 6]].diag().tolist() == [int(targets)] * 2


def gradients(model: Any, batch: dict) -> torch.Tensor:
    model.zero_grad()
    total = loss(model, batch)[0]
    total.backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def test_training_gradient_of_one_recording_is_that_of_the_models_own_loss() -> None:
    model = model_of("group", num_codevectors_per_group=200).train()
    with torch.no_grad():  # so that codes are chosen by the noise, and hardly any twice
        model.quantizer.weight_proj.weight.mul_(0.01)
    batch = batch_of(model, 0, training=True, feature_penalty=0.0)
    state = torch.get_rng_state()
    with torch.no_grad():
        _, heard = ear_of(model).listen(model, None, {"input_values": batch["input_values"]})
        codes = codes_of(model.quantizer, heard["codevectors"])[batch["mask_time_indices"]]
    assert len(codes.unique(dim=0)) == len(codes), "with two alike the model's own loss depends on rounding"
    torch.set_rng_state(state)  # the same noise of the Gumbel softmax
    ours = gradients(model, batch)
    torch.set_rng_state(state)
    model.zero_grad()
    model(**their_inputs(batch)).loss.backward()
    theirs = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_regularisers_change_the_gradient_and_not_the_value() -> None:
    model = model_of("group")
    plain = batch_of(model, 0, 1, 2, training=True, **NOTHING)
    heavy = batch_of(model, 0, 1, 2, training=True, diversity_loss_weight=5.0, feature_penalty=5.0)
    with torch.no_grad():
        measured = loss(model, plain)[0]
    for batch in (plain, heavy):
        assert loss(model, batch)[0].item() == pytest.approx(float(measured), rel=1e-5)
    difference = gradients(model, heavy) - gradients(model, plain)
    # By hand, recording by recording, each alone.
    model.zero_grad()
    for number in range(3):
        alone = batch_of(model, number)
        count = int(alone["mask_time_indices"].sum())
        _, heard = ear_of(model).listen(model, None, {"input_values": alone["input_values"]})
        chances = heard["logits"][0].view(-1, 2, 24).softmax(-1)[alone["mask_time_indices"][0]].mean(0)
        perplexity = sum(torch.exp(-(group * group.log()).sum()) for group in chances)
        (5 * count * ((48 - perplexity) / 48 + heard["features"].square().mean())).backward()
    expected = torch.cat(
        [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in model.parameters()]
    )
    assert expected.abs().max() > 0
    assert torch.allclose(difference, expected, rtol=1e-2, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("kind", "penalty"), [("group", 10.0), ("layer", 0.0)])
def test_weights_that_nobody_names_are_those_of_the_paper(kind: str, penalty: float) -> None:
    model = model_of(kind)
    named = batch_of(model, 0, training=True, diversity_loss_weight=0.1, feature_penalty=penalty)
    assert torch.equal(gradients(model, batch_of(model, 0, training=True)), gradients(model, named))
    other = batch_of(model, 0, training=True, feature_penalty=penalty + 1)
    assert not torch.equal(gradients(model, other), gradients(model, named))


@pytest.mark.parametrize("kind", KINDS)
def test_recordings_of_different_length_come_out_as_alone(kind: str) -> None:
    model = model_of(kind)
    with torch.no_grad():
        total, targets, sums = loss(model, batch_of(model, 0, 1, 2))
        alone = [loss(model, batch_of(model, number)) for number in range(3)]
    assert float(total) == pytest.approx(sum(float(one) for one, *_ in alone), rel=1e-5)
    assert int(targets) == sum(int(count) for _, count, _ in alone)
    assert torch.equal(sums["codes"], sum(more["codes"] for *_, more in alone))
    together = gradients(model, batch_of(model, 0, 1, 2, training=True))
    apart = sum(gradients(model, batch_of(model, number, training=True)) for number in range(3))
    assert torch.allclose(together, apart, rtol=1e-3, atol=1e-4 * float(apart.abs().max()))


def test_without_the_ear_padding_would_matter() -> None:
    # Or the test before this one would show nothing.
    model = model_of("group")
    padded, alone = batch_of(model, 0, 1), batch_of(model, 1)
    steps = alone["labels"].shape[1]
    with torch.no_grad():
        plain = model(padded["input_values"]).projected_states[1, :steps]
        right = model(alone["input_values"]).projected_states[0]
        outputs, _ = ear_of(model).listen(
            model, padded["attention_mask"].sum(1), {name: padded[name] for name in ("input_values", "attention_mask")}
        )
    assert not torch.allclose(plain, right, atol=1e-3)
    assert torch.allclose(outputs.projected_states[1, :steps], right, atol=1e-5)


def test_gradient_checkpointing_changes_nothing() -> None:
    model = model_of("group").train()
    batch = batch_of(model, 0, 1, 2, training=True)
    torch.manual_seed(3)
    plain = gradients(model, batch)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    torch.manual_seed(3)
    assert torch.allclose(gradients(model, batch), plain, rtol=1e-4, atol=1e-6 * float(plain.abs().max()))


def test_a_recording_whose_targets_were_taken_away_counts_nothing() -> None:
    # As where an epoch's last batch is filled up with examples that another process has.
    model = model_of("group")
    batch = batch_of(model, 0, 1, training=True)
    batch["labels"][1] = -100
    padded = gradients(model, batch)
    assert torch.isfinite(padded).all()
    assert torch.allclose(
        padded, gradients(model, batch_of(model, 0, training=True)), rtol=1e-3, atol=1e-4 * float(padded.abs().max())
    )


def test_use_of_the_codebooks_is_between_one_code_and_all() -> None:
    quantizer = model_of("layer").quantizer
    wanted = torch.ones(2, 30, dtype=torch.bool)
    flat, sharp = torch.zeros(1, 30, 48), torch.full((1, 30, 48), -99.0)
    sharp[..., [5, 40]] = 99.0
    assert unused(quantizer, torch.cat([flat, sharp]), wanted).tolist() == pytest.approx([0.0, 46 / 48])


def test_temperature_falls_with_the_steps_and_stops() -> None:
    model = model_of("group")
    options = MaskedSpeechOptions(gumbel_temperature_decay=0.9)
    seen = []
    for steps in (0, 1, 10, 100):
        cool(model, options, steps)
        seen.append(model.quantizer.temperature)
    assert seen == pytest.approx([2.0, 1.8, 2 * 0.9**10, 0.5])


def test_steps_are_those_that_the_model_makes() -> None:
    model = model_of("group")
    for samples in (400, 719, 720, 5000, 16_000):
        values = torch.from_numpy(np.zeros((1, samples), np.float32))
        assert steps_of(samples, model.config) == model(values).projected_states.shape[1]
    assert steps_of(10, model.config) == 0
