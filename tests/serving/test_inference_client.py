"""huggingface_hub's own client, and what it gets: the answers of ``lmtasks predict``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

MakeClient = Callable[[Any], InferenceClient]

GREEDY = {"max_new_tokens": 8, "do_sample": False}


def test_masks_are_filled_as_predict_fills_them(filler: Any, client: MakeClient) -> None:
    text = "the <mask> is a list"
    answer = client(filler).fill_mask(text, top_k=3)
    wanted = filler.predictor.predict(text, top_k=3)
    assert [(one.token, one.token_str, one.sequence) for one in answer] == [
        (one["token"], one["token_str"], one["sequence"]) for one in wanted
    ]
    assert [one.score for one in answer] == pytest.approx([one["score"] for one in wanted], rel=1e-5)
    assert len(client(filler).fill_mask(text)) == 5, "what the pipeline gives when nobody says how many"


def test_targets_are_the_only_guesses(filler: Any, client: MakeClient) -> None:
    answer = client(filler).fill_mask("the <mask> is", targets=[" a", " of"])
    assert {one.token_str for one in answer} == {" a", " of"}


def test_the_address_may_be_the_model(filler: Any, client: MakeClient) -> None:
    client(filler)  # so that the network is allowed
    asked = InferenceClient(model=filler.url)
    assert asked.fill_mask("a <mask>")[0].sequence == filler.predictor.predict("a <mask>")[0]["sequence"]


@pytest.mark.parametrize("whole", [False, True])
def test_texts_are_continued_as_predict_continues_them(whole: bool, teller: Any, client: MakeClient) -> None:
    text = "the list is"
    answer = client(teller).text_generation(text, max_new_tokens=8, return_full_text=whole)
    wanted = teller.predictor.predict(text, **GREEDY, return_full_text=whole)
    assert answer == wanted[0]["generated_text"]


def test_the_stream_is_the_answer_in_pieces(teller: Any, client: MakeClient) -> None:
    asked = client(teller)
    pieces = list(asked.text_generation("the list is", max_new_tokens=8, stream=True))
    assert len(pieces) == 8, "one for each token"
    assert "".join(pieces) == asked.text_generation("the list is", max_new_tokens=8)


def test_details_tell_tokens_and_why_it_ended(teller: Any, client: MakeClient) -> None:
    asked = client(teller)
    answer = asked.text_generation("the list is", max_new_tokens=6, details=True)
    assert answer.details.finish_reason == "length" and answer.details.generated_tokens == 6
    assert "".join(token.text for token in answer.details.tokens) == answer.generated_text
    tokenizer = teller.predictor.tokenizer
    ids = [token.id for token in answer.details.tokens]
    assert tokenizer.decode(ids, skip_special_tokens=True) == answer.generated_text
    *_, last = asked.text_generation("the list is", max_new_tokens=6, details=True, stream=True)
    assert last.generated_text == answer.generated_text
    assert (last.details.finish_reason, last.details.generated_tokens) == ("length", 6)
    assert last.details.input_length == len(tokenizer("the list is")["input_ids"])
    assert last.token.logprob == pytest.approx(answer.details.tokens[-1].logprob, rel=1e-4)


def test_a_stop_sequence_ends_it_and_stays(teller: Any, client: MakeClient) -> None:
    asked = client(teller)
    whole = asked.text_generation("if value is", max_new_tokens=20)
    stop = whole[2:5]
    answer = asked.text_generation("if value is", max_new_tokens=20, stop=[stop], details=True)
    assert answer.generated_text == whole[: whole.index(stop) + len(stop)]
    assert answer.details.finish_reason == "stop_sequence"
    assert "".join(asked.text_generation("if value is", max_new_tokens=20, stop=[stop], stream=True)) == (
        answer.generated_text
    )


def test_a_seed_draws_the_same_again(teller: Any, client: MakeClient) -> None:
    asked = client(teller)
    how = {"max_new_tokens": 20, "temperature": 1.5, "top_p": 0.9}
    drawn = [asked.text_generation("the", **how, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    wanted = teller.predictor.predict("the", **how, do_sample=True, top_k=0, seed=1, return_full_text=False)
    assert drawn[0] == wanted[0]["generated_text"]


def test_where_nobody_says_how_many_there_are_as_many_as_have_room(teller: Any, client: MakeClient) -> None:
    tokens = len(teller.predictor.tokenizer("the list is")["input_ids"])
    answer = client(teller).text_generation("the list is", details=True)
    assert answer.details.generated_tokens == 66 - tokens + 1


def test_a_mistake_is_told_in_one_sentence(filler: Any, teller: Any, client: MakeClient) -> None:
    with pytest.raises(HfHubHTTPError, match=r"No mask_token \(<mask>\) found"):
        client(filler).fill_mask("no mask")
    with pytest.raises(ValidationError, match="longer than the model can take: 66") as caught:
        client(teller).text_generation("the list is", max_new_tokens=100)
    assert "Traceback" not in str(caught.value) and "--" not in str(caught.value)


@pytest.mark.parametrize("name", ["best_of", "frequency_penalty", "top_n_tokens", "truncate", "watermark"])
def test_what_cannot_be_had_is_named(name: str, teller: Any, client: MakeClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValidationError, match=f"{name} cannot be had here"):
            client(teller).text_generation("the", max_new_tokens=2, **{name: 2})
