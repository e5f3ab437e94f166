"""Arguments of predictions: each counts or is refused, and what is drawn can be drawn again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.predict import SWITCHES
from lmtasks.errors import InputError
from lmtasks.inference.arguments import GENERATION
from lmtasks.inference.predictor import Predictor

MOST = 66
"""Positions of the tiny decoders."""


@pytest.fixture(scope="module")
def filler(model_folders: dict[str, Path]) -> Predictor:
    return Predictor(str(model_folders["roberta"]), MASKED_LM)


@pytest.fixture(scope="module")
def teller(model_folders: dict[str, Path]) -> Predictor:
    return louder(Predictor(str(model_folders["llama"]), CAUSAL_LM))


def louder(predictor: Predictor) -> Predictor:
    """A model whose next token depends on what was before."""
    with torch.no_grad():
        for parameter in predictor.pipeline.model.parameters():
            if parameter.ndim > 1:
                parameter *= 8
    return predictor


def new(predictor: Predictor, text: str, **arguments: Any) -> list[int]:
    """Ids of what a text is continued with."""
    (answer,) = predictor.predict(text, return_tensors=True, **arguments)
    ids = answer["generated_token_ids"]
    return list(ids[len(predictor.tokenizer(text)["input_ids"]) :])


# --- targets ---


def test_every_target_is_guessed_and_no_other(filler: Predictor) -> None:
    vocabulary = filler.tokenizer.get_vocab()
    targets = ["a", "is", " the", "e", "i", "o", "r"]
    ids = {vocabulary[target.replace(" ", "Ġ")] for target in targets}
    guesses = filler.predict("the <mask> is", targets=targets)
    assert {guess["token"] for guess in guesses} == ids, "more than the pipeline's usual five"
    free = {guess["token"]: guess["score"] for guess in filler.predict("the <mask> is", top_k=400)}
    assert [guess["score"] for guess in guesses] == sorted((free[index] for index in ids), reverse=True)


def test_targets_that_come_again_add_up(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    outcome = lmtasks(
        "predict", model_folders["roberta"], "<mask>", "--targets", "a", "--targets", "is", "--targets", "o", "--json"
    )
    assert {guess["token_str"] for guess in json.loads(outcome.out)[0]} == {"a", "is", "o"}
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("target", "says", "hint"),
    [
        ("pizza", "'pizza' is not one token, but 5: p i z z a", "tokens of the vocabulary"),
        ("ass", "", "--targets ' ass'"),
        ("", "--targets is empty", "--targets TOKEN"),
    ],
)
def test_a_target_that_is_no_token_is_refused(target: str, says: str, hint: str, filler: Predictor) -> None:
    if target == "ass":  # a word that has a token only behind a space
        vocabulary = filler.tokenizer.get_vocab()
        target = next(
            word[1:]
            for word in sorted(vocabulary)
            if word[0] == "Ġ" and len(word) > 2 and "Ġ" not in word[1:] and word[1:] not in vocabulary
        )
        says, hint = f"'{target}' is not one token, but ", f"--targets ' {target}'"
    with pytest.raises(InputError) as caught:
        filler.predict("the <mask>", targets=["a", target])
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_no_more_guesses_than_tokens(filler: Predictor) -> None:
    assert len(filler.predict("<mask>", top_k=400)) == 400
    with pytest.raises(InputError, match="--top_k 401 is more than the vocabulary has: 400 tokens"):
        filler.predict("<mask>", top_k=401)


# --- what is drawn ---


@pytest.mark.parametrize("drawing", [{"temperature": 5.0}, {"top_p": 0.99}, {"top_k": 300}, {"min_p": 0.0}])
def test_an_argument_of_drawing_draws(
    drawing: dict[str, float], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Also where the model's own settings say otherwise."""
    shutil.copytree(model_folders["gpt2"], tmp_path / "m")
    own = {"do_sample": False, "eos_token_id": 0, "pad_token_id": 1}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(own))
    predictor = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    greedy = {tuple(new(predictor, "the", max_new_tokens=8)) for _ in range(3)}
    drawn = {tuple(new(predictor, "the", max_new_tokens=8, **drawing)) for _ in range(4)}
    assert (len(greedy), len(drawn)) == (1, 4)


def test_a_seed_draws_the_same_again_and_leaves_chance_alone(teller: Predictor) -> None:
    texts = ["the list", "a", "return"]
    once = teller.predict(texts, seed=3, max_new_tokens=9, batch_size=2)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert teller.predict(texts, seed=3, max_new_tokens=9, batch_size=2) == once
    assert torch.rand(1) == expected
    assert teller.predict(texts, seed=4, max_new_tokens=9, batch_size=2) != once
    assert teller.predict(texts, max_new_tokens=9) != teller.predict(texts, max_new_tokens=9)


def test_a_seed_is_that_of_torch(teller: Predictor) -> None:
    torch.manual_seed(11)
    expected = new(teller, "the list", max_new_tokens=9)
    assert new(teller, "the list", max_new_tokens=9, seed=11) == expected


# --- stop strings ---


def test_stop_strings_end_an_answer(model_folders: dict[str, Path], tmp_path: Path, lmtasks: Any) -> None:
    predictor = Predictor(str(model_folders["gpt2"]), CAUSAL_LM)
    greedy = {"max_new_tokens": 20, "do_sample": False, "repetition_penalty": 1.5}
    (free,) = predictor.predict("the list", **greedy, return_full_text=False)
    stop = free["generated_text"][2:4]
    (stopped,) = predictor.predict("the list", **greedy, return_full_text=False, stop_strings=[stop, "nowhere"])
    text = stopped["generated_text"]
    assert stop in text
    assert len(text) < len(free["generated_text"])
    assert free["generated_text"].startswith(text)

    shutil.copytree(model_folders["gpt2"], tmp_path / "m")
    own = {"stop_strings": [stop], "eos_token_id": 0, "pad_token_id": 1}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(own))
    saved = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    assert saved.predict("the list", **greedy, return_full_text=False) == [stopped]
    texts = ["the list", "a"]
    assert saved.predict(texts, **greedy) == [saved.predict(text, **greedy) for text in texts]

    words = ("--max_new_tokens", 20, "--do_sample", "false", "--repetition_penalty", 1.5)
    outcome = lmtasks(
        "predict",
        model_folders["gpt2"],
        "the list",
        *words,
        "--stop_strings",
        "nowhere",
        "--stop_strings",
        stop,
        "--json",
    )
    assert json.loads(outcome.out)[0][0]["generated_text"] == f"the list{text}"


# --- positions ---


def test_an_answer_ends_with_the_positions(teller: Predictor, capfd: pytest.CaptureFixture[str]) -> None:
    text = " list" * 20
    length = len(teller.tokenizer(text)["input_ids"])
    room = MOST - length + 1
    longest = new(teller, text, seed=1, eos_token_id=1)
    assert len(longest) <= room
    assert f"at most {room} new tokens: the text has {length}, and the model takes {MOST}" in capfd.readouterr().err
    assert len(new(teller, text, max_new_tokens=room, min_new_tokens=room)) == room
    with pytest.raises(
        InputError, match=f"with --max_new_tokens {room + 1} it is longer than the model can take"
    ) as no:
        teller.predict(text, max_new_tokens=room + 1)
    assert no.value.hint == f"--max_new_tokens {room} or less"
    with pytest.raises(InputError, match=f"with --max_length {MOST + 2} it is"):
        teller.predict(text, max_length=MOST + 2)


def test_the_positions_are_those_that_the_model_has(model_folders: dict[str, Path]) -> None:
    """Learned positions: one more token than is allowed has none."""
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    predictor = Predictor(str(model_folders["gpt2"]), CAUSAL_LM)
    ids = predictor.tokenizer("the list", return_tensors="pt")["input_ids"]
    room = MOST - ids.shape[1] + 1
    arguments = {"do_sample": False, "eos_token_id": 1, "pad_token_id": 1}
    assert len(new(predictor, "the list", max_new_tokens=room, **arguments)) <= room
    with pytest.raises(IndexError):
        model.generate(ids, min_new_tokens=room + 1, max_new_tokens=room + 1, **arguments)


@pytest.mark.parametrize(("kind", "recipe"), [("llama", CAUSAL_LM), ("modernbert", MASKED_LM)])
def test_rotary_positions_end_too(kind: str, recipe: Any, model_folders: dict[str, Path]) -> None:
    predictor = Predictor(str(model_folders[kind]), recipe)
    long = "<mask>" + " list" * 90
    length = len(predictor.tokenizer(long)["input_ids"])
    with pytest.raises(
        InputError, match=f"text 2 is longer than the model can take: {length} tokens, and it takes {MOST}"
    ):
        predictor.predict(["<mask>", long])


def test_positions_that_were_stretched_are_there(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["llama"], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": MOST,
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    predictor = Predictor(str(tmp_path / "m"), CAUSAL_LM)
    assert len(new(predictor, "a", max_new_tokens=2 * MOST, min_new_tokens=2 * MOST)) == 2 * MOST
    with pytest.raises(InputError, match=f"longer than the model can take: {4 * MOST}"):
        predictor.predict("a", max_new_tokens=5 * MOST)


# --- what would change nothing, and what cannot be ---


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ({"temperature": 1.0, "do_sample": False}, "--do_sample false draws none", "leave one of the two out"),
        ({"seed": 1, "do_sample": False}, "--seed 1 changes nothing: text-generation draws", "add --do_sample"),
        ({"seed": -1}, "seed is -1", "from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296", "from 0 to 4294967295"),
        ({"length_penalty": 2.0}, "--length_penalty is about beams, and there is one", "add --num_beams 4"),
        ({"max_cache_len": 9}, "--max_cache_len changes nothing without --cache_implementation", "add --cache"),
        ({"penalty_alpha": 0.5}, "cannot have 'penalty_alpha': transformers keeps it on the Hub", "leave"),
        ({"num_assistant_tokens": 3}, "there is no assistant model", "leave --num_assistant_tokens out"),
        ({"tools": ["x"]}, "texts are no conversations", "leave --tools out"),
        ({"min_new_tokens": 5, "max_new_tokens": 3}, "--min_new_tokens 5 is more than --max_new_tokens 3", "raise"),
        ({"pad_token_id": 400}, "--pad_token_id 400 is no token: the model has 400", "below 400"),
        ({"suppress_tokens": [3, 400]}, "--suppress_tokens 400 is no token", "below 400"),
        ({"stop_strings": ["a", ""]}, "--stop_strings is empty", "--stop_strings TEXT"),
        ({"stop_strings": 5}, "--stop_strings cannot be 5", "texts that end"),
        ({"top_p": 1.5}, "--top_p cannot be 1.5: it must be a number above 0 and at most 1", "share"),
        ({"max_new_tokens": "many"}, "--max_new_tokens cannot be 'many': it must be a whole number", "count"),
        ({"max_new_tokens": 10**20}, "the largest whole number is", "smaller"),
        ({"output_scores": True}, "`return_dict_in_generate` is NOT set", "check --output_scores"),
        ({"num_return_sequences": 2, "do_sample": False}, "Greedy methods", "--num_return_sequences, --do_sample"),
        ({"cache_implementation": "nosuch"}, "Invalid `cache_implementation`", "check --cache_implementation"),
        ({"bad_words_ids": "x"}, "`bad_words_ids` has to be", "check --bad_words_ids"),
        ({"watermarking_config": "x"}, "AttributeError: ", "check --watermarking_config"),
        ({"tokenizer_encode_kwargs": 5}, "--tokenizer_encode_kwargs cannot be 5", "NAME"),
        ({"tokenizer_encode_kwargs": {"truncatoin": True}}, "no 'truncatoin', did you mean 'truncation'", "tokenizers"),
    ],
)  # fmt: skip
def test_an_idle_or_impossible_argument_is_refused(
    arguments: dict[str, Any], says: str, hint: str, teller: Predictor
) -> None:
    with pytest.raises(InputError) as caught:
        teller.predict("the list", **arguments)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_filler_draws_nothing(filler: Predictor) -> None:
    with pytest.raises(InputError, match="--seed 1 changes nothing: fill-mask draws no tokens here"):
        filler.predict("<mask>", seed=1)


def test_a_pipeline_of_a_recipes_own_says_itself_whether_it_draws(
    filler: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filler.pipeline, "draws", lambda top_k=5: top_k == 3, raising=False)
    assert len(filler.predict("<mask>", seed=1, top_k=3)) == 3
    for given in ({}, {"top_k": 4}):
        with pytest.raises(InputError, match="--seed 1 changes nothing"):
            filler.predict("<mask>", seed=1, **given)


@pytest.mark.parametrize(
    ("texts", "says"), [([("a", "b")], "text 1 is no text but tuple"), (5, "cannot be a int"), (["a", 5], "text 2")]
)
def test_texts_are_texts(texts: Any, says: str, teller: Predictor) -> None:
    with pytest.raises(InputError, match=says):
        teller.predict(texts)


def test_no_failure_without_arguments_is_explained_away(filler: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*inputs: Any, **options: Any) -> Any:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(filler.pipeline.model, "forward", broken)
    with pytest.raises(KeyError):
        filler.predict("<mask>")
    with pytest.raises(InputError, match="fill-mask: KeyError: 'a mistake of ours'"):
        filler.predict("<mask>", top_k=3)


# --- what the model brings ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"max_new_tokens": -3}', "`max_new_tokens` must be greater than 0, but is -3"),
        ('{"num_return_sequences": 3}', "Greedy methods"),
        ("{", "is not a valid JSON file"),
        ("[]", "TypeError"),
    ],
)
def test_a_generation_config_that_cannot_be_says_why(
    content: str, says: str, model_folders: dict[str, Path], tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    shutil.copytree(model_folders["gpt2"], tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(content)
    outcome = lmtasks("predict", tmp_path / "m", "text")
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert "generation_config.json' is no generation configuration: " in error
    assert says in error
    assert hint == "hint: mend it, or delete it"


def test_a_folder_has_no_revisions(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    outcome = lmtasks("predict", model_folders["gpt2"], "text", "--revision", "v1")
    assert outcome.code == 2
    assert "--revision v1: the folder" in outcome.err


# --- on the command line ---


def test_every_yes_or_no_needs_no_value() -> None:
    assert set(SWITCHES) == {name for name, option in GENERATION.items() if option.is_switch}


def test_the_last_value_of_a_flag_counts_and_is_told(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    outcome = lmtasks("predict", model_folders["roberta"], "<mask>", "--top_k", 3, "--top_k", 2, "--json")
    assert len(json.loads(outcome.out)[0]) == 2
    assert outcome.err == "--top_k 3 gives way to --top_k 2, which comes after it\n"


def test_answers_that_are_no_text_are_shown_as_they_are(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    outcome = lmtasks("predict", model_folders["gpt2"], "a", "--max_new_tokens", 2, "--return_tensors", "--seed", 1)
    assert outcome.code == 0
    assert "generated_token_ids" in outcome.out
    assert (
        lmtasks("predict", model_folders["gpt2"], "a", "--max_new_tokens", 2, "--return_tensors", "--seed", 1)
        == outcome
    )
