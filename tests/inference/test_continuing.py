"""Continuations token by token: the pipeline's, however many there are at once, told as they grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.inference.continuing import Token, continued, continues
from lmtasks.inference.predictor import Predictor

TEXTS = ["the list is", "if", "def read(self, size", "the"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def teller(request: Any, model_folders: dict[str, Path]) -> Predictor:
    """One that counts positions, and one that turns them."""
    return Predictor(str(model_folders[request.param]), CAUSAL_LM)


def alone(teller: Predictor, text: str, **how: Any) -> str:
    (answer,) = teller.predict(text, return_full_text=False, **how)
    return str(answer["generated_text"])


def test_several_are_continued_as_each_alone(teller: Predictor) -> None:
    told = continued(teller, TEXTS, new_tokens=9, do_sample=False)
    assert [one.text for one in told] == [alone(teller, text, do_sample=False, max_new_tokens=9) for text in TEXTS]
    assert [one.prompt_tokens for one in told] == [len(teller.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert {(one.new_tokens, one.finish) for one in told} == {(9, "length")}


def test_what_is_drawn_has_the_seed_of_predict(teller: Predictor) -> None:
    how = {"do_sample": True, "temperature": 1.3, "top_k": 0, "seed": 5}
    (told,) = continued(teller, ["the list"], new_tokens=12, **how)
    assert told.text == alone(teller, "the list", max_new_tokens=12, **how)


def test_tokens_are_told_with_their_probability(teller: Predictor) -> None:
    heard: list[Token] = []
    (told,) = continued(teller, ["the list is"], [heard.append], new_tokens=6, do_sample=False)
    prompt = teller.tokenizer("the list is", return_tensors="pt")["input_ids"]
    ids = torch.cat([prompt, torch.tensor([[token.number for token in heard]])], dim=1)
    with torch.no_grad():
        logits = teller.pipeline.model(ids).logits[0, prompt.shape[1] - 1 : -1]
    wanted = logits.log_softmax(-1).gather(1, ids[0, prompt.shape[1] :, None])[:, 0]
    assert [token.log_probability for token in heard] == pytest.approx(wanted.tolist(), rel=1e-4)
    assert "".join(token.text for token in heard) == told.text


def test_each_listener_hears_its_own(teller: Predictor) -> None:
    heard: list[list[Token]] = [[] for _ in TEXTS]
    ears = [one.append if number != 1 else None for number, one in enumerate(heard)]
    told = continued(teller, TEXTS, ears, new_tokens=5, do_sample=False)
    for number, (tokens, answer) in enumerate(zip(heard, told, strict=True)):
        assert "".join(token.text for token in tokens) == (answer.text if number != 1 else "")


def test_a_character_of_several_tokens_is_told_when_it_is_whole(model_folders: dict[str, Path]) -> None:
    """The bytes of an umlaut, one a token, forced by what may come next."""
    teller = Predictor(str(model_folders["gpt2"]), CAUSAL_LM)
    wanted = [*teller.tokenizer("aüb")["input_ids"]]
    assert len(wanted) == 4, "the umlaut has two"
    model, prompt = teller.pipeline.model, len(teller.tokenizer("the")["input_ids"])
    plain = model.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        output = plain(*arguments, **named)
        done = int(named["attention_mask"].shape[-1]) - prompt
        output.logits[:, -1] = -9.0
        output.logits[:, -1, wanted[done]] = 9.0
        return output

    model.forward = forward
    heard: list[Token] = []
    (told,) = continued(teller, ["the"], [heard.append], new_tokens=4, do_sample=False)
    assert told.text == "aüb" and [token.text for token in heard] == ["a", "", "ü", "b"]


def test_the_end_of_text_ends_it(teller: Predictor) -> None:
    number = 3
    (whole,) = continued(teller, ["the list is"], new_tokens=8, do_sample=False)
    heard: list[Token] = []
    ids = teller.tokenizer("the list is")["input_ids"]
    output = teller.pipeline.model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)
    end = int(output[0, len(ids) + number])
    first = output[0, len(ids) :].tolist().index(end)
    config = teller.pipeline.model.generation_config
    before, config.eos_token_id = config.eos_token_id, end
    try:
        told = continued(teller, ["the list is", "if"], [heard.append, None], new_tokens=8, do_sample=False)
    finally:
        config.eos_token_id = before
    assert (told[0].finish, told[0].new_tokens) == ("eos_token", first + 1)
    assert len(heard) == first + 1 and whole.text.startswith(told[0].text)


def test_a_stop_sequence_is_not_told_in_halves(teller: Predictor) -> None:
    (whole,) = continued(teller, ["if value is"], new_tokens=20, do_sample=False)
    stop = whole.text[3:6]
    heard: list[Token] = []
    (told,) = continued(teller, ["if value is"], [heard.append], new_tokens=20, do_sample=False, stop=[stop])
    assert told.text == whole.text[: whole.text.index(stop) + len(stop)] and told.finish == "stop_sequence"
    told_before = "".join(token.text for token in heard[:-1])
    assert not any(told_before.endswith(stop[:length]) for length in range(1, len(stop) + 1))
    assert told_before + heard[-1].text == told.text


def test_what_nobody_wants_ends(teller: Predictor) -> None:
    heard: list[Token] = []
    wanted = [lambda: len(heard) < 3, lambda: True]
    told = continued(teller, TEXTS[:2], [heard.append, None], wanted, new_tokens=9, do_sample=False)
    assert (told[0].finish, len(heard)) == ("unwanted", told[0].new_tokens) and told[0].new_tokens < 9
    assert told[1].text == alone(teller, TEXTS[1], do_sample=False, max_new_tokens=9)


def test_each_has_as_many_as_it_has_room_for(teller: Predictor) -> None:
    texts = ["the " * 20, "the"]
    told = continued(teller, texts, new_tokens=100, at_most=True, do_sample=False)
    lengths = [len(teller.tokenizer(text)["input_ids"]) for text in texts]
    for text, length, one in zip(texts, lengths, told, strict=True):
        assert one.finish == "eos_token" or one.new_tokens == 66 - length + 1
        assert one.text == alone(teller, text, do_sample=False, max_new_tokens=one.new_tokens)


def test_more_than_has_room_is_refused(teller: Predictor) -> None:
    with pytest.raises(InputError, match=r"text 2 has 2 tokens, and with 66 new ones .* 66 \(65 new tokens or fewer\)"):
        continued(teller, ["a", "the"], new_tokens=66)
    with pytest.raises(InputError, match=r"the text has .* tokens, and the model takes 66"):
        continued(teller, ["the " * 100], new_tokens=1, at_most=True)
    with pytest.raises(InputError, match="empty text"):
        continued(teller, [""], new_tokens=1)
    with pytest.raises(InputError, match="takes no 'top_q'"):
        continued(teller, ["the"], new_tokens=1, top_q=1)


def test_beams_of_the_models_own_do_not_mix_rows(teller: Predictor) -> None:
    config = teller.pipeline.model.generation_config
    wanted = [alone(teller, text, do_sample=False, max_new_tokens=5) for text in TEXTS]
    config.num_beams = config.num_return_sequences = 2
    try:
        told = continued(teller, TEXTS, new_tokens=5, do_sample=False)
    finally:
        config.num_beams = config.num_return_sequences = None
    assert [one.text for one in told] == wanted


def test_where_padding_would_change_answers_each_is_alone(teller: Predictor) -> None:
    seen = []
    generate = teller.pipeline.model.generate

    def counted(**named: Any) -> Any:
        seen.append(len(named["input_ids"]))
        return generate(**named)

    teller.pipeline.model.generate, teller.one_by_one = counted, True
    try:
        continued(teller, TEXTS, new_tokens=2, do_sample=False)
    finally:
        del teller.pipeline.model.generate
        teller.one_by_one = None
    assert seen == [1] * len(TEXTS)


def test_only_a_model_that_continues_does(teller: Predictor, model_folders: dict[str, Path]) -> None:
    assert continues(teller.pipeline)
    assert not continues(Predictor(str(model_folders["roberta"]), MASKED_LM).pipeline)
    assert isinstance(teller.pipeline, transformers.TextGenerationPipeline)
