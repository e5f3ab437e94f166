"""The three losses are those written down by hand here; another teacher makes another student."""

import math
from pathlib import Path

import pytest
import torch
import transformers
from lmtasks_distillation import lmtasks_recipes

import lmtasks
from lmtasks.testing import check_recipe
from lmtasks.testing.specimens import tokenizer_for

MASKED, CAUSAL = lmtasks_recipes()
TEXT = "the quick brown fox jumps over the lazy dog. " * 200
TINY = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 66, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers that know nothing, and each something else; a student; all with one tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name in ("train.txt", "held.txt"):
        (root / name).write_text(TEXT)
    tokenizer = tokenizer_for(MASKED)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, initializer_range=0.3, **TINY
    )
    for seed, name in enumerate(("teacher", "other")):
        torch.manual_seed(seed)
        transformers.RobertaForMaskedLM(config).save_pretrained(root / name)
    config.num_hidden_layers, config.initializer_range = 1, 0.02
    transformers.RobertaForMaskedLM(config).save_pretrained(root / "student")
    for name in ("teacher", "other", "student"):
        tokenizer.save_pretrained(root / name)
    return root


def texts(folders: Path) -> dict[str, str]:
    return {"train_file": str(folders / "train.txt"), "validation_file": str(folders / "held.txt")}


def student(folders: Path, out: Path, teacher: str = "teacher", **more):
    values = {"block_size": 32, "max_steps": 20, "learning_rate": 1e-2, "per_device_train_batch_size": 8, **more}
    values |= {**texts(folders), "save_strategy": "no"}
    values = {"model_name_or_path": str(folders / "student"), "teacher": str(folders / teacher), **values}
    return lmtasks.run("distilled-masked-lm", output_dir=str(out), **values)


def by_hand(ahead):
    """The three terms, token by token, in plain sums."""

    def oracle(model, batch):
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        inputs = {"input_ids": batch["input_ids"], "attention_mask": mask, "output_hidden_states": True}
        ours = model(**inputs)
        with torch.no_grad():
            theirs = model.teacher(**inputs)
        text = soft = apart = targets = 0
        for row, place in mask.nonzero().tolist():
            if place >= ahead and (label := int(batch["labels"][row, place])) != -100:
                text = text - ours.logits[row, place - ahead].log_softmax(0)[label]
                targets += 1
            student, teacher = (outputs.logits[row, place] / 2.0 for outputs in (ours, theirs))
            for_words = teacher.softmax(0) * (teacher.log_softmax(0) - student.log_softmax(0))
            soft = soft + 4.0 * for_words.sum()
            one, other = ours.hidden_states[-1][row, place], theirs.hidden_states[-1][row, place]
            apart = apart + 1 - one @ other / (one.norm() * other.norm())
        return {"text": (text, torch.tensor(targets)), "teacher": (soft, mask.sum()), "states": (apart, mask.sum())}

    return oracle


@pytest.mark.parametrize(("recipe", "ahead"), [(MASKED, 0), (CAUSAL, 1)], ids=["masked", "causal"])
def test_they_keep_the_contract_of_a_recipe(recipe, ahead, tmp_path: Path) -> None:
    kind = "gpt2" if ahead else "roberta"
    tokenizer = tokenizer_for(recipe)
    shape = TINY if kind == "roberta" else {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64,
                                            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
    known = {"pad_token_id": tokenizer.pad_token_id} if kind == "roberta" else {}
    config = transformers.AutoConfig.for_model(kind, **shape, **known, vocab_size=len(tokenizer), initializer_range=0.2)
    auto = transformers.AutoModelForCausalLM if ahead else transformers.AutoModelForMaskedLM
    auto.from_config(config).save_pretrained(tmp_path)
    oracle = by_hand(ahead)
    check_recipe(recipe, model=config, tokenizer=tokenizer, options={"teacher": str(tmp_path)}, oracle=oracle)


def test_another_teacher_makes_another_student(folders: Path, tmp_path: Path) -> None:
    runs = {name: student(folders, tmp_path / name, name) for name in ("teacher", "other")}
    logits = {}
    for name in (*runs, "student"):
        place = tmp_path / name if name in runs else folders / name
        for teacher in ("teacher", "other"):
            ids = torch.arange(20, 40)[None]
            with torch.no_grad():
                said = lmtasks.from_pretrained("transformers:AutoModelForMaskedLM", str(place))(ids).logits
                right = lmtasks.from_pretrained("transformers:AutoModelForMaskedLM", str(folders / teacher))(ids).logits
            logits[name, teacher] = float(
                torch.nn.functional.kl_div(
                    said.log_softmax(-1), right.log_softmax(-1), log_target=True, reduction="sum"
                )
            )
    for name in runs:
        strange = "other" if name == "teacher" else "teacher"
        assert logits[name, name] < logits["student", name], "it has come nearer to its own teacher"
        assert logits[name, name] < logits[name, strange], "and is nearer to it than to another"


def test_the_teacher_is_neither_trained_nor_saved(folders: Path, tmp_path: Path) -> None:
    before = (folders / "teacher/model.safetensors").read_bytes()
    done = student(folders, tmp_path / "out")
    assert (folders / "teacher/model.safetensors").read_bytes() == before
    assert not [path for path in (tmp_path / "out").rglob("*") if "teacher" in path.name]
    assert lmtasks.evaluate(tmp_path / "out")["eval_teacher_loss"] == pytest.approx(done.metrics["eval_teacher_loss"])
    weighted = sum(
        weight * done.metrics[f"eval_{name}_loss"] for name, weight in (("text", 2), ("teacher", 5), ("states", 1))
    )
    assert done.metrics["eval_loss"] == pytest.approx(weighted, rel=1e-6)
    assert done.metrics["perplexity"] == pytest.approx(math.exp(done.metrics["eval_text_loss"]), rel=1e-6)


def test_what_does_not_fit_is_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(lmtasks.InputError, match="distilled-masked-lm needs a teacher beside the model"):
        lmtasks.run(
            "distilled-masked-lm",
            model_name_or_path=str(folders / "student"),
            **texts(folders),
            block_size=32,
            output_dir=str(tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()
    wide = transformers.AutoConfig.from_pretrained(folders / "teacher")
    wide.hidden_size = 64
    transformers.RobertaForMaskedLM(wide).save_pretrained(folders / "wide")
    with pytest.raises(lmtasks.InputError, match="hidden_size is 32 here, 64 in"):
        student(folders, tmp_path / "out", "wide")
    done = student(folders, tmp_path / "out", "wide", states_weight=0.0, max_steps=1)
    assert done.metrics["eval_states_loss"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(lmtasks.InputError, match="nowhere"):
        student(folders, tmp_path / "no", "nowhere")


def test_a_student_begins_as_layers_of_the_model_that_is_named(folders: Path, tmp_path: Path) -> None:
    """Of the four layers of the teacher the first and the last stay; the run folder is a model of two."""
    cut = {"model_name_or_path": str(folders / "teacher"), "keep_layers": 2, "learning_rate": 1e-9, "max_steps": 1}
    done = student(folders, tmp_path / "out", "teacher", **cut)
    model, teacher = (
        transformers.AutoModelForMaskedLM.from_pretrained(place) for place in (tmp_path / "out", folders / "teacher")
    )
    layers, theirs = model.roberta.encoder.layer, teacher.roberta.encoder.layer
    assert model.config.num_hidden_layers == len(layers) == 2
    for place, origin in ((0, 0), (1, 3)):
        for (name, ours), right in zip(layers[place].named_parameters(), theirs[origin].parameters(), strict=True):
            assert torch.allclose(ours, right, atol=1e-6), name
    assert done.metrics["eval_teacher_loss"] > 0, "the teacher has all of its layers"
    again = lmtasks.evaluate(tmp_path / "out")
    assert again["eval_loss"] == pytest.approx(done.metrics["eval_loss"], rel=1e-6)
    with pytest.raises(lmtasks.InputError, match="a model of 4 layers, roberta, cannot become one of 9"):
        student(folders, tmp_path / "no", "teacher", **{**cut, "keep_layers": 9})
    assert not (tmp_path / "no").exists()
