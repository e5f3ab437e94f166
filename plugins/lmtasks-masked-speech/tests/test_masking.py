"""What is hidden and what it is told apart from: right in distribution, and a matter of the example's seed alone."""

import numpy as np
import pytest
import torch
from lmtasks_masked_speech import MaskedSpeechOptions
from lmtasks_masked_speech.masking import collator, distract, hide
from small import extractor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

DRAWS = 4000


@pytest.mark.parametrize(
    ("steps", "probability", "span"), [(60, 0.65, 10), (37, 0.3, 4), (200, 0.1, 10), (12, 0.65, 10)]
)
def test_hidden_steps_are_distributed_as_in_the_published_code(steps: int, probability: float, span: int) -> None:
    draw = np.random.default_rng(0)
    ours = np.array([hide(draw, steps, probability, span) for _ in range(DRAWS)])
    np.random.seed(1)
    theirs = np.concatenate([_compute_mask_indices((1, steps), probability, span, min_masks=2) for _ in range(DRAWS)])
    # Of each place, and of the number of hidden steps: five standard errors of a difference of shares.
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 5 * np.sqrt(0.5 / DRAWS)
    counts = [np.bincount(rows.sum(1), minlength=steps + 1) / DRAWS for rows in (ours, theirs)]
    assert np.abs(counts[0] - counts[1]).max() < 5 * np.sqrt(0.5 / DRAWS)


def test_every_span_is_whole() -> None:
    draw = np.random.default_rng(3)
    for _ in range(200):
        hidden = np.concatenate([[False], hide(draw, 50, 0.4, 7), [False]])
        edges = np.flatnonzero(np.diff(hidden.astype(int)))
        assert (np.diff(edges)[::2] >= 7).all()


def test_distractors_are_the_other_hidden_steps_each_as_often() -> None:
    draw = np.random.default_rng(0)
    hidden = np.zeros(20, dtype=bool)
    places = [2, 3, 4, 11, 12, 19]
    hidden[places] = True
    table = distract(draw, hidden, 10_000)
    assert not table[~hidden].any()
    for place in places:
        chosen = np.bincount(table[place], minlength=20) / 10_000
        assert set(np.flatnonzero(chosen)) == set(places) - {place}
        assert chosen[chosen > 0] == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 / 10_000))


def batch_of(*seeds: int, training: bool = False, **options: float) -> dict:
    lengths = {1: 8000, 2: 9600, 3: 12000}
    examples = [
        {
            "input_values": np.full(lengths[seed], seed, np.float32),
            "steps": lengths[seed] // 320 - 1,
            "seed": (7, 0, seed),
        }
        for seed in seeds
    ]
    return collator(extractor(), MaskedSpeechOptions(num_negatives=5, **options), training)(examples)


def test_an_example_is_hidden_alike_whatever_shares_its_batch() -> None:
    alone, together = batch_of(2), batch_of(3, 2, 1)
    steps = alone["labels"].shape[1]
    for name in ("mask_time_indices", "negatives", "labels"):
        assert torch.equal(alone[name][0], together[name][1, :steps])
    assert not together["mask_time_indices"][1, steps:].any(), "nothing behind its end"
    assert (together["labels"][1, steps:] == -100).all()
    assert not torch.equal(alone["mask_time_indices"], batch_of(3)["mask_time_indices"][:, :steps])


def test_padding_is_silence_and_told() -> None:
    alone, together = batch_of(3), batch_of(1, 3)
    assert "attention_mask" not in alone
    assert together["attention_mask"].sum(1).tolist() == [8000, 12000]
    assert not together["input_values"][0, 8000:].any() and (together["input_values"][0, :8000] == 1).all()


def test_weights_are_in_training_batches_only_and_only_if_asked_for() -> None:
    names = {"diversity_loss_weight", "feature_penalty"}
    assert not names & batch_of(1, training=True).keys()
    assert not names & batch_of(1, feature_penalty=3.0).keys()
    asked = batch_of(1, training=True, feature_penalty=3.0, diversity_loss_weight=0.0)
    assert (asked["feature_penalty"], asked["diversity_loss_weight"]) == (3.0, 0.0)
