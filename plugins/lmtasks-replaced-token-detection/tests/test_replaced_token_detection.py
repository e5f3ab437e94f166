"""The losses are those written down by hand here; the embeddings are one; the model learns to tell tokens apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lmtasks_replaced_token_detection import NOISE, REPLACED_TOKEN_DETECTION, ReplacedTokenOptions
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, ElectraForPreTraining

import lmtasks
from lmtasks.testing import check_recipe

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SHAPE = (
    "num_hidden_layers=2,embedding_size=32,hidden_size=64,num_attention_heads=4,intermediate_size=128,initializer_range=0.1,"
    "hidden_dropout_prob=0,attention_probs_dropout_prob=0"
)


def by_hand(model, batch):
    """Both terms: sum and count, token by token."""
    guesses = told = 0.0
    labels, noise = batch["labels"][:, 0], batch["labels"][:, 1]
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    said = model.generator(input_ids=batch["input_ids"], attention_mask=mask).logits
    ids, other = batch["input_ids"].clone(), torch.zeros(labels.shape)
    gaps = [tuple(place) for place in (labels != -100).nonzero().tolist()]
    for row, place in gaps:
        guesses = guesses - said[row, place].log_softmax(0)[labels[row, place]]
        probabilities = said[row, place].detach().double().softmax(0).numpy()
        below = np.concatenate([[0.0], probabilities.cumsum()])
        share = (int(noise[row, place]) + 0.5) / NOISE * below[-1]
        ids[row, place] = next(word for word in range(len(probabilities)) if below[word] <= share <= below[word + 1])
        other[row, place] = ids[row, place] != labels[row, place]
    logits = model(input_ids=ids, attention_mask=mask).logits
    for row, place in mask.nonzero().tolist():
        probability = logits[row, place].sigmoid()
        told = told - (probability if other[row, place] else 1 - probability).log()
    return {"generator": (guesses, torch.tensor(len(gaps))), "discriminator": (told, mask.sum())}


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(REPLACED_TOKEN_DETECTION, oracle=by_hand)


def trained(folder: Path, **more) -> lmtasks.Run:
    return lmtasks.run(
        "replaced-token-detection",
        model_type="electra",
        config_overrides=SHAPE,
        train_tokenizer=320,
        train_dataset=[TEXT] * 8,
        test_size=0.25,
        block_size=32,
        learning_rate=3e-3,
        warmup_steps=0.1,
        adam_beta2=0.999,
        per_device_train_batch_size=8,
        max_eval_samples=50,
        output_dir=str(folder),
        **more,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return trained(tmp_path_factory.mktemp("electra") / "out", max_steps=400, save_strategy="no")


def test_the_generator_is_narrower_and_saved_beside_the_model_with_its_embeddings(run: lmtasks.Run) -> None:
    model, report = ElectraForPreTraining.from_pretrained(run.output_dir, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]
    generator = AutoModelForMaskedLM.from_pretrained(Path(run.output_dir, "generator"))
    assert (generator.config.hidden_size, generator.config.num_attention_heads) == (16, 1)
    for name, table in generator.electra.embeddings.named_parameters():
        assert torch.equal(table, model.electra.embeddings.get_parameter(name)), name
    assert torch.equal(generator.generator_lm_head.weight, model.electra.embeddings.word_embeddings.weight)


def test_the_shared_embeddings_learn_from_both_losses() -> None:
    """The gradient of the one table is the sum of the gradients of two that hold the same."""
    from transformers import ElectraConfig

    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=50, embedding_size=16, hidden_size=32, num_hidden_layers=1,
                           num_attention_heads=4, intermediate_size=32, hidden_dropout_prob=0,
                           attention_probs_dropout_prob=0)  # fmt: skip
    model = ElectraForPreTraining(config)
    REPLACED_TOKEN_DETECTION.prepare_model(model, ReplacedTokenOptions())
    assert model.generator.electra.embeddings is model.electra.embeddings
    labels = torch.full((1, 2, 6), -100)
    labels[0, :, 2] = torch.tensor([7, 12345])
    batch = {"input_ids": torch.tensor([[1, 9, 4, 8, 6, 2]]), "labels": labels}
    table = model.electra.embeddings.word_embeddings.weight
    gradients = []
    for wanted in (["generator"], ["discriminator"], ["generator", "discriminator"]):
        terms, _ = REPLACED_TOKEN_DETECTION.loss(model, batch, ReplacedTokenOptions())
        (gradient,) = torch.autograd.grad(sum(terms[name].sum for name in wanted), table)
        gradients.append(gradient)
    assert gradients[0].norm() > 0 and gradients[1].norm() > 0
    assert torch.allclose(gradients[0] + gradients[1], gradients[2], atol=1e-6)


def test_guesses_are_drawn_as_often_as_the_generator_thinks() -> None:
    """Of many numbers in a gap, each word comes out at its probability."""
    chance = np.random.default_rng(0)
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])

    class Generator(torch.nn.Module):
        def forward(self, input_ids, **_):
            logits = probabilities.log().expand(*input_ids.shape, 4)
            return type("Output", (), {"logits": logits})

    seen = []

    class Model(torch.nn.Module):
        generator = Generator()

        def forward(self, input_ids, **_):
            seen.append(input_ids)
            return type("Output", (), {"logits": torch.zeros(input_ids.shape)})

    count = 20_000
    labels = torch.stack([torch.zeros(count, dtype=torch.long), torch.from_numpy(chance.integers(NOISE, size=count))])
    batch = {"input_ids": torch.full((1, count), 3), "labels": labels[None]}
    terms, _ = REPLACED_TOKEN_DETECTION.loss(Model(), batch, ReplacedTokenOptions())
    share = torch.bincount(seen[0][0], minlength=4) / count
    assert torch.allclose(share, probabilities, atol=0.012)
    assert float(terms["discriminator"].sum) == pytest.approx(count * np.log(2), rel=1e-5)
    assert float(terms["generator"].sum) == pytest.approx(count * np.log(2), rel=1e-5)


def test_it_learns_to_tell_what_is_not_the_texts_own(run: lmtasks.Run) -> None:
    assert run.metrics["eval_generator_loss"] < 1.5
    right, wrong = (
        run.predict(f"the quick {word} fox jumps over the lazy dog. the quick brown fox jumps over the lazy dog.")
        for word in ("brown", "dog")
    )
    assert [token["word"].strip() for token in wrong][:4] == ["the", "quick", "dog", "fox"]
    assert wrong[2]["score"] > 3 * right[2]["score"], "after so few steps, no more than an inkling"


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", max_steps=6, save_steps=3)
    shutil.copytree(tmp_path / "whole", tmp_path / "out", ignore=shutil.ignore_patterns("checkpoint-6"))
    record = json.loads((tmp_path / "out/run.json").read_text())
    for name in ("model.safetensors", "generator/model.safetensors"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/run.json").write_text(json.dumps({**record, "status": "running"}))
    again = trained(tmp_path / "out", max_steps=6, save_steps=3, resume_from_checkpoint="auto")
    assert again.metrics["eval_loss"] == whole.metrics["eval_loss"]
    for name in ("model.safetensors", "generator/model.safetensors"):
        ours, theirs = load_file(tmp_path / "out" / name), load_file(tmp_path / "whole" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_special_tokens_are_never_hidden_and_something_always_is() -> None:
    from lmtasks.testing.specimens import tokenizer_for

    tokenizer = tokenizer_for(REPLACED_TOKEN_DETECTION)
    collate = REPLACED_TOKEN_DETECTION.collator(tokenizer, ReplacedTokenOptions(mlm_probability=1e-9), True)
    ids = np.array([tokenizer.cls_token_id, 40, 41, tokenizer.sep_token_id])
    for seed in range(20):
        batch = collate([{"input_ids": ids, "seed": (0, 0, seed)}])
        gaps = (batch["labels"][0, 0] != -100).nonzero()[:, 0].tolist()
        assert len(gaps) == 1 and gaps[0] in (1, 2)
        assert batch["input_ids"][0, gaps[0]] == tokenizer.mask_token_id
