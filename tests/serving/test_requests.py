"""What a server takes and what it refuses: sizes, numbers, times, and whoever has no business with it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import torch
from conftest import running

from lmtasks.api import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.inference.predictor import Predictor
from lmtasks.serving.limits import Limits
from lmtasks.serving.served import Served

LONG = {"prompt": "the list", "max_tokens": 50, "temperature": 0}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path]) -> Any:
    """Makes servers of a model whose every step takes a twentieth of a second."""
    plain = torch.nn.Embedding.forward
    steps = []

    def forward(self: Any, ids: Any) -> Any:
        if threading.current_thread().name == "lmtasks-worker":
            steps.append(1)
            time.sleep(0.025)  # tokens and positions
        return plain(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", forward)

    def make(**limits: Any) -> Any:
        return running(model_folders["gpt2"], CAUSAL_LM, **limits)

    make.steps = steps
    return make


def test_what_is_served_says_so(filler: Any) -> None:
    assert filler.get("/health").json() == {"status": "ok"}
    about = {"model": "roberta", "recipe": "masked-lm", "pipeline": "fill-mask", "kind": "masks"}
    assert filler.get("/").json() == about


def test_figures_are_prometheus_text(model_folders: dict[str, Path]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with running(model_folders["gpt2"], CAUSAL_LM) as server:
        server.post("/v1/completions", {**LONG, "max_tokens": 7})
        list(server.post("/", {"inputs": "the", "stream": True, "parameters": {"max_new_tokens": 4}}).iter_lines())
        server.post("/", {"inputs": ""})
        text = server.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["lmtasks_requests_total", "/v1/completions", "200"] == 1
    assert samples["lmtasks_requests_total", "/", "422"] == samples["lmtasks_requests_total", "/", "200"] == 1
    assert samples["lmtasks_request_seconds_count", "/"] == 2
    assert samples["lmtasks_new_tokens_total",] == 11
    assert samples["lmtasks_texts_total",] == samples["lmtasks_batches_total",] == 2
    assert samples["lmtasks_waiting_texts",] == 0


def test_several_texts_have_several_answers(filler: Any, teller: Any) -> None:
    texts = ["a <mask>", "the <mask> and <mask>"]
    told = filler.post("/", {"inputs": texts}).json()
    assert [guess["token"] for guess in told[0]] == [guess["token"] for guess in filler.predictor.predict(texts[0])]
    assert len(told[1]) == 2 and len(told[1][0]) == 5, "two masks, five guesses for each"
    told = teller.post("/", {"inputs": ["the", "if"], "parameters": {"max_new_tokens": 3}}).json()
    assert [len(one) for one in told] == [1, 1]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": "a <mask>", "parameters": {"top_k": 1001}}, 422, "1001 guesses: 1000 is the most here"),
        ({"inputs": "a <mask>", "parameters": {"top_k": 500}}, 422, "more than the vocabulary has: 400 tokens"),
        ({"inputs": "a <mask>", "parameters": {"targets": ["a"] * 1001}}, 422, "1001 targets: 1000 is the most here"),
        ({"inputs": "a <mask>", "parameters": {"top_q": 3}}, 422, "unknown field `top_q`"),
        ({"inputs": "a <mask>", "parameters": {"top_k": "3"}}, 422, "Expected `int | null`, got `str`"),
        ({"inputs": ["a <mask>"] * 65}, 413, "65 texts: a request has 1 to 64"),
        ({"inputs": []}, 422, "0 texts: a request has 1 to 64"),
        ({"inputs": "a <mask>", "stream": True}, 422, "only continuations come in pieces"),
        ({"inputs": "<mask>" * 100}, 422, "is longer than the model can take"),
        ({"inputs": 3}, 422, "Expected `str | array`, got `int`"),
        ({"text": "a"}, 422, "unknown field `text`"),
        ([], 422, "Expected `object`, got `array`"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(body: Any, status: int, says: str, filler: Any) -> None:
    response = filler.post("/", body)
    told = response.json()
    assert (response.status_code, told["error_type"]) == (status, "validation")
    assert says in told["error"] and "--" not in told["error"] and "Traceback" not in response.text


@pytest.mark.parametrize(
    ("content", "headers", "status", "says"),
    [
        (b"{", {}, 422, "the body cannot be read"),
        (b"", {}, 422, "the body cannot be read"),
        (b'{"inputs": "\xff"}', {}, 422, "the body cannot be read"),
        (b"[" * 100_000, {}, 422, "the body cannot be read"),
        (b" " * (1 << 20) + b"{}", {}, 413, "the body has more than 1,048,576 bytes"),
        (b'{"inputs": "a <mask>"}', {"content-type": "text/plain"}, 415, "has to be application/json"),
        (b'{"inputs": "a <mask>"}', {"host": "elsewhere.example"}, 421, "names another machine"),
        (b'{"inputs": "a <mask>"}', {"host": "[nowhere"}, 421, "names another machine"),
    ],
)
def test_a_body_that_is_none_is_refused(content: bytes, headers: Any, status: int, says: str, filler: Any) -> None:
    response = filler.post("/", None, content=content, headers={"content-type": "application/json", **headers})
    assert response.status_code == status and says in response.text


def test_an_unknown_path_is_told_in_the_clients_shape(filler: Any) -> None:
    assert filler.get("/nowhere").json() == {"error": "GET /nowhere: Not Found", "error_type": "validation"}
    response = filler.get("/v1/completions")
    assert response.status_code == 405 and response.json()["error"]["type"] == "invalid_request_error"


def test_a_client_waits_no_longer_than_it_has_time(slow: Any) -> None:
    with slow(timeout=0.5) as server:
        response = server.post("/v1/completions", LONG)
        assert response.status_code == 504 and response.json()["error"]["message"] == "no answer within 0.5 s"
        stream = server.post("/", {"inputs": "the", "stream": True, "parameters": {"max_new_tokens": 50}})
        assert stream.status_code == 200 and '"no answer within 0.5 s"' in stream.text.splitlines()[-2]
        deadline = time.monotonic() + 30
        while server.served.worker.batches < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.served.worker.batches == 2
        assert len(slow.steps) < 2 * 2 * 40, "the rest was not computed for nobody"


@pytest.mark.parametrize(
    "head", [b"", b"POST / HTTP/1.1\r\nx-", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /he"]
)
def test_nobody_holds_a_connection_for_a_request_that_never_comes(head: bytes, model_folders: dict[str, Path]) -> None:
    """Nor by sending a letter of it now and then."""
    with running(model_folders["gpt2"], CAUSAL_LM, timeout=1) as server:
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
            connection.sendall(head)
            said = b""
            while piece := _after_another_letter(connection):
                said += piece
        assert (b'{"status":"ok"}' in said) == head.startswith(b"GET")
        assert server.get("/health").json() == {"status": "ok"}


def _after_another_letter(connection: socket.socket) -> bytes:
    """What comes when one more letter is sent; a space where nothing does, and nothing where it is closed."""
    time.sleep(0.2)
    connection.setblocking(False)
    try:
        connection.send(b"a")
        return connection.recv(1000)
    except BlockingIOError:
        return b" "
    except ConnectionError:
        return b""


def test_a_type_is_the_same_in_capitals(filler: Any) -> None:
    content = b'{"inputs": "a <mask>"}'
    assert filler.post("/", None, content=content, headers={"content-type": "Application/JSON"}).status_code == 200


def test_a_client_that_leaves_ends_its_continuation(slow: Any) -> None:
    with slow() as server:
        body = {"inputs": "the", "stream": True, "parameters": {"max_new_tokens": 60}}
        with httpx2.Client() as client, client.stream("POST", server.url, json=body) as response:
            next(response.iter_lines())
        deadline = time.monotonic() + 30
        while not server.served.worker.batches and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.served.worker.batches == 1
        assert len(slow.steps) < 2 * 50


def test_a_full_line_says_when_to_come_again(slow: Any) -> None:
    with slow(queue=1, batch_size=1) as server:
        told: list[Any] = []
        threads = [threading.Thread(target=lambda: told.append(server.post("/v1/completions", LONG))) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
    assert sorted(response.status_code for response in told) == [200, 200, 503, 503]
    refused = next(response for response in told if response.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["message"] == "there are 1 texts in line, and no more than 1 may be"


def test_a_fault_is_told_here_and_not_to_the_client(
    teller: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(teller.served.predictor.pipeline, "preprocess", fail)
    with caplog.at_level(logging.ERROR, "lmtasks"):
        response = teller.post("/", {"inputs": "the"})
    assert response.status_code == 500 and "secret" not in response.text
    assert response.json() == {"error": "it failed here; the server's log says why", "error_type": "generation"}
    assert "the secret inside" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("no room")])
def test_without_memory_there_may_be_some_later(error: Exception, teller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(teller.served.predictor.pipeline, "preprocess", fail)
    response = teller.post("/", {"inputs": "the"})
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert response.json() == {"error": "out of memory", "error_type": "overloaded"}


def test_a_body_that_does_not_come_is_not_waited_for(model_folders: dict[str, Path]) -> None:
    with running(model_folders["roberta"], MASKED_LM, timeout=0.3) as server:
        where = httpx2.URL(server.url)
        with socket.create_connection((where.host, where.port), timeout=30) as connection:
            head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
            connection.sendall(head.encode())
            assert b" 408 " in connection.recv(1000).splitlines()[0]


def test_limits_leave_something(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="--queue 0 leaves nothing to be answered"):
        Limits(queue=0)


def test_what_reads_files_is_not_served(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client could name any file of this machine."""
    predictor = Predictor(str(model_folders["roberta"]), MASKED_LM)
    monkeypatch.setattr(predictor, "tokenizer", None)
    with pytest.raises(InputError, match="masked-lm is not about text"):
        Served(predictor, "name", Limits())


ANSWERING = """
from transformers import Pipeline

class Spelling(Pipeline):
    def _sanitize_parameters(self, times=None):
        return {}, {}, {} if times is None else {"times": times}
    def preprocess(self, text):
        return {**self.tokenizer(text, return_tensors="pt"), "text": text}
    def _forward(self, inputs):
        text = inputs.pop("text")
        return {"text": text, "logits": self.model(**inputs).logits}
    def postprocess(self, outputs, times=1):
        text = outputs["text"] if isinstance(outputs["text"], str) else outputs["text"][0]
        return {"text": text.upper() * times, "first": outputs["logits"][0, 0, :2].numpy()}
"""


def test_a_recipe_of_a_plugin_is_served_by_its_own_pipeline(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    (tmp_path / "spelling_pipeline.py").write_text(ANSWERING)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe: Recipe = replace(MASKED_LM, name="spelling", pipeline="spelling_pipeline:Spelling")
    with running(model_folders["roberta"], recipe) as server:
        told = server.post("/", {"inputs": "ab", "parameters": {"times": 2}}).json()
        assert told["text"] == "ABAB"
        assert told["first"] == pytest.approx(server.predictor.predict("ab")["first"].tolist(), rel=1e-5)
        assert [one["text"] for one in server.post("/", {"inputs": ["ab", "c"]}).json()] == ["AB", "C"]
        assert (
            "takes no 'time', did you mean 'times'?"
            in (server.post("/", {"inputs": "ab", "parameters": {"time": 2}}).json()["error"])
        )
        for name in ("batch_size", "num_beams"):
            assert server.post("/", {"inputs": "ab", "parameters": {name: 10_000}}).status_code == 422
        assert server.get("/").json()["kind"] == "other"
