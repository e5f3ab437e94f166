"""Who sees whom is what the order says, proved on the model; and the model learns."""

import numpy as np
import pytest
import torch
from lmtasks_permutation_lm import PERMUTATION_LM, PermutationLMOptions, ordered
from transformers import AutoTokenizer, XLNetLMHeadModel

import lmtasks
from lmtasks.testing import check_recipe

TEXT = "the quick brown fox jumps over the lazy dog. " * 200


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(
        PERMUTATION_LM,
        unmoved=["*.seg_embed", "*.r_s_bias"],  # segments of a text are for other tasks
        skip={"texts-share-a-batch": "XLNet of transformers leaves the attention mask out when it generates"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return lmtasks.run(
        "permutation-lm",
        model_type="xlnet",
        config_overrides="n_layer=2,d_model=64,n_head=4,d_inner=128,dropout=0",
        train_tokenizer=320,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=32,
        learning_rate=5e-3,
        num_train_epochs=10,
        per_device_train_batch_size=8,
        output_dir=str(tmp_path_factory.mktemp("xlnet") / "out"),
    )


def test_share_and_stretches_are_those_asked_for() -> None:
    options = PermutationLMOptions(max_span_length=3)
    ids = np.arange(100, 356)
    share = []
    for number in range(200):
        order, places = ordered({"input_ids": ids, "seed": (0, 0, number)}, options, [])
        assert sorted(order[places].tolist()) == list(range(1, len(places) + 1)), "every target has its place"
        assert not order[np.setdiff1d(np.arange(256), places)].any()
        share.append(len(places) / len(ids))
    assert np.mean(share) == pytest.approx(1 / 6, abs=0.02)


def test_a_target_feels_what_comes_before_it_in_the_order_and_nothing_else(run: lmtasks.Run) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run.output_dir)
    model = XLNetLMHeadModel.from_pretrained(run.output_dir).eval()
    options = PermutationLMOptions(block_size=16)
    example = {"input_ids": np.arange(40, 56), "seed": (0, 0, 1)}
    order, places = ordered(example, options, tokenizer.all_special_ids)
    batch = PERMUTATION_LM.collator(tokenizer, options, False)([example])
    assert batch["labels"][0].tolist() == example["input_ids"][places].tolist()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        before = model(**inputs).logits[0]
        for changed in range(16):
            other = inputs["input_ids"].clone()
            other[0, changed] = 99
            moved = (model(**{**inputs, "input_ids": other}).logits[0] - before).abs().amax(-1) > 1e-5
            assert moved.tolist() == [bool(order[changed] < order[place]) for place in places]


def test_it_learns(run: lmtasks.Run) -> None:
    assert run.metrics["accuracy"] > 0.8


def test_it_continues_a_text(run: lmtasks.Run) -> None:
    answer = run.predict("the quick brown", max_new_tokens=6, do_sample=False)
    assert answer[0]["generated_text"].startswith("the quick brown")


def test_documents_cannot_be_isolated(tmp_path) -> None:
    with pytest.raises(lmtasks.InputError, match="permutation-lm has masks of its own"):
        lmtasks.run("permutation-lm", train_dataset=[TEXT] * 4, isolate_documents=True, output_dir=str(tmp_path / "o"))
