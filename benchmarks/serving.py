"""How many requests a second `lmtasks serve` answers on the loopback interface, and whether each gets its own answer.

    python benchmarks/serving.py [--clients 64] [--requests 10000] [--quick]

A server of its own process fills masks with a model of 6 layers of 256 and random weights. First one client asks one
text after the other, whose answers are the truth from then on. Then the ways alternate: one client, many clients with a
server that does not batch, and many clients, each on a connection of its own. What they get must be the text's own
guesses, in order, with probabilities that differ by rounding alone. The server's memory is read after each round.

Exit code 1 where a figure is not what it should be; ``--quick`` is tiny, judges no speed, and shows that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from measuring import print_table
from transformers import AutoConfig, AutoModelForMaskedLM

from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.data.sample import sample_documents
from lmtasks.models.tokenizer import train_tokenizer

ROUNDS, SHARE = 10, 10
"""Rounds, in which the ways of asking alternate, so that a busy moment hits them all; the slow ones ask a tenth."""

LEAST, GROWTH, ROUNDING = 3.0, 1.05, 1e-4
"""What is wanted: requests a second against one by one, memory at the end against a tenth, and of probabilities."""


@dataclass(frozen=True)
class Size:
    """How much is measured, and on what."""

    clients: int
    requests: int
    texts: int
    tokens: int
    shape: dict[str, int]


FULL = Size(
    64, 10_000, 500, 8000,
    {"num_hidden_layers": 6, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
)  # fmt: skip
QUICK = Size(
    8, 400, 20, 400,
    {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model and few requests")
    for name in ("clients", "requests"):
        parser.add_argument(f"--{name}", type=int, help=f"default: {getattr(FULL, name)}")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    quick = given.pop("quick")
    size = Size(**{**vars(QUICK if quick else FULL), **given})
    with tempfile.TemporaryDirectory() as folder:
        texts = new_model(Path(folder), size)
        with server(folder) as (url, process), server(folder, "--batch_size", "1") as other:
            for where in ((url, process), other):
                asyncio.run(measured(*where, 1, texts[:20]))  # the first answers take longer
            truth = dict(zip(texts, asyncio.run(measured(url, process, 1, texts)).answers, strict=True))
            ways = {
                "1 client": lambda asked: measured(url, process, 1, asked[: len(asked) // SHARE]),
                f"{size.clients} clients, --batch_size 1": lambda asked: measured(
                    *other, size.clients, asked[: len(asked) // SHARE]
                ),
                f"{size.clients} clients": lambda asked: measured(url, process, size.clients, asked),
            }
            asked = itertools.cycle(random.Random(1).sample(texts, len(texts)))
            seen: dict[str, list[Seen]] = {who: [] for who in ways}
            memory = []
            for _ in range(ROUNDS):
                some = list(itertools.islice(asked, size.requests // ROUNDS))
                for who, way in ways.items():
                    seen[who].append(asyncio.run(way(some)))
                memory.append(process.memory_info().rss)
    pairs = [(text, answer) for rounds in seen.values() for one in rounds for text, answer in one.pairs]
    wrong = sum(not same(truth[text], answer) for text, answer in pairs)
    print_table(
        f"{len(texts)} texts, {torch.get_num_threads()} threads, {ROUNDS} rounds",
        ("who asks", "requests", "requests/s", "× one by one", "median ms", "p95 ms", "server's CPU ms"),
        [(who, *told(rounds, seen["1 client"])) for who, rounds in seen.items()],
    )
    gain = ratio(seen[f"{size.clients} clients"], seen["1 client"])
    print(f"\nlost or mixed up: {wrong} of {len(pairs):,}")
    print(f"memory of the server: {memory[0] / 2**20:.0f} MiB after a tenth, {memory[-1] / 2**20:.0f} MiB at the end")
    return 0 if not wrong and memory[-1] <= memory[0] * GROWTH and (quick or gain >= LEAST) else 1


def ratio(ours: list[Seen], theirs: list[Seen]) -> float:
    """Median over the rounds of requests a second against those of others in the same round."""
    return statistics.median(one.rate / other.rate for one, other in zip(ours, theirs, strict=True))


def told(rounds: list[Seen], alone: list[Seen]) -> list[str]:
    """The cells of a row: medians over the rounds, times over all requests."""
    seconds = [one for seen in rounds for one in seen.seconds]
    return [
        f"{len(seconds):,}",
        f"{statistics.median(seen.rate for seen in rounds):.0f}",
        f"{ratio(rounds, alone):.2f}",
        f"{statistics.median(seconds) * 1e3:.1f}",
        f"{statistics.quantiles(seconds, n=20)[-1] * 1e3:.1f}",
        f"{sum(seen.cpu for seen in rounds) / len(seconds) * 1e3:.1f}",
    ]


def new_model(folder: Path, size: Size) -> list[str]:
    """Saves a model and its tokenizer; texts with a mask each, some 10 to 30 tokens long, no two alike."""
    documents = sample_documents("python")
    tokenizer = train_tokenizer([documents], size.tokens, MASKED_LM.tokenizer)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    config = AutoConfig.for_model(
        "roberta", **size.shape, **ids, vocab_size=len(tokenizer), max_position_embeddings=514
    )
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    words = list(itertools.chain.from_iterable(document.split() for document in documents))
    draw = random.Random(0)
    texts: dict[str, None] = {}
    while len(texts) < size.texts:
        length = draw.randint(4, 12)
        start = draw.randrange(len(words) - length)
        text = words[start : start + length]
        text[draw.randrange(length)] = "<mask>"
        texts[" ".join(text)] = None
    return list(texts)


@contextmanager
def server(folder: str, *flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server of the model, its address and its process."""
    command = [sys.executable, "-m", "lmtasks", "serve", folder, "--port", "0", "--json", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            told += (line := process.stdout.readline())
            assert line, "the server did not start"
        try:
            yield json.loads(told)["url"], psutil.Process(process.pid)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Seen:
    """What clients saw: each text with its answer, the seconds that each took, and all together.

    ``cpu`` are the server's own seconds, which others on the machine change less.
    """

    pairs: list[tuple[str, Any]]
    seconds: list[float]
    whole: float
    cpu: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.pairs) / self.whole

    @property
    def answers(self) -> list[Any]:
        """In the order of the texts."""
        return [answer for _, answer in self.pairs]


async def measured(url: str, process: psutil.Process, clients: int, texts: list[str]) -> Seen:
    """What some clients see who ask these texts, each taking the next one as soon as it has its answer."""
    answers: list[Any] = [None] * len(texts)
    seconds = [0.0] * len(texts)
    numbers = iter(range(len(texts)))

    async def client() -> None:
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for number in numbers:
            began = time.perf_counter()
            answers[number] = await ask(reader, writer, texts[number])
            seconds[number] = time.perf_counter() - began
        writer.close()

    began, before = time.perf_counter(), process.cpu_times()
    await asyncio.gather(*(client() for _ in range(clients)))
    whole, after = time.perf_counter() - began, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Seen(list(zip(texts, answers, strict=True)), seconds, whole, cpu)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> Any:
    """The answer to a text; by hand, since a client of a library would take more of the machine than the server."""
    body = json.dumps({"inputs": text, "parameters": {"top_k": 5}}).encode()
    fields = ("host: localhost", "content-type: application/json", f"content-length: {len(body)}")
    writer.write("\r\n".join(["POST / HTTP/1.1", *fields, "", ""]).encode() + body)
    status, *head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
    length = next(int(field.partition(":")[2]) for field in head if field.startswith("content-length:"))
    content = await reader.readexactly(length)
    return json.loads(content) if " 200 " in status else {"status": status}


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same guesses, to rounding; neighbours of equal probability may change places."""
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return False
    told = {guess["token"]: guess for guess in one}
    scores = all(abs(a["score"] - b["score"]) <= ROUNDING * a["score"] for a, b in zip(one, other, strict=True))
    known = [guess for guess in other if guess["token"] in told]
    # One may fall out at the end of the list, where the next is as likely.
    return scores and len(known) >= len(one) - 1 and all(told[g["token"]]["sequence"] == g["sequence"] for g in known)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
