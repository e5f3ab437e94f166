"""OpenAI's completions: their documented shapes, by hand and by OpenAI's own client where it is installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

GREEDY = {"max_tokens": 6, "temperature": 0}


def greedy(teller: Any, text: str, tokens: int = 6) -> str:
    answer = teller.predictor.predict(text, do_sample=False, max_new_tokens=tokens, return_full_text=False)
    return str(answer[0]["generated_text"])


def chunks(response: Any) -> list[Any]:
    """The events of a stream, which ends as OpenAI's do."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_completion_has_openais_shape(teller: Any) -> None:
    response = teller.post("/v1/completions", {"model": "gpt2", "prompt": "the list", **GREEDY})
    told = response.json()
    assert response.status_code == 200
    assert told.pop("id").startswith("cmpl-") and told.pop("created") > 1.7e9
    tokens = len(teller.predictor.tokenizer("the list")["input_ids"])
    choice = {"index": 0, "text": greedy(teller, "the list"), "logprobs": None, "finish_reason": "length"}
    usage = {"prompt_tokens": tokens, "completion_tokens": 6, "total_tokens": tokens + 6}
    assert told == {"object": "text_completion", "model": "gpt2", "choices": [choice], "usage": usage}


def test_prompts_and_answers_to_each_are_numbered_in_order(teller: Any) -> None:
    wish = {"prompt": ["the list", "if value"], "n": 2, "echo": True, **GREEDY}
    told = teller.post("/v1/completions", wish).json()
    wanted = [text + greedy(teller, text) for text in ("the list", "the list", "if value", "if value")]
    assert [(choice["index"], choice["text"]) for choice in told["choices"]] == list(enumerate(wanted))
    tokens = sum(len(teller.predictor.tokenizer(text)["input_ids"]) for text in ("the list", "if value"))
    assert told["usage"] == {"prompt_tokens": tokens, "completion_tokens": 24, "total_tokens": tokens + 24}


def test_a_stream_is_the_same_in_pieces(teller: Any) -> None:
    wish = {"prompt": ["the list", "if value"], "echo": True, **GREEDY}
    whole = teller.post("/v1/completions", wish).json()
    stream = teller.post("/v1/completions", {**wish, "stream": True, "stream_options": {"include_usage": True}})
    assert stream.headers["content-type"].startswith("text/event-stream")
    *told, usage = chunks(stream)
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    for choice in whole["choices"]:
        pieces = [one["choices"][0] for one in told if one["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces][-2:] == [None, "length"]
    assert len({one["id"] for one in told}) == 1


def test_a_stop_sequence_is_left_out(teller: Any) -> None:
    whole = greedy(teller, "if value is", 20)
    stop = whole[3:5]
    wish = {"prompt": "if value is", "max_tokens": 20, "temperature": 0, "stop": stop}
    (choice,) = teller.post("/v1/completions", wish).json()["choices"]
    assert choice["text"] == whole[: whole.index(stop)] and choice["finish_reason"] == "stop"
    told = chunks(teller.post("/v1/completions", {**wish, "stream": True}))
    assert "".join(one["choices"][0]["text"] for one in told) == choice["text"]


def test_sixteen_tokens_are_drawn_when_nobody_says_more(teller: Any) -> None:
    told = teller.post("/v1/completions", {"prompt": "the", "seed": 3}).json()
    assert told["usage"]["completion_tokens"] <= 16
    (wanted,) = teller.predictor.predict(
        "the", do_sample=True, temperature=1.0, top_k=0, max_new_tokens=16, seed=3, return_full_text=False
    )
    assert told["choices"][0]["text"] == wanted["generated_text"]


def test_the_model_is_listed(teller: Any) -> None:
    told = teller.get("/v1/models").json()
    assert told == {"object": "list", "data": [{"id": "gpt2", "object": "model", "created": 0, "owned_by": "lmtasks"}]}


@pytest.mark.parametrize(
    ("wish", "status", "says"),
    [
        ({"prompt": "a", "model": "other"}, 404, "there is no model 'other' here, but 'gpt2'"),
        ({"prompt": "a", "logprobs": 3}, 422, "logprobs cannot be had here"),
        ({"prompt": "a", "suffix": "b"}, 422, "suffix cannot be had here"),
        ({"prompt": "a", "best_of": 2}, 422, "best_of cannot be had here"),
        ({"prompt": "a", "max_tokens": 0}, 422, "Expected `int` >= 1"),
        ({"prompt": "a", "temperature": 3}, 422, "Expected `float` <= 2"),
        ({"prompt": [1, 2]}, 422, "Expected `str`, got `int`"),
        ({"prompt": ""}, 422, "there is an empty text"),
        ({}, 422, "missing required field `prompt`"),
        ({"prompt": "a", "best_off": 2}, 422, "unknown field `best_off`"),
        ({"prompt": "a", "stop": ""}, 422, "stop: up to 16 texts"),
        ({"prompt": "a", "max_tokens": 2000}, 422, "2000 new tokens: 1024 is the most here"),
        ({"prompt": "a", "max_tokens": 100}, 422, "longer than the model can take: 66"),
        ({"prompt": "a", "n": 65}, 413, "65 texts: a request has 1 to 64"),
        ({"prompt": []}, 422, "0 texts"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_mistake_has_openais_shape(wish: Any, status: int, says: str, stream: bool, teller: Any) -> None:
    response = teller.post("/v1/completions", {**wish, "stream": stream})
    error = response.json()["error"]
    assert response.status_code == status and says in error["message"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)


def test_a_model_that_continues_nothing_has_no_completions(filler: Any) -> None:
    response = filler.post("/v1/completions", {"prompt": "a"})
    assert response.status_code == 404 and "continues no texts" in response.json()["error"]["message"]


def test_openais_own_client_is_understood(teller: Any) -> None:
    openai = pytest.importorskip("openai", reason="an extra check where it is installed")
    with openai.OpenAI(base_url=f"{teller.url}/v1", api_key="none") as asked:
        assert [model.id for model in asked.models.list()] == ["gpt2"]
        answer = asked.completions.create(model="gpt2", prompt="the list", **GREEDY)
        assert answer.choices[0].text == greedy(teller, "the list")
        stream = asked.completions.create(model="gpt2", prompt="the list", **GREEDY, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == greedy(teller, "the list")
        with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
            asked.completions.create(model="other", prompt="the list")
        with pytest.raises(openai.UnprocessableEntityError, match="logprobs cannot be had"):
            asked.completions.create(model="gpt2", prompt="the list", logprobs=1)
