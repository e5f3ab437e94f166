"""The memory of a training at its peak: the guide's and lmtasks'.

    python benchmarks/step_memory.py [--only "masked-lm, 6"] [--steps 6] [--quick]

The models and steps of ``training_step.py``, each training in a process of its own. A peak is the resident memory of
the process, libraries included; beside it stands what is above that of the same process before the training.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from measuring import described, print_table, quiet_place
from training_step import Case, Effort, Text, parsed, text_of, with_guide, with_lmtasks

CONTESTANTS: dict[str, Callable[[Case, Text, Effort, Path], float]] = {
    "guide": partial(with_guide, bf16=False),
    "guide, bf16": partial(with_guide, bf16=True),
    "lmtasks": partial(with_lmtasks, bf16=None),
    "lmtasks, float32": partial(with_lmtasks, bf16=False),
}
WANTED = {"masked-lm, 6 × 768": 0.6}
"""Most of the guide's peak that lmtasks may take."""


def peak() -> float:
    """MiB that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def watched(name: str, model: str, words: Sequence[str], place: Path, answer: Connection) -> None:
    """In a process of its own: the peak of a training, whole and above that of what comes before it."""
    cases, effort = parsed(words)
    case = next(case for case in cases if case.name == model)
    with quiet_place():
        text = text_of(case, effort)
        text.tokenizer.save_pretrained(place / "tokenizer")
        before = peak()
        CONTESTANTS[name](case, text, effort, place)
        answer.send((peak(), peak() - before))


def peaks(name: str, model: str, words: Sequence[str], place: Path) -> tuple[float, float]:
    """MiB of a contestant, whole and above what was there before."""
    print(f"{model}: {name}", file=sys.stderr, flush=True)
    processes = get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=watched, args=(name, model, words, place, theirs))
    process.start()
    theirs.close()
    found: tuple[float, float] = ours.recv()
    process.join()
    return found


def main(words: Sequence[str] | None = None) -> None:
    words = ["--steps", "6", *(sys.argv[1:] if words is None else words)]
    cases, effort = parsed(words)
    with quiet_place() as place:
        found = {(case.name, name): peaks(name, case.name, words, place) for case in cases for name in CONTESTANTS}

    def rows() -> Iterator[list[str]]:
        for (case, name), (whole, above) in found.items():
            shares = (whole / found[case, "guide"][0], above / found[case, "guide"][1])
            yield [case, name, f"{whole:,.0f}", f"{shares[0]:.2f}", f"{above:,.0f}", f"{shares[1]:.2f}"]

    title = f"Memory of {effort.steps} steps of {effort.batch} × {effort.length} tokens ({described(effort.device)})"
    print_table(
        title, ("model", "what", "peak, MiB", "× guide", "without what was there before, MiB", "× guide"), rows()
    )
    for case, most in WANTED.items():
        if (case, "lmtasks") in found:
            share = found[case, "lmtasks"][0] / found[case, "guide"][0]
            print_table("Figures", ("figure", "measured", "wanted"), [[f"{case}: peak", f"{share:.2f}", f"≤ {most:g}"]])


if __name__ == "__main__":
    main()
