"""Tokens that a user adds: each starts at the mean of its pieces, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.added_tokens import AddedTokens, add_to
from lmtasks.models.checkpoint import LoadedModel, load_model
from lmtasks.models.config import load_config
from lmtasks.runs.plan import Plan

KINDS = ("roberta", "bert", "distilbert", "modernbert", "gpt2", "llama")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["zygomorphic", " zygote", "Kwisatz Haderach"]


def added_to(folder: Path, wanted: Any) -> tuple[PreTrainedTokenizerBase, AddedTokens, LoadedModel]:
    """The tokenizer of a folder with more tokens, and the model that goes with it."""
    masked = AutoConfig.from_pretrained(folder).model_type not in ("gpt2", "llama")
    recipe = MASKED_LM if masked else CAUSAL_LM
    settings = ModelSettings(model_name_or_path=str(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = add_to(tokenizer, wanted, fresh=False)
    return tokenizer, added, load_model(settings, recipe, load_config(settings, recipe), tokenizer, 1, added)


def tables(model: Any) -> dict[str, torch.Tensor]:
    """What has a row for each token, by name."""
    state, rows = model.state_dict(), model.get_input_embeddings().weight.shape[0]
    found = {name: tensor for name, tensor in state.items() if tensor.shape[0] == rows and tensor.ndim <= 2}
    return {name: tensor for name, tensor in found.items() if "position" not in name}


def stirred(folder: Path, to: Path, model_class: Any, tied: bool) -> Path:
    """A model whose biases are no zeros, with a head of its own or not."""
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = tied
    model = model_class.from_config(config)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=chance)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_mean_of_the_rows_of_its_pieces_and_all_others_stay(
    kind: str, tied: bool, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    model_class = AutoModelForCausalLM if kind in ("gpt2", "llama") else AutoModelForMaskedLM
    folder = stirred(model_folders[kind], tmp_path / "model", model_class, tied)
    before = AutoTokenizer.from_pretrained(folder)
    pieces = [before(word, add_special_tokens=False)["input_ids"] for word in WORDS]
    assert min(map(len, pieces)) > 1
    old = tables(model_class.from_pretrained(folder))
    tokenizer, added, loaded = added_to(folder, WORDS)
    new = tables(loaded.model)
    assert new.keys() == old.keys()
    assert len(new) >= (1 if tied else 2)
    known = len(before)
    assert [*added.pieces.items()] == [(known + place, ids) for place, ids in enumerate(pieces)]
    beside = {"cls.predictions.bias", "lm_head.bias"} if not tied else set()  # of no use then
    for name in new.keys() - beside:
        table = new[name]
        assert torch.equal(table[:known], old[name]), name
        for row, ids in enumerate(pieces, known):
            expected = sum(old[name][piece].double() for piece in ids) / len(ids)
            torch.testing.assert_close(table[row].double(), expected, rtol=0, atol=1e-6)
    text = "the zygomorphic zygote of Kwisatz Haderach"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [row for row in ids if row >= known] == [known, known + 1, known + 2]
    loaded.model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    again, same = AutoTokenizer.from_pretrained(tmp_path / "out"), model_class.from_pretrained(tmp_path / "out")
    inputs = again(text, return_tensors="pt")["input_ids"]
    assert inputs[0].tolist() == tokenizer(text)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(same.eval()(inputs).logits, loaded.model.eval()(inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_it_is_so_in_models_with_an_encoder_and_a_decoder(
    kind: str, masked_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    shape = {"d_model": 32, "d_ff": 32, "num_layers": 1, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    shape |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 1}
    tied = {} if kind == "bart" else {"tie_word_embeddings": False}
    config = AutoConfig.for_model(kind, **shape, **tied, vocab_size=len(masked_tokenizer), pad_token_id=1)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if kind == "bart":
        model.final_logits_bias += torch.randn(model.final_logits_bias.shape)
    model.save_pretrained(tmp_path)
    masked_tokenizer.save_pretrained(tmp_path)
    recipe = lmtasks.Recipe(
        **{n: getattr(CAUSAL_LM, n) for n in ("options", "preprocess", "collator", "loss", "pipeline", "summary")},
        name="seq",
        model_class="transformers:AutoModelForSeq2SeqLM",
    )
    settings = ModelSettings(model_name_or_path=str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("zygote", add_special_tokens=False)["input_ids"]
    added = add_to(tokenizer, ["zygote"], fresh=False)
    grown = load_model(settings, recipe, load_config(settings, recipe), tokenizer, 1, added).model
    parts: list[Callable[[Any], torch.Tensor]] = [lambda m: m.get_input_embeddings().weight, lambda m: m.lm_head.weight]
    parts += [lambda m: m.final_logits_bias[0]] if kind == "bart" else []
    for part in parts:
        torch.testing.assert_close(part(grown)[-1], part(model)[ids].mean(0))
        assert torch.equal(part(grown)[:-1], part(model))


def test_rows_that_padding_left_over_are_used_and_none_is_added(
    causal_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = len(causal_tokenizer) + 48
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL, vocab_size=rows)).save_pretrained(tmp_path)
    causal_tokenizer.save_pretrained(tmp_path)
    old = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer, added, loaded = added_to(tmp_path, ["zygote"])
    (row,) = added.pieces
    assert (row, loaded.grown) == (len(tokenizer) - 1, 0)
    for new, before in (
        (loaded.model.model.embed_tokens.weight, old.model.embed_tokens.weight),
        (loaded.model.lm_head.weight, old.lm_head.weight),
    ):
        assert new.shape[0] == rows
        torch.testing.assert_close(new[row], before[added.pieces[row]].mean(0))
        assert torch.equal(new[row + 1 :], before[row + 1 :])


# --- the tokenizer's own treatment of text ---


def uncased() -> PreTrainedTokenizerFast:
    """Words in small letters; what it does not know is unknown."""
    words = ["[UNK]", "covid", "##s", "new", "york", "vi", "##rus"]
    backend = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def test_tokens_that_are_there_already_are_named_and_what_differs_by_capitals_only_is_one() -> None:
    tokenizer = uncased()
    added = add_to(tokenizer, ["COVID", "Virus", "virus", "##s", "New York"], fresh=False)
    assert added.pieces == {7: [5, 6], 8: [3, 4]}
    assert added.notes == (
        "2 tokens added to the vocabulary, each at the mean of its pieces: 'Virus', 'New York'",
        "2 tokens to add that are in the vocabulary already: 'COVID', '##s'",
        "1 tokens to add were there twice",
    )
    assert tokenizer("the VIRUS in new york")["input_ids"] == [0, 7, 0, 8]


def test_a_token_without_known_pieces_starts_at_the_mean_of_all_rows(tmp_path: Path) -> None:
    tokenizer = uncased()
    added = add_to(tokenizer, ["quux", "quux virus"], fresh=False)
    assert added.pieces == {7: [], 8: [5, 6]}
    assert "1 added tokens without known pieces, which start at the mean of all rows: 'quux'" in added.notes
    uncased().save_pretrained(tmp_path)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL, vocab_size=16)).save_pretrained(tmp_path)
    settings = ModelSettings(model_name_or_path=str(tmp_path))
    model = load_model(settings, CAUSAL_LM, load_config(settings, CAUSAL_LM), tokenizer, 1, added).model
    old = AutoModelForCausalLM.from_pretrained(tmp_path).lm_head.weight
    torch.testing.assert_close(model.lm_head.weight[7], old[:7].mean(0))


def test_what_can_be_no_token_is_refused(causal_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes("naïve\n".encode("latin-1"))
    (tmp_path / "text.txt").write_text("a long line " * 20)
    for wanted, message in (
        (str(tmp_path / "nothing.txt"), "cannot read --add_tokens '.*nothing.txt': No such file"),
        (str(tmp_path), "cannot read --add_tokens '.*': Is a directory"),
        (str(tmp_path / "empty.txt"), "has no tokens"),
        (str(tmp_path / "latin.txt"), "is not UTF-8 at byte 2"),
        (str(tmp_path / "text.txt"), "has 240 characters, a token at most 100"),
        ([str(tmp_path / "empty.txt"), "b"], "takes one file, or tokens; .*empty.txt' is a file"),
        ([], "names no tokens"),
        (["a", ""], "an empty text can be no token"),
        (["\ud83d"], r"'\\ud83d' is no text"),
        (["x<|endoftext|>"], "takes 'x<|endoftext|>' apart"),
    ):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(causal_tokenizer.backend_tokenizer.to_str()), eos_token="<|endoftext|>"
        )
        with pytest.raises(InputError, match=message.replace("|", r"\|")):
            add_to(tokenizer, wanted, fresh=False)
    with pytest.raises(InputError, match=r"removes '\\u200b' from every text"):
        add_to(uncased(), ["\u200b"], fresh=False)


def test_lines_of_a_file_are_tokens_with_their_spaces(
    causal_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"\xef\xbb\xbfzygote\r\n\r\n zygomorph\nzygote\n")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(causal_tokenizer.backend_tokenizer.to_str())
    )
    added = add_to(tokenizer, str(file), fresh=False)
    assert tokenizer.convert_ids_to_tokens([*added.pieces]) == ["zygote", " zygomorph"]
    assert added.notes[1:] == (
        "1 added tokens that begin or end with a space, which is part of them: ' zygomorph'",
        "1 tokens to add were there twice",
    )
    assert tokenizer.decode(tokenizer("the zygomorph and zygote")["input_ids"]) == "the zygomorph and zygote"


# --- runs ---


def test_a_run_with_more_tokens_is_planned_resumed_evaluated_and_used(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("zygote\nasynchronous\n")
    run = ["run", "causal-lm", "--model", model_folders["gpt2"], "--train_file", text_file, "--add_tokens", words]
    run += ["--output_dir", tmp_path / "out", "--block_size", 32, "--use_cpu", "--max_steps", 4, "--save_steps", 2]
    plan = lmtasks(*run, "--dry_run")
    assert plan.code == 0, plan.err
    assert "note       2 tokens added to the vocabulary, each at the mean of its pieces: 'zygote'" in plan.out
    assert "note       embeddings grown by 2 rows" in plan.out
    assert lmtasks(*run).code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["add_tokens"] == str(words)
    evaluated = lmtasks("evaluate", tmp_path / "out", "--json")
    assert json.loads(evaluated.out)["eval_loss"] == pytest.approx(record["metrics"]["eval_loss"], rel=1e-6)
    answer = lmtasks("predict", tmp_path / "out", "a zygote", "--max_new_tokens", 2)
    assert answer.code == 0, answer.err

    # As if it had been stopped after its second step: it goes on with the same tokens, and with no others.
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "run.json").write_text(json.dumps(record | {"status": "running"}))
    checkpoint = tmp_path / "out" / "checkpoints" / "checkpoint-2"
    words.write_text("zygote\nasynchronously\n")
    refused = lmtasks(*run, "--resume_from_checkpoint", checkpoint)
    assert (refused.code, "holds an unfinished run with other options" in refused.err) == (2, True)
    words.write_text("zygote\nasynchronous\n")
    resumed = lmtasks(*run, "--resume_from_checkpoint", checkpoint)
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_a_new_tokenizer_and_a_new_model_take_them_as_well(text_file: Path, tmp_path: Path) -> None:
    plan = lmtasks.run(
        "causal-lm",
        model_type="gpt2",
        config_overrides="n_layer=1,n_embd=32,n_head=2",
        train_tokenizer=320,
        train_file=[str(text_file)],
        add_tokens=["zygote", "the quick fox"],
        output_dir=str(tmp_path / "out"),
        dry_run=True,
    )
    assert isinstance(plan, Plan)
    assert plan.vocabulary == 322
    assert plan.notes[0] == (
        "2 tokens added to the vocabulary, at random, as all rows of a new model: 'zygote', 'the quick fox'"
    )


def test_tokens_can_be_added_for_an_evaluation_too(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text(" statement\n expression\n object is\n")
    given = ["evaluate", model_folders["gpt2"], "--validation_file", text_file, "--block_size", 32, "--json"]
    plain, more = (json.loads(lmtasks(*given, *extra).out) for extra in ((), ("--add_tokens", words)))
    assert more["eval_targets"] < plain["eval_targets"]
    assert lmtasks(*given, "--add_tokens", tmp_path / "none.txt").code == 2
