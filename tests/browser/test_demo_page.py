"""The page to try a model on, clicked through; and that nothing leaves this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from launched import first_document

from lmtasks.api import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.inference.predictor import Predictor
from lmtasks.serving.limits import Limits
from lmtasks.serving.served import Served

pytest.importorskip("gradio", reason="tox run -e browser has it")
# Gradio's, about what it uses itself.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]

WAIT = 30_000
"""Milliseconds."""


@pytest.fixture(scope="module", autouse=True)
def called() -> Iterator[list[Any]]:
    """Addresses of other machines that this process has tried to reach."""
    told: list[Any] = []
    connect = socket.socket.connect

    def recorded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
            told.append(address)
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", recorded)
        yield told
    assert told == []


@dataclass
class Opened:
    """A page in the browser, what it said and whom it asked; ``predictor`` knows the answers."""

    page: Any
    served: Served
    predictor: Predictor
    url: str

    def assert_clean(self) -> None:
        assert self.page.said == []
        assert [url for url in self.page.asked if not url.startswith((self.url, "data:", "blob:"))] == []


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a model."""
    from lmtasks.serving.page import CLOSED, THEME, new_page

    @contextmanager
    def open_page(folder: Path, recipe: Recipe, width: int = 1000, **limits: Any) -> Iterator[Opened]:
        served = Served(Predictor(str(folder), recipe), folder.name, Limits(**limits))
        made = new_page(served)
        _, url, _ = made.launch(
            server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False, theme=THEME, **CLOSED
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.said, page.asked = [], []
        page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        yield Opened(page, served, Predictor(str(folder), recipe), url.rstrip("/"))
        page.close()
        made.close(verbose=False)
        served.close()

    return open_page


def test_masks_have_bars_one_by_one(opened: Any, model_folders: dict[str, Path]) -> None:
    text = "the <mask> and the <mask>"
    with opened(model_folders["roberta"], MASKED_LM) as here:
        page = here.page
        page.get_by_label("Text").fill(text)
        page.get_by_role("button", name="Fill in").click()
        for number, guesses in enumerate(here.predictor.predict(text), 1):
            label = page.locator(".block", has_text=f"Mask {number}").last
            label.wait_for(timeout=WAIT)
            names = [name.strip() for name in label.locator(".label .text").all_inner_texts()]
            assert len(names) == len(guesses) == 5
            assert names[0] in (guesses[0]["token_str"].strip(), repr(guesses[0]["token_str"]))
        page.get_by_label("Text").fill("one <mask>")
        page.get_by_label("Text").press("Control+End")
        page.get_by_role("button", name="Fill in").click()
        page.get_by_text("Mask 2").wait_for(state="detached", timeout=WAIT)
        here.assert_clean()


def test_a_mistake_is_told_on_the_page(opened: Any, model_folders: dict[str, Path]) -> None:
    with opened(model_folders["roberta"], MASKED_LM) as here:
        here.page.get_by_label("Text").fill("no mask")
        here.page.get_by_role("button", name="Fill in").click()
        here.page.get_by_text(re.compile("No mask_token .* found on the input")).first.wait_for(timeout=WAIT)
        here.assert_clean()


def test_a_text_is_continued_with_the_controls_there_are(opened: Any, model_folders: dict[str, Path]) -> None:
    with opened(model_folders["gpt2"], CAUSAL_LM) as here:
        page = here.page
        page.get_by_label("Text").fill("the list is")
        page.get_by_label("number input for New tokens, at most").fill("7")
        page.get_by_text("How tokens are drawn").click()
        page.get_by_label("Draw tokens").uncheck()
        answer = page.get_by_label("Continuation")
        (wanted,) = here.predictor.predict("the list is", do_sample=False, max_new_tokens=7)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_function(
            "wanted => [...document.querySelectorAll('textarea')].some(one => one.value === wanted)",
            arg=wanted["generated_text"],
            timeout=WAIT,
        )
        page.get_by_label("Draw tokens").check()
        page.get_by_label("Seed").fill("3")
        how = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 3}
        (drawn,) = here.predictor.predict("the list is", do_sample=True, max_new_tokens=7, **how)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_function(
            "wanted => [...document.querySelectorAll('textarea')].some(one => one.value === wanted)",
            arg=drawn["generated_text"],
            timeout=WAIT,
        )
        assert answer.input_value() == drawn["generated_text"] != wanted["generated_text"]
        here.assert_clean()


def test_a_continuation_grows_and_can_be_stopped(
    opened: Any, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    import time

    import torch

    plain = torch.nn.Embedding.forward
    steps: list[int] = []

    def forward(self: Any, ids: Any) -> Any:
        if threading.current_thread().name == "lmtasks-worker":
            steps.append(1)
            time.sleep(0.1)
        return plain(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", forward)
    with opened(model_folders["gpt2"], CAUSAL_LM) as here:
        page = here.page
        page.get_by_label("Text").fill("the list is")
        page.get_by_text("How tokens are drawn").click()
        page.get_by_label("Draw tokens").uncheck()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('textarea')].some(one => one.value.length > 'the list is is'.length)",
            timeout=WAIT,
        )
        page.get_by_role("button", name="Stop").click()
        deadline = time.monotonic() + 30
        while not here.served.worker.batches and time.monotonic() < deadline:
            time.sleep(0.05)
        assert here.served.worker.batches == 1 and len(steps) < 2 * 50, "the rest was not computed for nobody"
        here.assert_clean()


def test_any_recipe_has_its_prompt_and_its_answers(
    opened: Any, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting_pipeline.py").write_text(
        "from transformers import Pipeline\n"
        "class Counting(Pipeline):\n"
        "    def _sanitize_parameters(self, **_): return {}, {}, {}\n"
        "    def preprocess(self, text): return self.tokenizer(text, return_tensors='pt')\n"
        "    def _forward(self, inputs): return {'tokens': inputs['input_ids']}\n"
        "    def postprocess(self, outputs): return int(outputs['tokens'].shape[-1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = replace(
        MASKED_LM,
        name="counting",
        pipeline="counting_pipeline:Counting",
        gap="",
        answers=lambda count: [f"{count} tokens", "are there"],
    )
    with opened(model_folders["roberta"], recipe) as here:
        here.page.get_by_label("Text").fill("the list is")
        here.page.get_by_role("button", name="Answer").click()
        wanted = f"{here.predictor.predict('the list is')} tokens\nare there"
        here.page.wait_for_function(
            "wanted => [...document.querySelectorAll('textarea')].some(one => one.value === wanted)",
            arg=wanted,
            timeout=WAIT,
        )
        here.assert_clean()


def test_it_can_be_read_on_a_phone(opened: Any, model_folders: dict[str, Path]) -> None:
    with opened(model_folders["gpt2"], CAUSAL_LM, width=360) as here:
        here.page.get_by_role("button", name="Continue").wait_for(timeout=WAIT)
        assert here.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert here.page.get_by_role("heading", name="gpt2").is_visible()
        here.assert_clean()


# --- the command ---


@contextmanager
def shown(*words: Any, environment: Any = None) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lmtasks", "demo", *map(str, words), "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()  # whatever has failed, nobody waits for a server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_shows_it_until_a_signal_comes(number: int, model_folders: dict[str, Path], browser: Any) -> None:
    with shown(model_folders["roberta"]) as process:
        about = first_document(process)
        assert about["url"].startswith("http://127.0.0.1:") and about["public_url"] is None
        page = browser.new_page()
        page.goto(about["url"])
        page.get_by_role("button", name="Fill in").wait_for(timeout=WAIT)
        assert page.get_by_label("Text").input_value() == MASKED_LM.example
        page.close()
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert "Traceback" not in process.stderr.read()


def test_without_gradios_servers_nothing_is_shared(model_folders: dict[str, Path]) -> None:
    """Only --share asks them; here they cannot be reached."""
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    nowhere["no_proxy"] = "127.0.0.1,localhost"
    with shown(model_folders["roberta"], "--share", environment=nowhere) as process:
        assert process.wait(120) == 3
        said = process.stderr.read()
    assert "error: there is no public address: Gradio's servers gave none" in said


def test_a_page_without_gradio_says_how_to_install_it(lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("lmtasks.serving.page")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys.modules["lmtasks.serving"], "page", None, raising=False)
    monkeypatch.delattr(sys.modules["lmtasks.serving"], "page")
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = lmtasks("demo", "nowhere")
    assert done.code == 2
    assert "error: a page needs the package gradio" in done.err and "hint: pip install 'lmtasks[demo]'" in done.err
