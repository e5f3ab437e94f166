"""Requests that arrive together: answered in batches, each with the answer that it would have had alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import running

from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.serving.refusals import Refusal
from lmtasks.serving.worker import Job, Worker

MASKS = [f"the {'very ' * (number % 7)}<mask> is number {number}" for number in range(40)]


class Held:
    """A worker whose first batch waits until it is let go; ``seen`` are the texts of each batch."""

    def __init__(self, answer: Callable[[str], Any] = str.upper, **limits: Any) -> None:
        self.go, self.begun, self.seen = threading.Event(), threading.Event(), []
        self.one = answer
        self.worker = Worker(self.answer, **{"batch_size": 4, "queue": 100, **limits})

    def answer(self, jobs: list[Job]) -> list[Any]:
        self.seen.append([text for job in jobs for text in job.texts])
        self.begun.set()
        assert self.go.wait(30)
        return [self.one(text) for job in jobs for text in job.texts]

    def submit(self, *texts: str, alike: Any = "same") -> Any:
        job = Job(list(texts), {}, alike)
        self.worker.submit(job)
        return job

    def let_go(self) -> None:
        self.go.set()
        self.worker.close()


@pytest.fixture
def held() -> Held:
    one = Held()
    one.submit("first")
    assert one.begun.wait(30)
    return one


def test_what_arrives_while_it_works_is_answered_together(held: Held) -> None:
    jobs = [held.submit("a"), held.submit("b", alike="other"), held.submit("c", "d"), held.submit("e", "f")]
    jobs += [held.submit("g"), held.submit("h", alike=None), held.submit("i", alike=None)]
    held.let_go()
    assert held.seen == [["first"], ["a", "c", "d", "g"], ["b"], ["e", "f"], ["h"], ["i"]]
    assert [job.done.result() for job in jobs] == [["A"], ["B"], ["C", "D"], ["E", "F"], ["G"], ["H"], ["I"]]
    assert (held.worker.batches, held.worker.answered) == (6, 10)


def test_those_of_like_length_go_together(held: Held) -> None:
    """The first in line never waits for its like."""
    for length in (9, 1, 10, 2, 8, 3, 7, 11):
        held.submit("a" * length)
    held.let_go()
    assert [[len(text) for text in batch] for batch in held.seen[1:]] == [[9, 10, 8, 7], [1, 2, 3, 11]]


def test_those_that_would_be_mostly_padding_wait() -> None:
    held = Held(spread=2)
    held.submit("first")
    assert held.begun.wait(30)
    for length in (9, 1, 10, 2, 8, 7, 3):
        held.submit("a" * length)
    held.let_go()
    # 7 is as near to 9 as 11 would be, but three away from the longest.
    assert [[len(text) for text in batch] for batch in held.seen[1:]] == [[9, 10, 8], [1, 2, 3], [7]]


def test_texts_are_measured_in_the_thread_of_the_model_and_once_each() -> None:
    measured: list[tuple[str, list[str]]] = []

    def lengths(texts: list[str]) -> list[int]:
        measured.append((threading.current_thread().name, texts))
        return [int(text) for text in texts]

    held = Held(lengths=lengths, spread=5)
    held.submit("1")
    assert held.begun.wait(30)
    for texts in (["30"], ["2", "34"], ["3"], ["4"]):
        held.submit(*texts)
    held.let_go()
    assert held.seen == [["1"], ["30", "2", "34"], ["3", "4"]], "a job is as long as its longest text"
    assert {name for name, _ in measured} == {"lmtasks-worker"}
    assert sorted(text for _, texts in measured for text in texts) == ["1", "2", "3", "30", "34", "4"]


def test_a_job_larger_than_a_batch_has_one_to_itself(held: Held) -> None:
    jobs = [held.submit(*"abcdef"), held.submit("g")]
    held.let_go()
    assert held.seen[1:] == [list("abcdef"), ["g"]]
    assert jobs[0].done.result() == list("ABCDEF")


def test_there_is_an_end_to_the_line() -> None:
    held = Held(queue=3)
    held.submit("first")
    assert held.begun.wait(30)
    held.submit("a", "b")
    with pytest.raises(Refusal, match="there are 2 texts in line, and no more than 3 may be") as caught:
        held.submit("c", "d")
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    assert held.submit("c") and held.worker.waiting == 3
    held.let_go()
    with pytest.raises(Refusal, match="going down"):
        held.submit("e")


def test_what_nobody_waits_for_is_not_answered(held: Held) -> None:
    gone, cancelled, other = held.submit("a"), held.submit("b"), held.submit("c")
    gone.wanted = False
    assert cancelled.done.cancel()
    held.let_go()
    assert held.seen == [["first"], ["c"]] and other.done.result() == ["C"]


def test_one_that_is_wrong_is_refused_and_the_others_answered() -> None:
    def answer(text: str) -> str:
        if text == "bad":
            raise InputError("it is bad", "a good one")
        return text.upper()

    held = Held(answer)
    held.submit("first")
    assert held.begun.wait(30)
    jobs = [held.submit("a"), held.submit("bad"), held.submit("c")]
    held.let_go()
    assert [jobs[0].done.result(), jobs[2].done.result()] == [["A"], ["C"]]
    assert isinstance(jobs[1].done.exception(), InputError)


def test_after_a_fault_the_next_is_answered() -> None:
    def answer(text: str) -> float:
        return 1 / int(text)

    held = Held(answer)
    job = held.submit("0")
    assert held.begun.wait(30)
    other = held.submit("2", alike="other")
    held.let_go()
    assert isinstance(job.done.exception(), ZeroDivisionError) and other.done.result() == [0.5]


def asked_together(server: Any, path: str, bodies: list[Any]) -> list[Any]:
    """The answers to requests of as many clients at once."""
    with ThreadPoolExecutor(len(bodies)) as pool, httpx2.Client(timeout=60) as client:
        return list(pool.map(lambda body: client.post(server.url + path, json=body).json(), bodies))


def test_masks_of_many_clients_are_filled_as_alone(model_folders: dict[str, Path]) -> None:
    with running(model_folders["roberta"], MASKED_LM) as server:
        bodies = [{"inputs": text, "parameters": {"top_k": 2 + number % 2}} for number, text in enumerate(MASKS)]
        told = asked_together(server, "/", bodies)
        assert server.served.worker.batches < len(MASKS), "some were answered together"
        for number, (text, answer) in enumerate(zip(MASKS, told, strict=True)):
            alone = server.predictor.predict(text, top_k=2 + number % 2)
            assert [guess["sequence"] for guess in answer] == [guess["sequence"] for guess in alone]
            assert [guess["score"] for guess in answer] == pytest.approx([one["score"] for one in alone], rel=1e-5)


def test_a_text_that_cannot_be_measured_stops_nobody(filler: Any) -> None:
    served = filler.served
    jobs = [served.job([text], {}) for text in ("a <mask> \ud800", "a <mask>")]  # HTTP lets no such text through
    for job in jobs:
        served.worker.submit(job)
    assert jobs[0].done.exception(30) is not None
    assert jobs[1].done.result(30)[0][0]["sequence"] == filler.predictor.predict("a <mask>")[0]["sequence"]


def test_texts_are_as_long_as_their_tokens(filler: Any, teller: Any) -> None:
    texts = ["a <mask>", "a <mask> " + "naïve " * 9, "many " * 10_000]
    counted = [len(ids) for ids in filler.predictor.tokenizer(texts, verbose=False)["input_ids"]]
    measured = filler.served.worker.lengths(texts)
    assert measured[:2] == counted[:2]
    assert measured[1] < measured[2] < counted[2], "of a long one the beginning is enough"
    assert filler.served.worker.spread < teller.served.worker.spread, "continuations wait for nobody of their length"


def test_continuations_of_many_clients_are_as_alone(teller: Any) -> None:
    texts = [text.replace("<mask>", "") for text in MASKS]
    bodies = [{"prompt": text, "max_tokens": 3 + number % 2, "temperature": 0} for number, text in enumerate(texts)]
    before = teller.served.worker.batches
    told = asked_together(teller, "/v1/completions", bodies)
    assert teller.served.worker.batches - before < len(texts)
    for number, (text, answer) in enumerate(zip(texts, told, strict=True)):
        (alone,) = teller.predictor.predict(
            text, do_sample=False, max_new_tokens=3 + number % 2, return_full_text=False
        )
        assert answer["choices"][0]["text"] == alone["generated_text"]
        assert answer["usage"]["prompt_tokens"] == len(teller.predictor.tokenizer(text)["input_ids"])


def test_a_mistake_of_one_client_is_not_another_ones(filler: Any) -> None:
    bodies = [{"inputs": text if number % 3 else "no mask"} for number, text in enumerate(MASKS)]
    for number, answer in enumerate(asked_together(filler, "/", bodies)):
        assert isinstance(answer, list) if number % 3 else "No mask_token" in answer["error"]
