"""Reading of prepared data: memory, first batch, seek and speed, in several processes at once.

    python benchmarks/prepared.py [--tokens 1000000000] [--processes 2] [--url FOLDER]

Synthetic tokens are written as ``lmtasks prepare`` writes them, then read by processes that do nothing else, through
what a training reads them with: the data loader that accelerate divides, and its way of going on in mid-epoch. What is
printed is of the slowest process. The need is that of a training step of a masked-lm of 82 M weights, 774 tokens a
second on two cores; ``--need`` sets another, such as that of a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from measuring import print_table

VOCABULARY = 50_265
DOCUMENT = 1000
BATCH = 8
SPEED_FOR = 5.0
"""Seconds for which the speed of reading is measured."""


def write(url: str, tokens: int, block: int, shard_bytes: int) -> float:
    """Shards of random tokens, and a file that says what they are; the seconds that it took."""
    from lmtasks.api import Blocks
    from lmtasks.data.prepared.shard import SHORT, Shard, arrays_of
    from lmtasks.data.prepared.shard import write as write_arrays
    from lmtasks.data.prepared.store import Store
    from lmtasks.data.text.packing import cut
    from lmtasks.data.text.tokenize import Stream

    store, blocks, began = Store(url, "url"), Blocks(size=block), time.perf_counter()
    size = max(1, shard_bytes // SHORT.itemsize // block) * block

    def one(number: int) -> Shard:
        count = min(size, tokens - number * size)
        ids = np.random.default_rng(number).integers(VOCABULARY, size=count, dtype=np.int32)
        packed = cut(Stream(ids, np.arange(0, count, DOCUMENT)), blocks)
        arrays, examples = arrays_of(packed, 0, packed.end, SHORT)
        shard = Shard.of(f"train-{number:05}", arrays, examples)
        with store.new(shard.file) as path:
            write_arrays(arrays, path)
        return shard

    with ThreadPoolExecutor(2) as pool:
        shards = list(pool.map(one, range(-(-tokens // size))))
    told = {"sizes": {"tokens": tokens, "fingerprint": ""}, "per_example": block, "longest": 0, "notes": []}
    content = {"block": block, "told": told, "shards": [shard.as_record() for shard in shards]}
    store.write_json("benchmark.json", content)
    return time.perf_counter() - began


def read(url: str, rank: int, processes: int) -> dict[str, float]:
    """What one of the processes finds, in seconds, MB and tokens a second."""
    from accelerate import skip_first_batches
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader, SequentialSampler

    from lmtasks.api import Blocks
    from lmtasks.data.dataset import ExampleDataset
    from lmtasks.data.prepared.local_copies import LocalCopies
    from lmtasks.data.prepared.shard import Shard
    from lmtasks.data.prepared.sharded import Sharded
    from lmtasks.data.prepared.store import Store
    from lmtasks.training.positions import Positions

    before, began = memory(), time.perf_counter()
    store = Store(url, "url")
    told = store.read_json("benchmark.json") or {}
    shards = [Shard.read(entry) for entry in told["shards"]]
    files = LocalCopies(store, 10**11)
    dataset = ExampleDataset(Sharded(shards, told["told"], Blocks(size=told["block"]), files, seed=0), 0, training=True)
    plain: DataLoader[Any] = DataLoader(
        dataset, BATCH, sampler=SequentialSampler(dataset), collate_fn=lambda examples: examples
    )
    loader = prepare_data_loader(
        plain, num_processes=processes, process_index=rank, put_on_device=False, rng_types=[], even_batches=True
    )
    positions = Positions(len(dataset), BATCH, rank, processes, drop_last=False)
    positions.put_into(loader)
    next(iter(loader))
    first = time.perf_counter() - began

    began = time.perf_counter()
    positions.leave_out(len(loader) // 2)
    half = iter(skip_first_batches(loader, len(loader) // 2))
    next(half)
    sought = time.perf_counter()
    began_order = time.perf_counter()
    dataset.examples.order(len(dataset) // 2 + 1, 1)  # type: ignore[attr-defined]
    order = time.perf_counter() - began_order

    tokens, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SPEED_FOR and (batch := next(half, None)) is not None:
        tokens += sum(len(example["input_ids"]) for example in batch)
    return {
        "first batch, s": first,
        "seek to the middle and its first batch, s": sought - began,
        "place of the middle in the order alone, ms": 1000 * order,
        "tokens/s": tokens / spent,
        "memory at most, MB": memory(),
        "of it imports, MB": before,
    }


def memory() -> float:
    """The most that this process has had in memory so far, with what is mapped, in MB.

    Not ``ru_maxrss``, which a process inherits from the one that has started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=10**9)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--shard_size", type=float, default=64, help="MB")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--need", type=float, default=774, help="tokens a second of the training")
    parser.add_argument("--url", help="folder or URL for the shards; a temporary folder when not given")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank is not None:
        print(json.dumps(read(asked.url, asked.rank, asked.processes)))
        return
    with ExitStack() as stack:
        url = asked.url or stack.enter_context(tempfile.TemporaryDirectory())
        seconds = write(url, asked.tokens, asked.block, round(asked.shard_size * 10**6))
        command = [sys.executable, __file__, "--url", url, "--processes", str(asked.processes)]
        running = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, env={**os.environ})
            for rank in range(asked.processes)
        ]
        found = [json.loads(process.communicate()[0]) for process in running]
        shards = len([name for name in os.listdir(url) if name.endswith(".bin")]) if Path(url).is_dir() else 0
    worst = {name: (min if name == "tokens/s" else max)(one[name] for one in found) for name in found[0]}
    rows = [[name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}"] for name, value in worst.items()]
    rows.append([f"× the need, {asked.need:,.0f} tokens/s", f"{worst['tokens/s'] / asked.need:,.0f}"])
    title = f"{asked.tokens:,} tokens in {shards} shards, read by {asked.processes} processes"
    print_table(f"{title}; written in {seconds:.0f} s", ["what", "the slowest process"], rows)


if __name__ == "__main__":
    main()
