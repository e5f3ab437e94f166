"""Whether the shares of a mix of two sources are the ones asked for, and its order the same however it is read.

    python benchmarks/mixing.py [--tokens 1000000] [--block 128] [--weights 0.8 0.2]

Two texts of random tokens are mixed as ``--data`` mixes them. Printed are the tokens of each source in an epoch, its
share and by how much that misses its weight; then whether the batches of two epochs are the same, example by example,
with data loaders of no process and of two, and after the first half of each epoch was skipped, as a resumed run skips
it. Exit 1 where a share is off by more than 0.1 % or any batch differs.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import skip_first_batches
from measuring import print_table
from torch.utils.data import DataLoader, RandomSampler

from lmtasks.api import Blocks
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.mixed import Mixed
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.tokenize import Stream

BATCH = 8
EPOCHS = 2
MOST_OFF = 1e-3


def source(tokens: int, block: int, seed: int) -> Packed:
    """A text of random tokens as blocks."""
    ids = np.random.default_rng(seed).integers(1000, size=tokens, dtype=np.int32)
    return cut(Stream(ids, np.zeros(1, np.int64), rows=1, bytes=tokens), Blocks(size=block))


def batches(mix: Mixed, workers: int, skipped: int = 0) -> Iterator[list[str]]:
    """What the batches of all epochs hold, the first ones of each left out."""
    dataset = ExampleDataset(mix, seed=0)
    for epoch in range(EPOCHS):
        dataset.start_epoch(epoch)
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(epoch))
        loader: DataLoader[Any] = DataLoader(
            dataset, BATCH, sampler=order, num_workers=workers, collate_fn=digests, generator=torch.Generator()
        )
        yield from skip_first_batches(loader, skipped) if skipped else loader


def digests(examples: Sequence[dict[str, Any]]) -> list[str]:
    """A few digits for each example, its tokens and the seed of its masks."""
    return [hashlib.blake2b(one["input_ids"].tobytes() + repr(one["seed"]).encode()).hexdigest() for one in examples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--weights", type=float, nargs=2, default=[0.8, 0.2])
    asked = parser.parse_args()
    weights = dict(zip(("first", "second"), asked.weights, strict=True))
    # The second has half as much again as it needs, so that the first ends the epoch.
    sizes = {"first": round(asked.tokens * weights["first"]), "second": round(1.5 * asked.tokens * weights["second"])}
    parts = {name: source(size, asked.block, seed) for seed, (name, size) in enumerate(sizes.items())}
    mix = Mixed(parts, weights, "first_exhausted", seed=0)

    total = sum(mix.counts)
    rows, off = [], []
    for (name, weight), count in zip(weights.items(), mix.counts, strict=True):
        share = count / total
        off.append(abs(share - weight / sum(weights.values())))
        rows.append([name, f"{weight:g}", f"{count * asked.block:,}", f"{share:.5f}", f"{off[-1]:.5%}"])
    print_table(
        f"Shares of an epoch of {total * asked.block:,} tokens", ["source", "weight", "tokens", "share", "off by"], rows
    )

    plain = [*batches(mix, 0)]
    steps = len(plain) // EPOCHS
    rest = [batch for epoch in range(EPOCHS) for batch in plain[epoch * steps + steps // 2 : (epoch + 1) * steps]]
    same = {
        "two processes": [*batches(mix, 2)] == plain,
        "half an epoch skipped": [*batches(mix, 0, steps // 2)] == rest,
        "half an epoch skipped, two processes": [*batches(mix, 2, steps // 2)] == rest,
    }
    print_table(
        f"Order of {len(plain):,} batches, against that of one process",
        ["how", "equal"],
        [[how, "yes" if equal else "no"] for how, equal in same.items()],
    )
    sys.exit(0 if max(off) <= MOST_OFF and all(same.values()) else 1)


if __name__ == "__main__":
    main()
