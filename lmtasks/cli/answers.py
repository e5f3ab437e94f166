"""The answers of commands, for people and for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmtasks.config.evaluation_sets import set_names, set_of
from lmtasks.errors import InputError
from lmtasks.progress import fitted


def tell(content: Any, lines: Iterable[str], *, as_json: bool) -> int:
    """The exit code of a command whose answer is told: as the one document of ``--json``, or line by line."""
    for line in [json_text(content, indent=2)] if as_json else lines:
        print(line)
    return 0


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON as stdout takes it: with letters as they are, where its encoding has them all."""
    letters = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    return json.dumps(content, indent=indent, ensure_ascii=not letters, default=str)


def tell_rows(content: Any, rows: Iterable[str], *, as_json: bool) -> int:
    """As :func:`tell`, of names and texts about them, which are fitted to the columns of a terminal."""
    return tell(content, fitted(rows, sys.stdout), as_json=as_json)


def run_lines(result: Any) -> Iterator[str]:
    """The outcome of a run, for people."""
    from lmtasks.artifacts.run_folder import REPORT
    from lmtasks.artifacts.shell import shell_quoted
    from lmtasks.artifacts.verdict import ten_times

    yield from fitted(figure_lines(result.metrics, result.perplexity_name), sys.stdout)
    starter = result.recipe.starter
    if starter and starter.texts and result.example and result.started_small:
        yield "\npredictions"
        # To text of the user's own, prompts about Python say nothing.
        yield from _predictions(result, starter.texts if result.example in starter.texts else [result.example])
    verdict = result.verdict
    if verdict and verdict.sentences:
        yield "\nverdict"
        sentences = filter(None, (*verdict.sentences, ten_times(result.metrics)))
        yield from fitted((f"  {sentence}" for sentence in sentences), sys.stdout)
    yield "\ntry next"
    if verdict and verdict.flags:
        yield f"  the same command with {verdict.flags}"
    yield f"  open {result.output_dir / REPORT} in a browser"
    yield f"  lmtasks predict {result.output_dir} {shell_quoted(result.example or result.recipe.example)}"
    yield f"  lmtasks evaluate {result.output_dir} --validation_file FILE"
    if not verdict or verdict.publishable:
        yield f"  lmtasks push {result.output_dir} USER/NAME"


def _predictions(result: Any, texts: Sequence[str]) -> Iterator[str]:
    """The model's answers; why it has none, where it cannot answer: the run is done all the same."""
    for text in texts:
        try:
            output = result.predict(text, **result.recipe.starter.predict)
        except InputError as error:
            yield f"  none: {error.message}"
            return
        yield f"  {text}"
        yield from (f"    {line}" for line in result.recipe.answers(output))


def figure_lines(metrics: Mapping[str, float], perplexity_name: str) -> list[str]:
    """The evaluation figures, one a line, what matters first; where sets have names, those of one after the other."""
    sets = set_names(metrics)
    own: dict[str, dict[str, float]] = {name: {} for name in ("", *sets)}
    for figure, value in metrics.items():
        name, plain = set_of(figure, sets)
        own[name][plain] = value
    told = {name: own[name] for name in sets} or own
    terms = [figure.removeprefix("eval_") for figure in own[""] if re.fullmatch("eval_.+_loss", figure)]
    rows = {
        f"{name} {row}".strip(): text
        for name, figures in told.items()
        for row, text in _rows(figures, perplexity_name, terms).items()
    }
    width = max(14, *map(len, rows))
    return [f"{row:<{width}} {text}" for row, text in rows.items()]


def _rows(metrics: Mapping[str, float], perplexity_name: str, terms: Sequence[str]) -> dict[str, str]:
    """The figures of one set in words; ``terms`` are what the means of a loss's terms are called."""
    loss, unigram = metrics["eval_loss"], metrics.get("unigram_loss")
    than = ""
    if unigram is not None and not terms:
        side = "below" if loss <= unigram else "ABOVE"
        than = f", {abs(unigram - loss):.2f} {side} the unigram baseline of {unigram:.2f}"
    named = f" ({perplexity_name})" * (perplexity_name != "perplexity")
    rows = {
        "loss": f"{loss:.4f}, the weighted sum of its terms" if terms else f"{loss:.4f} nats per target{than}",
        **{name.replace("_", " "): f"{metrics.get(f'eval_{name}', metrics.get(name)):.4g}" for name in terms},
        "perplexity": f"{metrics['perplexity']:.2f}{named}" if "perplexity" in metrics else "",
        "accuracy": f"{metrics['accuracy']:.1%}" if "accuracy" in metrics else "",
        "bits per byte": f"{metrics['bits_per_byte']:.3f}" if "bits_per_byte" in metrics else "",
        "targets": f"{metrics['eval_targets']:,}",
    }
    views = [name.removesuffix("_log_likelihood") for name in metrics if name.endswith("_log_likelihood")]
    for view in views:
        rows[f"{view} loss"] = f"{metrics[f'{view}_loss']:.4f} nats per target"
        rows[f"{view} perplexity"] = f"{metrics[f'{view}_perplexity']:.2f}"
    told = ("perplexity", "accuracy", "bits_per_byte", "unigram_loss", "epoch", "total_flos", *terms)
    others = ("train_", "eval_", *(f"{view}_" for view in views))
    own = [name for name in metrics if name not in told and not name.startswith(others)]
    rows |= {name.replace("_", " "): f"{metrics[name]:.4g}" for name in own}
    return {name: text for name, text in rows.items() if text}
