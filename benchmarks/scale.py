"""What a thousand nodes would come to: a simulation on one core, in which only time is made up.

    python benchmarks/scale.py [--nodes 10 100 1000] [--parameters 7e9] [--node_mtbf_hours 6000] [--quick]

Nodes, links and failures are numbers that flags set; the order of prepared data is the real one. Printed are the time
until the first step, the best time between checkpoints against Young's and Daly's, what share of the time is useful
where every failure restarts all, how much each node fetches, and how well a window mixes what a file has in order.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
from measuring import print_table

from lmtasks.data.prepared.order import Order

GB = 10**9
DAY = 86_400
STATE = 12
"""Bytes of a checkpoint for each weight: itself and the two moments of Adam, in float32."""

WEIGHTS = 4
"""Bytes of a weight that a cold start reads."""


@dataclass(frozen=True)
class Cluster:
    """What the machines can do.

    Args:
        store, link: bytes a second of the store for all nodes together, and of a node.
        copy: bytes a second from the GPUs of a node into its memory.
        opens: files a second that a shared disk opens for all nodes.
        begin: seconds until the scheduler has started a process again.
    """

    nodes: int
    per_node: int
    store: float
    link: float
    copy: float
    opens: float
    begin: float

    def read(self, each: float) -> float:
        """Seconds in which every node reads so many bytes from the store, at the same time."""
        return max(each / self.link, each * self.nodes / self.store)


def cold_start(cluster: Cluster, parameters: float, files: int, shards: float) -> dict[str, float]:
    """Seconds of each part of a start, where nothing is on the nodes yet."""
    return {
        "imports from a shared disk": cluster.nodes * cluster.per_node * files / cluster.opens,
        "imports from an image on the node": files / cluster.opens * cluster.per_node,
        "weights, read by every node": cluster.read(WEIGHTS * parameters),
        "weights, a part by each, then passed on": cluster.read(WEIGHTS * parameters / cluster.nodes)
        + WEIGHTS * parameters / cluster.link,
        "first shards of every node": cluster.read(shards),
    }


def ways(cluster: Cluster, parameters: float) -> dict[str, tuple[float, float]]:
    """Seconds that a checkpoint stops training, and until all have read it again, by the way it is saved."""
    size = STATE * parameters
    part = size / cluster.nodes
    sharded = cluster.begin + cluster.read(part)
    return {
        "whole, by one process": (size / cluster.link, cluster.begin + cluster.read(size)),
        "a part by each node": (cluster.read(part), sharded),
        "a part by each, in the background": (part / cluster.copy, sharded),
    }


def young_daly(cost: float, mtbf: float) -> float:
    """Seconds of work between two checkpoints that lose least, to first order."""
    return math.sqrt(2 * cost * mtbf)


def useful(interval: float, cost: float, restart: float, mtbf: float, stretches: np.ndarray) -> float:
    """The share of the time that is kept, over stretches between two failures (of mean 1, times the ``mtbf``).

    What was done since the last checkpoint is lost, and a failure in a restart begins it again.
    """
    alive = stretches * mtbf
    kept = np.floor(np.maximum(0, alive - restart) / (interval + cost)) * interval
    return float(kept.sum() / alive.sum())


def best(cost: float, restart: float, mtbf: float, stretches: np.ndarray) -> tuple[float, float]:
    """The interval that keeps most, of many, and the share that it keeps."""
    tried = young_daly(cost, mtbf) * np.geomspace(0.25, 4, 33)
    shares = [useful(interval, cost, restart, mtbf, stretches) for interval in tried]
    place = int(np.argmax(shares))
    return float(tried[place]), shares[place]


def fetched(shards: int, each: int, batch: int, processes: int, lanes: int, window: int) -> float:
    """The share of all shards that a process fetches in an epoch, the most of all processes."""
    order, part = Order([each] * shards, window, lanes, 0), batch // processes
    seen: dict[int, set[int]] = {process: set() for process in range(processes)}
    for position in range(order.total):
        seen[position % batch // part].add(order(position, 0).shard)
    return max(map(len, seen.values())) / shards


def mixing(shards: int, each: int, batch: int, lanes: int, window: int, sources: int) -> tuple[float, float]:
    """How much more batches differ than those of a full shuffle, where the examples lie sorted by source.

    Returns:
        the standard deviation of the share of a source in a batch, over that of batches drawn from all at random; and
        the most by which a source's share in a tenth of an epoch is off, in percent of its own.
    """
    order = Order([each] * shards, window, lanes, 0)
    place = np.asarray([each * at.shard + at.example for at in (order(one, 0) for one in range(order.total))])
    source = place * sources // order.total
    rows = source[: len(source) // batch * batch].reshape(-1, batch)
    shares = np.stack([(rows == one).mean(axis=1) for one in range(sources)])
    usual = math.sqrt((1 / sources) * (1 - 1 / sources) / batch * (1 - batch / order.total))
    spread = math.sqrt(float(((shares - 1 / sources) ** 2).mean())) / usual
    tenths = np.array_split(source, 10)
    off = max(abs(float((tenth == one).mean()) * sources - 1) for tenth in tenths for one in range(sources))
    return spread, 100 * off


def imported() -> int:
    """Files that a process opens to import what a run needs."""
    count = "print(sum(bool(getattr(module, '__file__', None)) for module in [*sys.modules.values()]))"
    told = f"import sys, lmtasks.runs.runner; {count}"
    return int(subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--per_node", type=int, default=8, help="processes of a node")
    parser.add_argument("--parameters", type=float, default=7e9)
    parser.add_argument("--node_mtbf_hours", type=float, default=6000, help="of one node, as of public long runs")
    parser.add_argument("--store", type=float, default=200, help="GB a second of the store")
    parser.add_argument("--link", type=float, default=5, help="GB a second of a node")
    parser.add_argument("--copy", type=float, default=20, help="GB a second from the GPUs of a node to its memory")
    parser.add_argument("--opens", type=float, default=50_000, help="files a second of a shared disk")
    parser.add_argument("--begin", type=float, default=90, help="seconds until a process is there again")
    parser.add_argument("--tokens", type=float, default=80_000, help="a second and node, of two bytes each")
    parser.add_argument("--quick", action="store_true", help="the smallest of everything")
    asked = parser.parse_args()
    speeds = (asked.store * GB, asked.link * GB, asked.copy * GB, asked.opens, asked.begin)
    clusters = [Cluster(nodes, asked.per_node, *speeds) for nodes in asked.nodes]
    failures = 200 if asked.quick else 200_000
    stretches = np.random.default_rng(0).exponential(size=failures)

    files, first = (500 if asked.quick else imported()), 8 * 64e6
    starts = [cold_start(cluster, asked.parameters, files, first) for cluster in clusters]
    print_table(
        f"Cold start, seconds: {files:,} files to import, {asked.parameters:.2g} weights",
        ["part", *(f"{nodes:,} nodes" for nodes in asked.nodes)],
        [[part, *(f"{start[part]:,.1f}" for start in starts)] for part in starts[0]],
    )

    rows, storms = [], []
    for cluster in clusters:
        mtbf = asked.node_mtbf_hours * 3600 / cluster.nodes
        for way, (cost, restart) in ways(cluster, asked.parameters).items():
            young = young_daly(cost, mtbf)
            interval, share = best(cost, restart, mtbf, stretches)
            at_young = useful(young, cost, restart, mtbf, stretches)
            rows.append(
                [
                    *(f"{cluster.nodes:,}", way, f"{mtbf / 3600:,.1f}", f"{cost:,.2f}", f"{young / 60:,.1f}"),
                    *(f"{interval / 60:,.1f}", f"{at_young:.2%}", f"{share:.2%}"),
                ]
            )
            again = float((stretches * mtbf < restart).mean())
            lost = DAY / mtbf * restart / 3600 * cluster.nodes
            storms.append([f"{cluster.nodes:,}", way, f"{restart:,.0f}", f"{again:.2%}", f"{lost:,.1f}"])
    print_table(
        f"Checkpoints, against failures: {failures:,} of them",
        ["nodes", "saved", "h to a failure", "s to save", "Young/Daly, min", "best, min", "kept there", "kept at best"],
        rows,
    )
    print_table(
        "Restarts of all nodes at each failure",
        ["nodes", "saved", "s to restart", "failed again meanwhile", "node hours a day"],
        storms,
    )

    shards, each, batch = (16, 20, 16) if asked.quick else (256, 400, 64)
    processes, window = 8, 4 * each
    laned = fetched(shards, each, batch, processes, batch, max(1, window // batch))
    plain = fetched(shards, each, batch, processes, 1, window)
    rows = []
    for nodes in asked.nodes:
        own = asked.tokens * 2
        # With one lane everything goes to every node; with as many as the batch has examples, once to all together.
        of_node = [own * nodes * plain, own * laned * processes]
        for lanes, rate in zip(("1 lane", "a lane for each example of the batch"), of_node, strict=True):
            fits = rate <= asked.link * GB and rate * nodes <= asked.store * GB
            cells = [f"{rate / 10**6:,.2f}", f"{rate * nodes / GB:,.2f}", "yes" if fits else "no"]
            rows.append([f"{nodes:,}", lanes, *cells])
    print_table(
        f"From the store, at {asked.tokens:,.0f} tokens a second and node; of {processes} processes each reads"
        f" {plain:.0%} of the shards, or {laned:.0%}",
        ["nodes", "order", "MB/s of a node", "GB/s of all", "within the limits"],
        rows,
    )

    rows = []
    for name, lanes, width in (
        ("one shard", 1, each),
        ("4 shards", 1, 4 * each),
        ("16 shards", 1, 16 * each),
        ("4 shards, a lane for each example", batch, max(1, 4 * each // batch)),
        ("all", 1, shards * each),
    ):
        spread, off = mixing(shards, each, batch, lanes, width, sources=8)
        rows.append([name, f"{spread:.2f}", f"{off:.0f} %"])
    print_table(
        f"Mixing of 8 sources that lie one behind the other in {shards} shards, batches of {batch}",
        ["window", "spread of batches, × full shuffle", "a tenth of an epoch is off by, at most"],
        rows,
    )


if __name__ == "__main__":
    main()
