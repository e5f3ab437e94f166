"""A page on which a model is tried: Gradio's widgets before the worker that the HTTP server has, too.

Nothing on it comes from elsewhere: fonts are those of the reader's system, and Gradio reports to nobody.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

# Before gradio is imported, which reads it once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from lmtasks.inference.continuing import Token
from lmtasks.serving.refusals import refusal_of
from lmtasks.serving.served import Served

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

CLOSED = {"footer_links": [], "ssr_mode": False, "enable_monitoring": False, "mcp_server": False, "run_history": False}
"""What Gradio would offer besides, or send to a server of its own."""


def new_page(served: Served, example: str = "") -> gr.Blocks:
    """A page for the model, in the way of its recipe; :data:`THEME` and :data:`CLOSED` are for its launch.

    Args:
        example: a prompt to begin with; the recipe's when empty.
    """
    recipe = served.predictor.recipe
    with gr.Blocks(title=served.name, analytics_enabled=False) as page:
        gr.Markdown(f"# {_plain(served.name)}\n\n{recipe.name}: {recipe.summary}")
        prompt = gr.Textbox(example or recipe.example, label="Text", lines=3, info=_advice(served))
        ways = {"masks": _masks, "continuations": _continuations, "other": _other}
        ways[served.kind](served, prompt)
    return page


def _plain(name: str) -> str:
    """A name that means nothing to Markdown."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>#&$" else character for character in name)


def _advice(served: Served) -> str:
    gap = served.predictor.recipe.gap
    return f"Write {gap} where a word is missing; there may be several." if gap else ""


def _masks(served: Served, prompt: gr.Textbox) -> None:
    """Guesses as bars, mask by mask."""
    most = min(50, served.limits.guesses, len(served.predictor.tokenizer))
    count = gr.Slider(1, most, min(5, most), step=1, label="Guesses for each mask")
    button = gr.Button("Fill in", variant="primary")
    found = gr.State(None)

    def fill(text: str, top_k: int) -> list[dict[str, float]]:
        answer = _answer(served, text, {"top_k": int(top_k)})
        masks = answer if answer and isinstance(answer[0], list) else [answer]
        return [_bars(mask) for mask in masks]

    @gr.render(inputs=found)  # type: ignore[untyped-decorator]
    def show(masks: list[dict[str, float]] | None) -> None:
        for number, bars in enumerate(masks or [], 1):
            gr.Label(bars, label=f"Mask {number}" if len(masks or []) > 1 else "Mask")

    gr.on([button.click, prompt.submit], fill, [prompt, count], found, api_name="fill")


def _bars(guesses: list[Mapping[str, Any]]) -> dict[str, float]:
    """Probabilities by what is read: a space before a word is no part of it, but where both are guesses."""
    bars: dict[str, float] = {}
    for guess in guesses:
        token = guess["token_str"]
        name = token.strip() or repr(token)
        bars[name if name not in bars else repr(token)] = guess["score"]
    return bars


def _continuations(served: Served, prompt: gr.Textbox) -> None:
    """A continuation that grows as it is made."""
    most = served.limits.new_tokens
    length = gr.Slider(1, most, min(100, most), step=1, label="New tokens, at most")
    with gr.Accordion("How tokens are drawn", open=False):
        draw = gr.Checkbox(True, label="Draw tokens", info="otherwise always the likeliest")
        warmth = gr.Slider(0.1, 2, 0.8, step=0.05, label="Temperature")
        top_k = gr.Slider(0, 200, 50, step=1, label="Of so many of the likeliest (top k; 0: all)")
        top_p = gr.Slider(0.05, 1, 0.95, step=0.05, label="Of this share of the probability (top p)")
        penalty = gr.Slider(1, 2, 1, step=0.05, label="Penalty of repetition")
        seed = gr.Number(None, label="Seed", info="the same one draws the same again", precision=0, minimum=0)
    with gr.Row():
        button = gr.Button("Continue", variant="primary")
        stop = gr.Button("Stop")
    answer = gr.Textbox(label="Continuation", lines=8)

    def tell(text: str, most: int, drawn: bool, *how: float) -> Iterator[str]:
        temperature, top_k, top_p, penalty, seed = how
        drawing = {"temperature": temperature, "top_k": int(top_k), "top_p": top_p} if drawn else {}
        given = {"new_tokens": int(most), "at_most": True, "do_sample": drawn, "repetition_penalty": penalty, **drawing}
        yield from _growing(served, text, {**given, "seed": None if seed is None or not drawn else int(seed)})

    controls = [prompt, length, draw, warmth, top_k, top_p, penalty, seed]
    begun = gr.on([button.click, prompt.submit], tell, controls, answer, api_name="continue")
    stop.click(None, cancels=[begun])


def _growing(served: Served, text: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """The text with its continuation so far, token by token."""
    come: queue.SimpleQueue[Token | None] = queue.SimpleQueue()
    with _explained():
        job = served.job([text], arguments, lambda _, token: come.put(token))
        done = served.worker.submit(job)
        done.add_done_callback(lambda _: come.put(None))
        try:
            told = text
            while (token := come.get(timeout=served.limits.timeout)) is not None:
                told += token.text
                yield told
            done.result()
        finally:  # also where the reader has stopped it, or left
            job.wanted = False


def _other(served: Served, prompt: gr.Textbox) -> None:
    """The recipe's own lines for people."""
    button = gr.Button("Answer", variant="primary")
    answer = gr.Textbox(label="Answer", lines=8)

    def tell(text: str) -> str:
        return "\n".join(served.predictor.recipe.answers(_answer(served, text, {})))

    gr.on([button.click, prompt.submit], tell, prompt, answer, api_name="answer")


def _answer(served: Served, text: str, arguments: Mapping[str, Any]) -> Any:
    with _explained():
        return served.worker.submit(served.job([text], arguments)).result(served.limits.timeout)[0]


class _explained:  # noqa: N801  (a context manager, like a function)
    """While this is open, what goes wrong is shown on the page in a sentence."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, TimeoutError | queue.Empty):
            raise gr.Error("it took too long", print_exception=False) from error
        if isinstance(error, Exception):
            # Gradio shows it as HTML.
            raise gr.Error(escape(refusal_of(error).message), print_exception=False) from error
