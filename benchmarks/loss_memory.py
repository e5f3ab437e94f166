"""The memory that the loss of a causal step takes at its peak, and its time: the guide's and lmtasks'.

    python benchmarks/loss_memory.py [--device auto] [--rounds 3] [--lengths 128 512] [--quick]

Measured is the head with the loss, forward and backward, of a GPT-2 without layers that is given hidden
states: what a whole model adds to that is the same for both. The guide calls ``model(**batch)`` with labels;
lmtasks its ``causal_loss`` on the model with its head apart; "cut by tokens" is the way of models that do
something to the output of their last layer, so that their loss cannot be cut by vocabulary. Precision is put on by
accelerate, as in both Trainers.

Each figure comes from a process of its own, after a first step that fills what libraries keep. On a CPU a
thread reads ``RssAnon`` from ``/proc/self/status`` every millisecond during the step: anonymous memory that is
there, without files and without what was only reserved. Its peak counts from what was there before the step,
without gradients. ``malloc`` is told to give back what is freed at once, which it otherwise does for large
pieces only. On a GPU it is ``torch.cuda.max_memory_allocated``. What stays after the step, the gradients of
weights and hidden states, nobody can do without; the second figure leaves it out. Times are of other steps,
with nobody reading. Contestants alternate, and the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, set_forkserver_preload
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from accelerate import Accelerator
from measuring import SIZES, Shape, alternated, chosen_device, described, peak_rate, print_table, synchronize
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from lmtasks import causal_loss
from lmtasks.models.lm_head import separate_head
from lmtasks.training.precision import with_precision

STATUS = Path("/proc/self/status")
HIDDEN, VOCABULARY = 768, 50_257
CONTESTANTS = ("guide", "guide, bf16", "lmtasks", "lmtasks, float32", "lmtasks, cut by tokens")
WANTED = 0.4
"""The most memory that lmtasks may take, as a share of the guide's."""

MIB = 2**20


@dataclass(frozen=True)
class Job:
    """One process.

    Args:
        name: of the contestant.
        repeats: steps that are watched, and steps that are timed.
    """

    name: str
    device: str
    batch: int
    length: int
    hidden: int
    vocabulary: int
    repeats: int


@dataclass(frozen=True)
class Taken:
    """What a step took.

    Args:
        peak: bytes above what was there before, at most.
        stays: bytes above what was there before, afterwards: gradients.
        seconds: of the step.
        precision: of the products.
    """

    peak: float
    stays: float
    seconds: float
    precision: str

    @property
    def passing(self) -> float:
        """Bytes at the peak that do not stay."""
        return self.peak - self.stays


# --- in the process of its own ---


def taken(job: Job) -> Taken:
    """Take the step of the job, watched and timed."""
    transformers.logging.set_verbosity_error()
    device = torch.device(job.device)
    step, clear, bf16 = prepared(job, device)
    for _ in range(2):
        step()
        clear()
    watch = on_gpu if device.type == "cuda" else on_cpu
    peaks, stays = zip(*(watch(step, clear) for _ in range(job.repeats)), strict=True)
    seconds = statistics.median(timed(step, clear, device) for _ in range(job.repeats))
    precision = "bfloat16" if bf16 else "float32"
    return Taken(statistics.median(peaks), statistics.median(stays), seconds, precision)


def prepared(job: Job, device: torch.device) -> tuple[Callable[[], None], Callable[[], None], bool]:
    """The step of a contestant, what clears its gradients, and whether it multiplies in bfloat16."""
    torch.manual_seed(0)
    model = headed(job)
    states = torch.randn(job.batch, job.length, job.hidden, device=device, requires_grad=True)
    labels = torch.randint(job.vocabulary, (job.batch, job.length), device=device)
    ours = job.name.startswith("lmtasks")
    asked = {"guide": False, "guide, bf16": True, "lmtasks, float32": False}.get(job.name)
    bf16 = bool(with_precision({"bf16": asked, "use_cpu": device.type == "cpu"}, model)["bf16"])
    model = model.to(device)
    if ours:
        reason = separate_head(model, {"inputs_embeds": states.detach()[:1]})
        assert reason is None, reason
        if job.name == "lmtasks, cut by tokens":
            model.lmtasks_head.last = None
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=device.type == "cpu")
    wrapped = accelerator.prepare_model(model).train()

    def step() -> None:
        if ours:
            total, targets, _ = causal_loss(wrapped, {"inputs_embeds": states, "labels": labels})
            loss = total / targets
        else:
            loss = wrapped(inputs_embeds=states, labels=labels).loss
        loss.backward()

    def clear() -> None:
        wrapped.zero_grad(set_to_none=True)
        states.grad = None

    return step, clear, bf16


def headed(job: Job) -> PreTrainedModel:
    """GPT-2 without layers: hidden states come in, and the head is at once behind."""
    config = GPT2Config(
        vocab_size=job.vocabulary,
        n_embd=job.hidden,
        n_layer=0,
        n_head=1,
        n_positions=job.length,
        embd_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def on_cpu(step: Callable[[], None], clear: Callable[[], None]) -> tuple[float, float]:
    """Bytes of anonymous memory that a step takes at its peak, and that stay."""
    before, seen = anonymous(), [0]
    done, watching = threading.Event(), threading.Event()

    def watch() -> None:
        watching.set()
        while not done.is_set():
            seen.append(anonymous())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    watching.wait()
    step()
    done.set()
    thread.join()
    after = anonymous()
    clear()
    return max(*seen, after) - before, after - before


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def on_gpu(step: Callable[[], None], clear: Callable[[], None]) -> tuple[float, float]:
    """Bytes of the allocator that a step takes at its peak, and that stay."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    figures = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    clear()
    return figures


def timed(step: Callable[[], None], clear: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    step()
    synchronize(device)
    seconds = time.perf_counter() - began
    clear()
    return seconds


# --- outside ---


def apart(action: Callable[[], Taken]) -> Taken:
    """The result of an action in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(action).result()


def measured(jobs: Sequence[Job], rounds: int) -> dict[str, Taken]:
    """The medians of each contestant."""

    def announced(job: Job) -> Taken:
        print(f"{job.batch} × {job.length}: {job.name}", file=sys.stderr, flush=True)
        return apart(partial(taken, job))

    every = alternated({job.name: partial(announced, job) for job in jobs}, rounds)
    return {name: middle(figures) for name, figures in every.items()}


def middle(figures: Sequence[Taken]) -> Taken:
    peak, stays, seconds = (
        statistics.median(getattr(one, name) for one in figures) for name in ("peak", "stays", "seconds")
    )
    return Taken(peak, stays, seconds, figures[0].precision)


def rows(job: Job, figures: Mapping[str, Taken], rates: Mapping[str, float]) -> Iterator[list[str]]:
    guide, size = figures["guide"], f"{job.batch} × {job.length}"

    def cells(one: Taken) -> list[str]:
        pairs = ((one.peak, guide.peak), (one.passing, guide.passing))
        memory = [text for own, other in pairs for text in (f"{own / MIB:,.0f}", f"{own / other:.2f}")]
        return [*memory, f"{1000 * one.seconds:,.1f}", f"{one.seconds / guide.seconds:.2f}"]

    for name, one in figures.items():
        yield [size, name, one.precision, *cells(one)]
    shape = Shape(0, job.hidden, job.vocabulary, dense=False, causal=True)
    products = shape.products(job.batch, job.length, job.batch * (job.length - 1))
    gradients = 4 * job.hidden * (job.vocabulary + job.batch * job.length)
    for precision, operations in rates.items():
        yield [size, "limit", precision, *cells(Taken(gradients, gradients, products / operations, precision))]


def print_figures(everything: Sequence[tuple[Job, Mapping[str, Taken]]]) -> None:
    def wanted() -> Iterator[list[str]]:
        for job, figures in everything:
            ours, guide = figures["lmtasks"], figures["guide"]
            size = f"{job.batch} × {job.length}"
            yield [f"{size}: peak, × guide", f"{ours.peak / guide.peak:.2f}", f"≤ {WANTED:g}"]
            share = f"{ours.passing / guide.passing:.2f}"
            yield [f"{size}: peak without what stays, × guide", share, f"≤ {WANTED:g}"]

    print_table("Figures", ("figure", "measured", "wanted"), wanted())


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="steps watched, and timed, in one process")
    parser.add_argument("--batch", type=int, default=8, help="blocks per step")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512], help="tokens per block")
    parser.add_argument("--quick", action="store_true", help="a tiny head, once: to see that it works")
    given = parser.parse_args(words)
    sizes: Sequence[int] = SIZES
    lengths, hidden, vocabulary = given.lengths, HIDDEN, VOCABULARY
    if given.quick:
        given.rounds = given.repeats = 1
        lengths, hidden, vocabulary, sizes = [32], 64, 5000, (64,)
    # Before the first process starts, since malloc reads it once.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    set_forkserver_preload(["torch", "transformers", "accelerate", "lmtasks.models.lm_head", "lmtasks.models.losses"])
    device = chosen_device(given.device)
    if device.type == "cpu" and not (STATUS.exists() and "RssAnon" in STATUS.read_text()):
        parser.error("memory of a CPU is read from /proc/self/status, which Linux has")
    everything = []
    for length in lengths:
        jobs = [Job(name, device.type, given.batch, length, hidden, vocabulary, given.repeats) for name in CONTESTANTS]
        everything.append((jobs[0], measured(jobs, given.rounds)))
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates = {name: peak_rate(device, dtype, sizes) for name, dtype in dtypes.items()}
    print_table(
        f"The loss of a causal step, {hidden} wide, vocabulary {vocabulary:,} ({described(device)})",
        ("tokens", "what", "precision", "peak, MiB", "× guide", "without what stays, MiB", "× guide", "ms", "× guide"),
        (row for job, figures in everything for row in rows(job, figures, rates)),
    )
    print_figures(everything)
    if device.type != "cuda":
        print_table("GPU", ("figure", "measured"), [["peak, × guide", "not measured"]])


if __name__ == "__main__":
    main()
