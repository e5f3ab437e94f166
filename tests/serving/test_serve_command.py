"""``lmtasks serve``: from the command line to the signal that ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from launched import first_document

from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.inference.predictor import Predictor, predict
from lmtasks.serving.limits import Limits
from lmtasks.serving.served import Served
from lmtasks.serving.server import listener, server


@contextmanager
def serving(*words: Any, environment: Any = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A server in a process of its own, and what it says of itself."""
    command = [sys.executable, "-m", "lmtasks", "serve", *map(str, words), "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes) as process:
        try:
            yield process, first_document(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_when_all_that_came_are_answered(number: int, model_folders: dict[str, Path]) -> None:
    with serving(model_folders["gpt2"], "--batch_size", 1) as (process, about):
        assert about["model"] == "gpt2" and about["recipe"] == "causal-lm"
        text = "the list is"
        wish = {"prompt": text, "max_tokens": 40, "temperature": 0}
        told: list[Any] = []

        def ask() -> None:
            with suppress(httpx2.TransportError):  # it came after the signal
                told.append(httpx2.post(f"{about['url']}/v1/completions", json=wish, timeout=60).json())

        def waiting() -> int:
            figures = httpx2.get(f"{about['url']}/metrics").text
            return int(float(re.search(r"^lmtasks_waiting_texts (\S+)", figures, re.MULTILINE)[1]))

        ask()
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        while (in_line := waiting()) < 2:
            assert len(told) < 4, "there is a line, since one takes longer than to ask"
        before = len(told)
        process.send_signal(number)
        for thread in threads:
            thread.join()
        assert process.wait(60) == 128 + number
        assert process.stderr is not None
        said = process.stderr.read()
    wanted = predict(model_folders["gpt2"], text, do_sample=False, max_new_tokens=40, return_full_text=False)
    answered = [one for one in told if "choices" in one]
    assert len(answered) >= before + in_line - 1, "one may have left the line while it was counted"
    assert {one["choices"][0]["text"] for one in answered} == {wanted[0]["generated_text"]}
    assert f"ended; {len(answered)} texts were answered" in said
    assert "Traceback" not in said and "error" not in said


def test_it_says_where_it_is_and_keeps_to_this_machine(model_folders: dict[str, Path]) -> None:
    with serving(model_folders["roberta"], "--name", "mine", "--guesses", 2) as (_, about):
        assert about["url"].startswith("http://127.0.0.1:")
        assert httpx2.get(about["url"]).json()["model"] == "mine"
        answer = httpx2.post(about["url"], json={"inputs": "a <mask>", "parameters": {"top_k": 3}})
        assert answer.json()["error"] == "3 guesses: 2 is the most here"


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_another_host_is_asked_for(host: str, model_folders: dict[str, Path]) -> None:
    with serving(model_folders["roberta"], "--host", host) as (_, about):
        port = about["url"].rpartition(":")[2]
        at = "[::1]" if ":" in host else "127.0.0.1"
        assert httpx2.get(f"http://{at}:{port}/health").json() == {"status": "ok"}


def test_a_port_that_is_taken_is_named(model_folders: dict[str, Path], lmtasks: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lmtasks("serve", model_folders["roberta"], "--port", port)
    assert done.code == 2 and f"error: cannot listen on 127.0.0.1, port {port}: Address already in use" in done.err
    assert "hint: another --port, or --port 0" in done.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--port", 70000), "--port 70000 is no port"),
        (("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--timeout", 0), "--timeout 0.0 leaves nothing to be answered"),
        (("--batch_size", "many"), "argument --batch_size: invalid int value: 'many'"),
        (("--revision", "v1"), "has no revisions"),
        (("--temperature", 1), "unrecognized arguments: --temperature 1"),
    ],
)
def test_a_mistake_is_two_lines(flags: Any, says: str, model_folders: dict[str, Path], lmtasks: Any) -> None:
    done = lmtasks("serve", model_folders["roberta"], "--port", 0, *flags)
    error, hint = done.err.strip().splitlines()[-2:]
    assert done.code == 2 and error.startswith("error: ") and says in error and hint.startswith("hint: ")


def test_a_model_that_is_not_there_is_named(lmtasks: Any, tmp_path: Path) -> None:
    done = lmtasks("serve", tmp_path / "nothing", "--port", 0)
    assert done.code == 2 and "nothing" in done.err


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "prometheus_client"])
def test_what_is_not_installed_is_named(
    package: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = lmtasks("serve", tmp_path)
    assert done.code == 2
    assert f"error: serving needs the package {package}" in done.err
    assert "hint: pip install 'lmtasks[serve]'" in done.err


def test_when_it_says_that_it_is_ready_it_can_be_reached(model_folders: dict[str, Path]) -> None:
    served = Served(Predictor(str(model_folders["roberta"]), MASKED_LM), "roberta", Limits())
    reached: list[bool] = []
    with listener("127.0.0.1", 0) as listening:

        def ready() -> None:
            with suppress(ConnectionRefusedError), socket.create_connection(listening.getsockname()):
                reached.append(True)
            made.should_exit = True

        made = server(served, listening, "127.0.0.1", ready)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]})
        thread.start()
        thread.join(60)
    assert reached == [True]
