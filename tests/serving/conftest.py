"""Servers on the loopback interface, in a thread of the tests' own process, and clients that may ask them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import InferenceClient, close_session, constants

from lmtasks.api import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.inference.predictor import Predictor
from lmtasks.serving.limits import Limits
from lmtasks.serving.served import Served
from lmtasks.serving.server import address_of, listener, server


@dataclass
class Running:
    """A server that runs, with its address; the model's own answers are those of ``predictor``."""

    url: str
    served: Served
    predictor: Predictor

    def post(self, path: str, body: Any, **how: Any) -> httpx2.Response:
        with httpx2.Client(timeout=60) as client:
            return client.post(self.url + path, **({"json": body} | how if body is not None else how))

    def get(self, path: str, **how: Any) -> httpx2.Response:
        with httpx2.Client(timeout=60) as client:
            return client.get(self.url + path, **how)


@contextmanager
def running(folder: Path, recipe: Recipe, **limits: Any) -> Iterator[Running]:
    """A server while this is open."""
    served = Served(Predictor(str(folder), recipe), folder.name, Limits(**limits))
    began = threading.Event()
    with listener("127.0.0.1", 0) as listening:
        made = server(served, listening, "127.0.0.1", began.set)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]})
        thread.start()
        assert began.wait(30)
        yield Running(address_of(listening, "127.0.0.1"), served, Predictor(str(folder), recipe))
        made.should_exit = True
        # A connection that a test has left open, in the middle of a request, may keep it for the time of a request.
        thread.join(served.limits.timeout + 60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")  # no thread of a server goes on while other tests fork
def filler(model_folders: dict[str, Path]) -> Iterator[Running]:
    """A server that fills masks."""
    with running(model_folders["roberta"], MASKED_LM) as one:
        yield one


@pytest.fixture(scope="module")  # no thread of a server goes on while other tests fork
def teller(model_folders: dict[str, Path]) -> Iterator[Running]:
    """A server that continues texts, of 66 positions."""
    with running(model_folders["gpt2"], CAUSAL_LM) as one:
        yield one


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Running], InferenceClient]]:
    """Makes the real client for a server; the tests are offline otherwise."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield lambda server: InferenceClient(base_url=server.url)
    close_session()
