"""Prediction: the pipeline of the recipe, for one text or many, of a run or any model."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast
from words_tokenizer import words_tokenizer

import lmtasks
from lmtasks import predict, progress
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.inference.fitting_recipe import recipe_of
from lmtasks.inference.predictor import Predictor
from lmtasks.models.agreement import agree
from lmtasks.registry.catalog import load_catalog

CATALOG = load_catalog()
GREEDY = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(scope="module")
def filler(model_folders: dict[str, Path]) -> Predictor:
    return Predictor(str(model_folders["roberta"]), MASKED_LM)


@pytest.fixture(scope="module")
def teller(model_folders: dict[str, Path]) -> Predictor:
    return Predictor(str(model_folders["gpt2"]), CAUSAL_LM)


def tokens(guesses: list[dict[str, Any]]) -> list[int]:
    return [guess["token"] for guess in guesses]


# --- masks ---


def test_guesses_are_those_of_the_model(filler: Predictor, model_folders: dict[str, Path]) -> None:
    model = AutoModelForMaskedLM.from_pretrained(model_folders["roberta"])
    inputs = filler.tokenizer("the <mask> is", return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(filler.tokenizer.mask_token_id)
    best = model(**inputs).logits[0, place].softmax(-1).topk(3)
    guesses = filler.predict("the <mask> is", top_k=3)
    assert tokens(guesses) == best.indices.tolist()
    assert [guess["score"] for guess in guesses] == pytest.approx(best.values.tolist(), rel=1e-5)


def test_either_common_mask_is_understood(filler: Predictor) -> None:
    assert filler.predict("the [MASK] is", top_k=2) == filler.predict("the <mask> is", top_k=2)


def test_model_with_another_mask_understands_them_and_its_own(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["bert"], tmp_path / "m")
    tokenizer = words_tokenizer(pad_token="[PAD]", mask_token="[HIDE]", unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path / "m")
    predictor = Predictor(str(tmp_path / "m"), MASKED_LM)
    own, angle, square = (predictor.predict(f"1 {mask} 3", top_k=3) for mask in ("[HIDE]", "<mask>", "[MASK]"))
    assert own == angle == square


def test_several_masks_give_a_list_for_each(filler: Predictor) -> None:
    guesses = filler.predict("<mask> and [MASK]", top_k=2)
    assert [len(mask) for mask in guesses] == [2, 2]


def test_text_without_a_mask_is_bad_input(filler: Predictor) -> None:
    with pytest.raises(InputError, match="fill-mask: ") as caught:
        filler.predict("nothing hidden")
    assert "<mask>" in caught.value.hint
    with pytest.raises(InputError, match="fill-mask: "):
        filler.predict(["the <mask>", "nothing hidden"])


# --- one and many ---


def test_one_text_gives_the_pipelines_own_structure(filler: Predictor, teller: Predictor) -> None:
    assert [set(guess) for guess in filler.predict("<mask>", top_k=1)] == [{"score", "token", "token_str", "sequence"}]
    assert [set(choice) for choice in teller.predict("a", **GREEDY)] == [{"generated_text"}]


def test_list_of_one_gives_a_list_of_one(filler: Predictor, teller: Predictor) -> None:
    assert filler.predict(["the <mask>"], top_k=2) == [filler.predict("the <mask>", top_k=2)]
    assert teller.predict(["the list"], **GREEDY) == [teller.predict("the list", **GREEDY)]


TEXTS = ["a", "the list of strings", "return", "if the object is a list then it", "x"]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batched_continuations_are_those_of_the_texts_one_by_one(teller: Predictor, batch_size: int) -> None:
    assert teller.predict(TEXTS, batch_size=batch_size, **GREEDY) == [teller.predict(text, **GREEDY) for text in TEXTS]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batched_guesses_are_those_of_the_texts_one_by_one(filler: Predictor, batch_size: int) -> None:
    texts = [f"{text} <mask>" for text in TEXTS]
    for together, alone in zip(
        filler.predict(texts, batch_size=batch_size, top_k=3),
        [filler.predict(text, top_k=3) for text in texts],
        strict=True,
    ):
        assert tokens(together) == tokens(alone)
        assert [guess["score"] for guess in together] == pytest.approx([guess["score"] for guess in alone], rel=1e-4)


ENCODERS = ["roberta", "bert", "distilbert", "modernbert", "electra", "bart"]
DECODERS = ["gpt2", "llama"]


def mixed(mask: str = "") -> list[str]:
    """Texts of 1 to some 50 tokens, in no order, one of them twice, all told apart by their first word."""
    texts = [
        " ".join([f"{number}", *["list"] * length, mask]) for number, length in enumerate((1, 30, 0, 9, 22, 2, 14))
    ]
    return [*texts, texts[3]]


def scores(output: list[Any]) -> list[float]:
    """All scores of one text, mask by mask."""
    return (
        [guess["score"] for guess in output]
        if isinstance(output[0], dict)
        else [score for mask in output for score in scores(mask)]
    )


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("kind", ENCODERS)
def test_many_texts_are_guessed_as_one_by_one(
    kind: str, batch_size: int, all_model_folders: dict[str, Path], tmp_path: Path
) -> None:
    predictor = Predictor(str(all_model_folders[kind]), MASKED_LM)
    # A fresh model guesses nearly the same everywhere; a louder one tells texts and places apart.
    louder(predictor)
    texts = [*mixed("<mask>"), "<mask> a <mask> is <mask>", "b [MASK] list list list list <mask>"]
    alone = [predictor.predict(text, top_k=4) for text in texts]
    together = predictor.predict(texts, top_k=4, batch_size=batch_size)
    for one, same in zip(alone, together, strict=True):
        assert scores(same) == pytest.approx(scores(one), rel=1e-5)
        assert json.dumps(without_scores(same)) == json.dumps(without_scores(one))
    assert len({round(scores(one)[0], 6) for one in alone}) == len(texts) - 1
    assert predictor.one_by_one is (None if batch_size == 1 else False)


def louder(predictor: Predictor) -> None:
    with torch.no_grad():
        for parameter in predictor.pipeline.model.parameters():
            if parameter.ndim > 1:
                parameter *= 4


def without_scores(output: Any) -> Any:
    if isinstance(output, list):
        return [without_scores(each) for each in output]
    return {name: value for name, value in output.items() if name != "score"}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("kind", DECODERS)
def test_many_texts_are_continued_as_one_by_one(kind: str, batch_size: int, model_folders: dict[str, Path]) -> None:
    predictor = Predictor(str(model_folders[kind]), CAUSAL_LM)
    louder(predictor)
    arguments = {**GREEDY, "return_full_text": False}
    alone = [predictor.predict(text, **arguments) for text in mixed()]
    assert predictor.predict(mixed(), batch_size=batch_size, **arguments) == alone
    assert len({choice["generated_text"] for (choice,) in alone}) > 2
    assert predictor.one_by_one is (None if batch_size == 1 else False)


DISTURBED = {
    "fnet": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 66},
    "bart": {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "git": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vision_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32},
    },
}
"""Models that padding disturbs: no mask; positions from the left; a mask left out, or places lost, when generating."""


@pytest.fixture(params=DISTURBED)
def disturbed(
    request: pytest.FixtureRequest, masked_tokenizer: Any, causal_tokenizer: Any, tmp_path: Path
) -> tuple[Predictor, list[str], dict[str, Any]]:
    """A predictor of each kind, texts, and arguments."""
    masked = request.param == "fnet"
    tokenizer = masked_tokenizer if masked else causal_tokenizer
    ids = {f"{role}_token_id": tokenizer.pad_token_id for role in ("pad", "bos", "eos", "decoder_start")}
    config = AutoConfig.for_model(request.param, **DISTURBED[request.param], **ids, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    predictor = Predictor(str(tmp_path), MASKED_LM if masked else CAUSAL_LM)
    for parameter in predictor.pipeline.model.parameters():
        if parameter.ndim > 1:  # a fresh model goes on with its last token, whatever was before
            torch.nn.init.normal_(parameter, std=0.3)
    return predictor, mixed("<mask>" if masked else ""), {"top_k": 3} if masked else {**GREEDY, "return_tensors": True}


def test_a_model_that_padding_disturbs_answers_one_by_one(
    disturbed: tuple[Predictor, list[str], dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    predictor, texts, arguments = disturbed
    alone = [predictor.predict(text, **arguments) for text in texts]
    assert predictor.one_by_one is None
    assert predictor.predict(texts, **arguments) == alone
    assert predictor.one_by_one is True
    assert capfd.readouterr().err.count("the texts are answered one by one") == 1
    predictor.one_by_one = False
    assert predictor.predict(texts, **arguments) != alone, "this is what it is good for"


def rows_of(predictor: Predictor) -> list[int]:
    """How many texts the pipeline takes at once, written down from now on."""
    rows: list[int] = []
    forward = predictor.pipeline.forward

    def watched(inputs: Any, **parameters: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        return forward(inputs, **parameters)

    predictor.pipeline.forward = watched
    return rows


def test_texts_of_one_length_are_not_padded_and_share_a_batch(
    disturbed: tuple[Predictor, list[str], dict[str, Any]],
) -> None:
    predictor, texts, arguments = disturbed
    predictor.predict([texts[3]] * 3, **arguments)
    rows = rows_of(predictor)
    predictor.predict([texts[3]] * 3, **arguments)
    assert set(rows) == {3}
    assert predictor.one_by_one is None
    predictor.predict(texts, **arguments)
    rows.clear()
    predictor.predict(texts, **arguments)
    assert set(rows) == {1}


@pytest.mark.parametrize(("dtype", "disturbed"), [(torch.float32, True), (torch.bfloat16, False)])
def test_what_a_precision_cannot_hold_is_no_disturbance(
    dtype: torch.dtype, disturbed: bool, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(model_folders["llama"], tmp_path / "m")
    AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=dtype).save_pretrained(tmp_path / "m")
    predictor = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    assert predictor.pipeline.model.dtype is dtype

    def one_in_a_hundred(module: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor:
        return states * (1.01 if len(states) > 1 else 1)  # what eight layers of products in bfloat16 come to

    predictor.pipeline.model.lm_head.register_forward_hook(one_in_a_hundred)
    predictor.predict(mixed(), **GREEDY)
    assert predictor.one_by_one is disturbed


@pytest.mark.parametrize(
    ("apart", "eps", "same"),
    [(0, 1e-7, True), (1e-5, 1e-7, True), (0.01, 1e-7, False), (0.01, 8e-3, True), (0.3, 8e-3, False)],
)
def test_half_of_the_digits_have_to_agree(apart: float, eps: float, same: bool) -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3 + 5
    others = logits + 3 * apart * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    tolerance: dict[str, Any] = {"spread": math.sqrt(eps), "overall": True}
    assert agree(others, logits, **tolerance) is same
    nothing = torch.full_like(logits, torch.nan)
    assert agree(torch.cat([others, logits]), torch.cat([logits, nothing]), **tolerance) is same
    assert agree(logits, nothing, **tolerance) is True


def test_a_model_that_generates_in_its_own_way_is_left_to_it(teller: Predictor) -> None:
    class Own(type(teller.pipeline.model)):  # type: ignore[misc]
        def generate(self, inputs: Any = None, **arguments: Any) -> Any:
            assert "output_logits" not in arguments
            return super().generate(inputs, **arguments)

    model = teller.pipeline.model
    usual, teller.one_by_one = type(model), None
    try:
        model.__class__ = Own
        assert teller.predict(TEXTS, **GREEDY) == [teller.predict(text, **GREEDY) for text in TEXTS]
        assert teller.one_by_one is False
    finally:
        model.__class__ = usual


def test_a_model_that_gives_several_answers_by_itself_can_still_be_measured(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(model_folders["gpt2"], tmp_path / "m")
    settings = {"do_sample": True, "num_return_sequences": 3, "temperature": 0.7, "max_new_tokens": 2}
    transformers.GenerationConfig(**settings).save_pretrained(tmp_path / "m")
    predictor = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    assert [len(choices) for choices in predictor.predict(TEXTS)] == [3] * len(TEXTS)
    assert predictor.one_by_one is False


def test_many_texts_take_the_arguments_of_one(filler: Predictor, teller: Predictor) -> None:
    texts = mixed("<mask>")
    alone = [filler.predict(text, targets=["a", "b"]) for text in texts]
    for one, same in zip(alone, filler.predict(texts, targets=["a", "b"]), strict=True):
        assert sorted(tokens(same)) == sorted(tokens(one)) == sorted(filler.tokenizer.convert_tokens_to_ids(["a", "b"]))
        assert scores(same) == pytest.approx(scores(one), rel=1e-5)
    arguments = {**GREEDY, "prefix": "the object ", "num_return_sequences": 2, "num_beams": 2}
    short = [text for text in mixed() if len(text) < 80]  # the prefix takes its share of the positions
    assert teller.predict(short, **arguments) == [teller.predict(text, **arguments) for text in short]


def test_no_texts_give_no_answers(filler: Predictor, teller: Predictor) -> None:
    assert filler.predict([]) == []
    assert teller.predict([], **GREEDY) == []


@pytest.fixture
def watched(model_folders: dict[str, Path]) -> tuple[Predictor, list[torch.Tensor]]:
    """A predictor, and the ids of every batch that its model gets. The first two are the test of its head."""
    predictor = Predictor(str(model_folders["roberta"]), MASKED_LM)
    batches: list[torch.Tensor] = []
    embeddings = predictor.pipeline.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0]))
    return predictor, batches


def test_texts_of_similar_length_share_a_batch(watched: tuple[Predictor, list[torch.Tensor]]) -> None:
    predictor, batches = watched
    lengths = [1, 30, 2, 29, 3, 28, 4, 27, 5, 26, 6, 25, 7, 24, 8]
    texts = [f"{'x ' * length}<mask>" for length in lengths]
    predictor.predict(texts, batch_size=3)
    batches.clear()
    predictor.predict(texts, batch_size=3)
    counts = sorted((len(predictor.tokenizer(text)["input_ids"]) for text in texts), reverse=True)
    best = [counts[start] for start in range(0, len(counts), 3)]
    assert sorted((ids.shape[1] for ids in batches), reverse=True) == best
    assert all(len(ids) == 3 for ids in batches)
    assert batches[0].shape[1] == counts[0], "the longest first"


def test_a_short_last_batch_shifts_no_other(watched: tuple[Predictor, list[torch.Tensor]]) -> None:
    predictor, batches = watched
    # Four lengths, three texts of each, and one text that is the shortest.
    texts = ["<mask>", *(f"{'x ' * (length % 4 * 7 + 1)}<mask>" for length in range(12))]
    predictor.predict(texts, batch_size=3)
    batches.clear()
    predictor.predict(texts, batch_size=3)
    assert [len(ids) for ids in batches] == [3, 3, 3, 3, 1]
    assert not any((ids == predictor.tokenizer.pad_token_id).any() for ids in batches)


def test_a_bad_text_fails_before_any_is_answered(watched: tuple[Predictor, list[torch.Tensor]]) -> None:
    predictor, batches = watched
    with pytest.raises(InputError, match="fill-mask: "):
        predictor.predict([*mixed("<mask>"), "nothing hidden"], batch_size=1)
    assert batches == []


def test_the_head_of_a_batch_runs_on_its_masks_only(watched: tuple[Predictor, list[torch.Tensor]]) -> None:
    predictor, _ = watched
    texts = [*mixed("<mask>"), "<mask> and <mask>"]
    predictor.predict(texts)
    rows: list[int] = []
    predictor.pipeline.model.lm_head.decoder.register_forward_pre_hook(
        lambda module, inputs: rows.append(inputs[0].shape[:-1].numel())
    )
    predictor.predict(texts, batch_size=len(texts))
    assert rows == [len(texts) + 1]


def test_a_model_whose_head_cannot_run_alone_answers_the_same(
    filler: Predictor, model_folders: dict[str, Path]
) -> None:
    other = Predictor(str(model_folders["roberta"]), MASKED_LM)
    other.pipeline.model.base_model_prefix = ""
    other.pipeline.model.children = lambda: iter(())
    answers = other.predict(mixed("<mask>"), top_k=3)
    assert not hasattr(other.pipeline.model, "lmtasks_head")
    for one, same in zip(filler.predict(mixed("<mask>"), top_k=3), answers, strict=True):
        assert tokens(same) == tokens(one)
        assert scores(same) == pytest.approx(scores(one), rel=1e-5)


def test_predicting_makes_no_gradients(filler: Predictor) -> None:
    made: list[bool] = []
    hook = filler.pipeline.model.lm_head.register_forward_hook(
        lambda module, inputs, out: made.append(out.requires_grad)
    )
    filler.predict(mixed("<mask>"))
    filler.predict("<mask>")
    hook.remove()
    assert made
    assert not any(made)


@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2"])
def test_too_long_a_text_is_bad_input_alone_and_among_others(kind: str, model_folders: dict[str, Path]) -> None:
    recipe, arguments = (CAUSAL_LM, GREEDY) if kind == "gpt2" else (MASKED_LM, {})
    predictor = Predictor(str(model_folders[kind]), recipe)
    long = "<mask> " + "list " * 200
    for texts in (long, ["a <mask>", long]):
        with pytest.raises(InputError, match="longer than the model can take"):
            predictor.predict(texts, **arguments)
    assert len(predictor.predict(["a <mask>", "b <mask>"], **arguments)) == 2, "it is as good as before"


def test_long_lists_tell_how_far_they_are(
    filler: Predictor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    filler.predict(mixed("<mask>"))
    out, err = capfd.readouterr()
    assert out == ""
    told = [line.split(",")[0] for line in err.splitlines()]
    assert [line for line in told if re.fullmatch("tokenising: [1-8]/8 texts", line)]
    assert [line for line in told if re.fullmatch("predicting: [1-8]/8 texts", line)]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_texts_is_bad_input(batch_size: int, filler: Predictor) -> None:
    with pytest.raises(InputError, match=f"batch_size is {batch_size}"):
        filler.predict(["<mask>", "a <mask>"], batch_size=batch_size)


def test_llama_without_padding_token_continues_batches(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["llama"], tmp_path / "m")
    words_tokenizer("<s> $A", bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path / "m")
    predictor = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    texts = ["1 2 3 4", "5"]
    assert predictor.predict(texts, **GREEDY) == [predictor.predict(text, **GREEDY) for text in texts]


def test_continuation_is_the_greedy_one_of_the_model(teller: Predictor, model_folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    ids = teller.tokenizer("the list", return_tensors="pt")["input_ids"]
    expected = model.generate(ids, **GREEDY, pad_token_id=0)[0]
    (choice,) = teller.predict("the list", **GREEDY)
    assert choice["generated_text"] == teller.tokenizer.decode(expected, skip_special_tokens=True)


# --- arguments ---


def test_unknown_argument_names_the_nearest(filler: Predictor, teller: Predictor) -> None:
    with pytest.raises(InputError, match="fill-mask takes no 'topk', did you mean 'top_k'"):
        filler.predict("<mask>", topk=3)
    with pytest.raises(InputError, match="text-generation takes no 'max_new_token', did you mean 'max_new_tokens'"):
        teller.predict("a", max_new_token=3)


def test_arguments_of_generation_are_none_of_a_filler(filler: Predictor) -> None:
    with pytest.raises(InputError, match="fill-mask takes no 'max_new_tokens'"):
        filler.predict("<mask>", max_new_tokens=3)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_bad_input(text: str, teller: Predictor) -> None:
    with pytest.raises(InputError, match="there is an empty text"):
        teller.predict(text)
    with pytest.raises(InputError, match="there is an empty text"):
        teller.predict(["fine", text])


def test_argument_out_of_range_is_bad_input(teller: Predictor) -> None:
    with pytest.raises(InputError, match=r"--temperature cannot be -1\.0: it must be a number above 0"):
        teller.predict("a", temperature=-1.0, do_sample=True, max_new_tokens=2)


# --- which recipe ---


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [("roberta", "masked-lm"), ("modernbert", "masked-lm"), ("gpt2", "causal-lm"), ("llama", "causal-lm")],
)
def test_plain_model_folder_gets_the_recipe_that_fits_its_class(
    kind: str, recipe: str, model_folders: dict[str, Path]
) -> None:
    assert recipe_of(str(model_folders[kind]), CATALOG).name == recipe


def test_run_remembers_its_recipe(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["roberta"], tmp_path / "m")
    (tmp_path / "m" / "run.json").write_text(json.dumps({"recipe": "causal-lm", "status": "done"}))
    assert recipe_of(str(tmp_path / "m"), CATALOG).name == "causal-lm"
    assert recipe_of(str(tmp_path / "m"), CATALOG, "masked-lm").name == "masked-lm"


def test_an_unfinished_run_has_no_model_to_use(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["roberta"], tmp_path / "m")
    (tmp_path / "m" / "run.json").write_text(json.dumps({"recipe": "masked-lm", "status": "running"}))
    with pytest.raises(InputError, match="is not finished"):
        recipe_of(str(tmp_path / "m"), CATALOG)


def test_pickled_weights_are_not_loaded(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["roberta"], tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        predict(tmp_path / "m", "a <mask>")


def test_recipe_of_a_run_that_is_not_installed_is_named(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["roberta"], tmp_path / "m")
    (tmp_path / "m" / "run.json").write_text(json.dumps({"recipe": "masked-words", "status": "done"}))
    with pytest.raises(InputError, match="unknown recipe 'masked-words'"):
        recipe_of(str(tmp_path / "m"), CATALOG)


def test_model_that_no_recipe_fits_is_bad_input(tmp_path: Path) -> None:
    config = AutoConfig.for_model("vit")
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no recipe fits '.*' \(ViTForImageClassification\)") as caught:
        recipe_of(str(tmp_path), CATALOG)
    assert caught.value.hint == f"name one with --recipe: {', '.join(CATALOG.recipes)}"


@pytest.mark.parametrize("ask", [predict, lmtasks.score, lmtasks.merge], ids=lambda ask: str(ask.__name__))
def test_an_adapter_that_is_asked_as_what_its_model_is_not_is_bad_input(
    ask: Any, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    config = {"base_model_name_or_path": str(model_folders["gpt2"]), "peft_type": "LORA"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"masked-lm is not for '.*': gpt2 has no such model class") as caught:
        ask(str(tmp_path / "a"), str(tmp_path / "out"), recipe="masked-lm")
    assert caught.value.hint == "--recipe causal-lm"


def test_missing_model_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"no model folder '\./nowhere'"):
        predict("./nowhere", "text")


# --- in all ---


def test_predict_finds_out_everything_itself(model_folders: dict[str, Path], filler: Predictor) -> None:
    answer = predict(model_folders["roberta"], "the <mask>", top_k=2)
    assert answer == filler.predict("the <mask>", top_k=2)


def test_predict_says_what_transformers_pipeline_says(model_folders: dict[str, Path], teller: Predictor) -> None:
    pipeline = transformers.pipeline("text-generation", model=str(model_folders["gpt2"]))
    assert pipeline("the list", **GREEDY) == teller.predict("the list", **GREEDY)


def test_tokenizer_in_the_folder_is_left_as_it_is(model_folders: dict[str, Path], teller: Predictor) -> None:
    before = {path.name: path.read_bytes() for path in model_folders["gpt2"].iterdir()}
    Predictor(str(model_folders["gpt2"]), CAUSAL_LM).predict(TEXTS, **GREEDY)
    assert {path.name: path.read_bytes() for path in model_folders["gpt2"].iterdir()} == before


def test_a_continuation_keeps_the_space_that_it_begins_with(tmp_path: Path) -> None:
    """SentencePiece's decoders drop the first space of what they are given."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    words = ["the cat sat on the mat and the dog sat on the log"] * 20
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=80, special_tokens=["</s>"], show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape, vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["the cat", "the dog sat on", "the mat and the log"]
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        whole = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0], skip_special_tokens=True)
        assert predict(tmp_path, text, max_new_tokens=8, do_sample=False)[0]["generated_text"] == whole


@pytest.mark.parametrize("recipe", [None, "masked-lm"])
def test_a_run_that_is_not_done_is_not_used(recipe: str | None, model_folders: dict[str, Path], tmp_path: Path) -> None:
    """Also where its recipe is named: there may be half a model in the folder."""
    folder = shutil.copytree(model_folders["roberta"], tmp_path / "run")
    (folder / "run.json").write_text('{"recipe": "masked-lm", "status": "running"}')
    with pytest.raises(InputError, match="is not finished"):
        predict(folder, "A <mask>.", recipe=recipe)
