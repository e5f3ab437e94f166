"""The figures of a run or an evaluation, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def _print_json(content: Any) -> None:
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _report(result: Any) -> None:
    """What came of a run, for people."""
    for line in _figures(result.metrics, result.perplexity_name):
        print(line)
    starter = result.recipe.starter
    if starter and starter.texts and result.started_small:
        print("\npredictions")
        for text in starter.texts:
            output = result.predict(text, **starter.predict)
            print(f"  {text}")
            for line in result.recipe.answers(output):
                print(f"    {line}")
    print("\ntry next")
    print(f'  lmtasks predict {result.output_dir} "{result.recipe.example}"')
    print(f"  lmtasks evaluate {result.output_dir} --validation_file FILE")
    print(f"  lmtasks push {result.output_dir} USER/NAME")


def _figures(metrics: Mapping[str, float], perplexity_name: str) -> list[str]:
    """The evaluation figures, one a line, what matters first."""
    loss, unigram = metrics["eval_loss"], metrics.get("unigram_loss")
    than = ""
    if unigram is not None:
        side = "below" if loss <= unigram else "ABOVE"
        than = f", {abs(unigram - loss):.2f} {side} the unigram baseline of {unigram:.2f}"
    named = f" ({perplexity_name})" * (perplexity_name != "perplexity")
    rows = {
        "loss": f"{loss:.4f} nats per target{than}",
        "perplexity": f"{metrics['perplexity']:.2f}{named}" if "perplexity" in metrics else "",
        "accuracy": f"{metrics['accuracy']:.1%}" if "accuracy" in metrics else "",
        "bits per byte": f"{metrics['bits_per_byte']:.3f}" if "bits_per_byte" in metrics else "",
        "targets": f"{metrics['eval_targets']:,}",
    }
    views = [name.removesuffix("_log_likelihood") for name in metrics if name.endswith("_log_likelihood")]
    for view in views:
        rows[f"{view} loss"] = f"{metrics[f'{view}_loss']:.4f} nats per target"
        rows[f"{view} perplexity"] = f"{metrics[f'{view}_perplexity']:.2f}"
    told = ("perplexity", "accuracy", "bits_per_byte", "unigram_loss", "epoch", "total_flos")
    others = ("train_", "eval_", *(f"{view}_" for view in views))
    own = [name for name in metrics if name not in told and not name.startswith(others)]
    rows |= {name.replace("_", " "): f"{metrics[name]:.4g}" for name in own}
    width = max(14, *map(len, rows))
    return [f"{name:<{width}} {text}" for name, text in rows.items() if text]
