"""How many requests a second `lmtasks serve` answers on the loopback interface, and whether each gets its own answer.

    python benchmarks/serving.py [--clients 64] [--requests 10000] [--quick]

A server of its own process fills masks with a model of 6 layers of 256 and random weights. First one client asks one
text after the other, whose answers are the truth from then on; then many clients at once, each on a connection of its
own, again and again from the same texts. What they get must be the text's own guesses, in order, with probabilities
that differ by rounding alone. The server's memory is read after a tenth of the requests and at the end.

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
    8, 80, 20, 400,
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
        with server(folder) as (url, process):
            asyncio.run(measured(url, 1, texts[:20]))  # the first answers take longer
            alone = asyncio.run(measured(url, 1, texts))
            truth = dict(zip(texts, alone.answers, strict=True))
            asked = list(itertools.islice(itertools.cycle(random.Random(1).sample(texts, len(texts))), size.requests))
            many = asyncio.run(measured(url, size.clients, asked[: size.requests // 10]))
            early = process.memory_info().rss
            many = asyncio.run(measured(url, size.clients, asked))
            late = process.memory_info().rss
        with server(folder, "--batch_size", "1") as (url, _):
            unbatched = asyncio.run(measured(url, size.clients, asked[: len(texts)]))
    wrong = sum(not same(truth[text], answer) for text, answer in zip(asked, many.answers, strict=True))
    rows = {"1 client, one by one": alone, f"{size.clients} clients, --batch_size 1": unbatched}
    rows |= {f"{size.clients} clients": many}
    print_table(
        f"{len(texts)} texts, {torch.get_num_threads()} threads",
        ("who asks", "requests", "requests/s", "× one by one", "median ms", "p95 ms"),
        [
            (who, f"{len(seen.answers):,}", f"{seen.rate:.0f}", f"{seen.rate / alone.rate:.2f}", *seen.told())
            for who, seen in rows.items()
        ],
    )
    print(f"\nlost or mixed up: {wrong} of {len(asked):,}")
    print(f"memory of the server: {early / 2**20:.0f} MiB after a tenth, {late / 2**20:.0f} MiB at the end")
    good = not wrong and late <= early * GROWTH
    return 0 if good and (quick or many.rate >= LEAST * alone.rate) else 1


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
    """Answers in the order of the questions, the seconds that each took, and all together."""

    answers: list[Any]
    seconds: list[float]
    whole: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.answers) / self.whole

    def told(self) -> tuple[str, str]:
        """Median and 95th percentile of the times, in milliseconds."""
        times = statistics.median(self.seconds), statistics.quantiles(self.seconds, n=20)[-1]
        return f"{times[0] * 1e3:.1f}", f"{times[1] * 1e3:.1f}"


async def measured(url: str, clients: int, texts: list[str]) -> Seen:
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

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Seen(answers, seconds, time.perf_counter() - began)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> Any:
    """The answer to a text; by hand, since a client of a library would take more of the machine than the server."""
    body = json.dumps({"inputs": text, "parameters": {"top_k": 5}}).encode()
    fields = ("host: localhost", "content-type: application/json", f"content-length: {len(body)}")
    writer.write("\r\n".join(["POST / HTTP/1.1", *fields, "", ""]).encode() + body)
    status, *told = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
    length = next(int(field.partition(":")[2]) for field in told if field.startswith("content-length:"))
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
