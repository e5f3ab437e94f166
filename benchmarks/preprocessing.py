"""How fast text becomes blocks of tokens, and how much memory that takes.

    python benchmarks/preprocessing.py [--text FILE ...] [--tokenizer FOLDER] [--megabytes 20] [--rounds 5]
        [--memory 10 100 1000] [--quick]

Without ``--text`` and ``--tokenizer``: the embedded text, and a tokenizer trained on it on the spot.

Speed: MB of UTF-8 per second, each time in a process of its own, in alternation, so that a busy moment
hits them all; loading the text and starting Python do not count. ``encode_batch`` is the limit: the
tokenizer alone, all its threads, 1000 rows at a time, its result thrown away. lmtasks' figure is its
whole ``encode``: fingerprint of the text, tokens, blocks, files in the cache (not ``count_duplicates``).
The guide's is its ``map`` with ``group_texts``, which writes files as well.

Memory: the most anonymous memory (``RssAnon``, looked at every 5 ms) that a process has that loads text,
encodes both splits, prints their fingerprints and counts duplicates. Files that are mapped are not in it,
unlike in the peak that the system itself keeps (``VmHWM``): their pages are dropped when others need
memory, so they are not memory that the process must have. Imports and tokenizer are in it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BLOCK = 128
STATUS = Path("/proc/self/status")


# --- what is measured; each in a process of its own ---


def encode_batch(file: str, tokenizer: Any) -> float:
    with open(file, encoding="utf-8") as lines:
        texts = list(lines)
    began = time.perf_counter()
    for start in range(0, len(texts), 1000):
        tokenizer.backend_tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)
    return time.perf_counter() - began


def lmtasks(file: str, tokenizer: Any) -> float:
    from lmtasks import Blocks
    from lmtasks.config.settings import DataSettings
    from lmtasks.data.corpus import load_corpus
    from lmtasks.data.text.encode import encode

    split = load_corpus(DataSettings(validation_file=[file])).evaluation
    assert split is not None
    began = time.perf_counter()
    encode("benchmark's", split, tokenizer, Blocks(size=BLOCK), fresh=True)
    return time.perf_counter() - began


def guide(file: str, tokenizer: Any, num_proc: int | None = None) -> float:
    import datasets

    def preprocess(examples: dict[str, list[str]]) -> Any:
        return tokenizer(examples["text"])

    def group_texts(examples: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        whole: dict[str, list[int]] = {name: sum(rows, []) for name, rows in examples.items()}  # noqa: RUF017
        length = len(next(iter(whole.values()))) // BLOCK * BLOCK
        result = {name: [row[at : at + BLOCK] for at in range(0, length, BLOCK)] for name, row in whole.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    rows = datasets.load_dataset("text", data_files=file, split="train", keep_linebreaks=True)
    began = time.perf_counter()
    tokens = rows.map(preprocess, batched=True, num_proc=num_proc, remove_columns=rows.column_names)
    tokens.map(group_texts, batched=True, num_proc=num_proc)
    return time.perf_counter() - began


def guide_with_4(file: str, tokenizer: Any) -> float:
    return guide(file, tokenizer, 4)


def memory(file: str, tokenizer: Any) -> float:
    """MiB."""
    from lmtasks import Blocks
    from lmtasks.config.settings import DataSettings
    from lmtasks.data.corpus import count_duplicates, load_corpus
    from lmtasks.data.text.encode import encode

    peak = [0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    # A single line cannot be divided, so some of it is evaluated on.
    held_out = Path(file).with_name("held-out.txt")
    corpus = load_corpus(
        DataSettings(train_file=[file], validation_file=[str(held_out)] if held_out.exists() else None)
    )
    assert corpus.train is not None and corpus.evaluation is not None
    for split in (corpus.train, corpus.evaluation):
        packed = encode("benchmark's", split, tokenizer, Blocks(size=BLOCK))
        packed.fingerprint, next(packed.longest_first())
    count_duplicates(corpus.train, corpus.evaluation)
    return peak[0] / 2**10


def anonymous() -> int:
    """KiB of memory that no file stands behind."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))


WAYS: dict[str, Callable[[str, Any], float]] = {
    "`encode_batch` alone": encode_batch,
    "lmtasks": lmtasks,
    "guide": guide,
    "guide, `num_proc=4`": guide_with_4,
}


def measured(way: Callable[[str, Any], float], file: Path, tokenizer: str) -> float:
    """What one of them says, in a new process with empty caches."""
    with tempfile.TemporaryDirectory(dir=file.parent) as caches:
        environment = {**os.environ, "XDG_CACHE_HOME": caches, "HF_DATASETS_CACHE": caches, "HF_HUB_OFFLINE": "1"}
        environment.pop("TOKENIZERS_PARALLELISM", None)
        command = [sys.executable, __file__, "--measure", way.__name__, str(file), tokenizer]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return float(done.stdout.split()[-1])


def measure(way: str, file: str, tokenizer: str) -> None:
    from transformers import AutoTokenizer

    print(globals()[way](file, AutoTokenizer.from_pretrained(tokenizer)))


# --- what it is measured with ---


def lines_of(files: list[str]) -> list[str]:
    from lmtasks.data.sample import SAMPLES, sample_documents

    texts = [Path(file).read_text(encoding="utf-8-sig") for file in files]
    texts = texts or [document + "\n" for name in SAMPLES for document in sample_documents(name)]
    return [line for text in texts for line in text.splitlines(keepends=True)]


def numbered(lines: list[str], size: float) -> Iterator[str]:
    """So many bytes of the lines in random order, each with a number, so that hardly any two are the same."""
    generator, done, number = random.Random(0), 0, 0
    while done < size:
        number += 1
        line = f"{number} {generator.choice(lines)}"
        done += len(line.encode())
        yield line


def trained(lines: list[str], folder: Path) -> str:
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.models.tokenizer import train_tokenizer

    assert MASKED_LM.tokenizer is not None
    train_tokenizer([lines], 8000, MASKED_LM.tokenizer).save_pretrained(folder)
    return str(folder)


# --- the tables ---


def speed_table(lines: list[str], tokenizer: str, size: float, rounds: int, folder: Path) -> None:
    file = folder / "speed.txt"
    with file.open("w", encoding="utf-8", newline="") as text:
        # Plain repetition: real lines as they follow each other.
        left = size * 1e6
        for line in itertools.cycle(lines):
            left -= text.write(line)
            if left < 0:
                break
    megabytes = file.stat().st_size / 1e6
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            times[name].append(measured(way, file, tokenizer))
    print(f"| {megabytes:.1f} MB of text | MB/s, median of {rounds} | of `encode_batch` | lmtasks is faster by |")
    print("|---|---|---|---|")
    for name, seconds in times.items():
        # Of each round by itself: what slows the whole machine down cancels out.
        share = statistics.median(raw / own for raw, own in zip(times["`encode_batch` alone"], seconds, strict=True))
        ratio = statistics.median(own / ours for own, ours in zip(seconds, times["lmtasks"], strict=True))
        print(f"| {name} | {megabytes / statistics.median(seconds):.2f} | {share:.2f} | {ratio:.1f} × |")


def memory_table(lines: list[str], tokenizer: str, sizes: list[float], longest: float, folder: Path) -> None:
    print("| text | peak of anonymous memory, MiB | × the first |")
    print("|---|---|---|")
    if not STATUS.exists():
        print("| not measured: no `/proc` here | | |")
        return
    file, first = folder / "memory.txt", 0.0
    for size, one_line in [*((size, False) for size in sizes), (longest, True)]:
        with file.open("w", encoding="utf-8", newline="") as text:
            rows = numbered(lines, size * 1e6)
            text.writelines(row.replace("\n", " ") for row in rows) if one_line else text.writelines(rows)
        if one_line:
            (folder / "held-out.txt").write_text("".join(lines[:100]), encoding="utf-8")
        peak = measured(memory, file, tokenizer)
        first = first or peak
        print(f"| {size:g} MB{' in a single line' if one_line else ''} | {peak:.0f} | {peak / first:.2f} |", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--tokenizer", metavar="FOLDER")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=float, nargs="+", default=[10, 100, 1000], metavar="MB")
    parser.add_argument("--longest", type=float, default=100, metavar="MB", help="the single line")
    parser.add_argument("--quick", action="store_true", help="everything once and small, to see whether it works")
    given = parser.parse_args()
    if given.quick:
        given.megabytes, given.rounds, given.memory, given.longest = 0.1, 1, [0.1, 0.2], 0.2
    lines = lines_of(given.text)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = given.tokenizer or trained(lines, folder / "tokenizer")
        speed_table(lines, tokenizer, given.megabytes, given.rounds, folder)
        print()
        memory_table(lines, tokenizer, given.memory, given.longest, folder)


if __name__ == "__main__":
    main()
