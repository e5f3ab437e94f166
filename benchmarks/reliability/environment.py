"""Faults of disk, memory, permissions and concurrency, made for real while commands run in processes of their own.

A run is stopped (SIGSTOP) when it has come as far as a fault asks, the fault is made, and the run goes on. It must end
with exit code 3, or 2 where the fault was there before, in one ``error:`` and one ``hint:`` line; what existed before
must be what it was; and once the fault is mended, the same command must end with the weights of a run that nothing
happened to.

What needs a small disk (tmpfs) needs root, and is left out and said so without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmtasks.data.sample import sample_documents

ROOT = Path(__file__).parents[2]

PATIENCE = 180.0
"""Seconds after which a process that does not get on is ended, and has failed."""

RUN = shlex.split(
    "run causal-lm --model_type gpt2 --config_overrides n_layer=2,n_embd=32,n_head=2,n_positions=64"
    " --train_tokenizer 400 --train_file text.txt --block_size 32 --per_device_train_batch_size 4"
    " --max_steps 30 --save_steps 10 --logging_steps 1000 --output_dir out/run"
)
"""The run that the faults happen to: checkpoints after 10, 20 and 30 steps, and no other word to the disk between."""

AGAIN = ("--resume_from_checkpoint", "auto")

Row = tuple[str, str, bool]


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> bool:
        """Whether it is told as a mistake or a failure should be: one line what, one line what to do."""
        kinds = [line.partition(":")[0] for line in self.err.splitlines() if line.startswith(("error:", "hint:"))]
        return kinds == ["error", "hint"] and "Traceback" not in self.err

    @property
    def words(self) -> str:
        """Its exit code, and what it said was wrong."""
        found = re.search(r"^error: (.*)$", self.err, re.MULTILINE)
        last = (self.err.strip().splitlines() or [""])[-1]
        return f"exit {self.code}" + (f": {found[1]}" if found else f": {last}" if self.code else "")


class Command:
    """A command of lmtasks in a process of its own."""

    def __init__(self, place: Path, words: Sequence[str], *, powers: bool = True, **environment: str) -> None:
        """Start it in a folder; without ``powers`` it may do no more to files than any user who owns them."""
        own = {"HF_HOME": str(place / "cache"), "XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
        threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
        before = [] if powers or os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        self.streams = [open(place / f"{time.monotonic_ns()}.{name}", "w+") for name in ("out", "err")]  # noqa: SIM115
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "lmtasks", *words],
            cwd=place,
            env={**os.environ, **own, **threads, **environment},
            stdout=self.streams[0],
            stderr=self.streams[1],
        )

    def said(self) -> str:
        """What it has written on standard error so far."""
        return Path(self.streams[1].name).read_text()

    def stop_when(self, reached: Callable[[], object]) -> bool:
        """Stop the process as soon as it has come so far; False where it ended before."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                if reached():
                    self.process.send_signal(signal.SIGSTOP)
                    return True
            time.sleep(0.001)
        return False

    def go_on(self) -> None:
        """Let it run after it was stopped."""
        self.process.send_signal(signal.SIGCONT)

    def ended(self) -> Ended:
        """Wait for its end."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        texts = [Path(stream.name).read_text() for stream in self.streams]
        for stream in self.streams:
            stream.close()
            Path(stream.name).unlink(missing_ok=True)
        return Ended(self.process.returncode, *texts)


def measure(folder: Path) -> list[Row]:
    """Make all the faults.

    Returns:
        for each: what was done, what happened, and whether nothing was lost and it was told right.
    """
    bench = Bench(folder)
    return [row for fault in FAULTS for row in fault(bench)]


class Bench:
    """Where faults are made, and the run that nothing happened to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = iter(range(1000))
        self.text = "\n".join(document[:2000] for document in sample_documents("python")[:60])
        whole = self.place()
        done = Command(whole, RUN).ended()
        if done.code:
            raise RuntimeError(f"the run that nothing happens to failed: {done.err}")
        self.finished = whole / "out" / "run"
        self.weights = digest(self.finished / "model.safetensors")

    def place(self) -> Path:
        """A new folder with the text."""
        place = self.folder / f"fault-{next(self.numbers)}"
        (place / "out").mkdir(parents=True)
        (place / "text.txt").write_text(self.text, encoding="utf-8")
        return place

    def copy(self) -> Path:
        """A new folder with the finished run."""
        place = self.place()
        shutil.copytree(self.finished, place / "out" / "run")
        return place

    def whole(self, run: Path) -> bool:
        """Whether a folder has the weights of the run that nothing happened to, is done, and has nothing left over."""
        left = [path.name for path in run.iterdir() if path.name.startswith(".")]
        done = json.loads((run / "run.json").read_text())["status"] == "done"
        return done and not left and digest(run / "model.safetensors") == self.weights


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """The digests of the files below a folder."""
    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*") if path.is_file()}


def settled(checkpoint: Path) -> Callable[[], bool]:
    """Whether a checkpoint is there, whole."""

    def reached() -> bool:
        return (checkpoint / "manifest.json").exists() and not (checkpoint / ".begun").exists()

    return reached


def fill(folder: Path) -> Path:
    """Leave not a byte on the disk of a folder; the file that takes them."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


def use_up_files(folder: Path) -> Path:
    """Leave room for not a file more on the disk of a folder; the folder of those that take it."""
    ballast = folder / "ballast"
    ballast.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            (ballast / str(number)).touch()
    return ballast


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A disk in memory at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def can_mount(place: Path) -> bool:
    try:
        with small_disk(place, "size=64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def struck(
    bench: Bench,
    what: str,
    place: Path,
    reached: Callable[[], object],
    strike: Callable[[Command], Callable[[], Any]],
    words: Sequence[str] = RUN,
    again: Sequence[str] = (*RUN, *AGAIN),
    says: str = "",
    powers: bool = True,
) -> Row:
    """Let a fault happen to a run, mend it, and give the same command again.

    Args:
        strike: makes the fault, and returns what mends it.
        says: what the error must say.
    """
    command = Command(place, words, powers=powers)
    if not command.stop_when(reached):
        return what, f"the fault came too late; {command.ended().words}", False
    run = place / "out" / "run"
    before = contents(run) if run.exists() else {}
    mend = strike(command)
    command.go_on()
    failed = command.ended()
    after = contents(run) if run.exists() else {}
    mend()
    kept = {name: after.get(name) for name in before if name not in (".lock", "log.jsonl")}
    lost = [name for name, known in kept.items() if known != before[name]]
    ended = Command(place, again, powers=powers).ended()
    problems = [
        *(["not told in two lines"] if not failed.told else []),
        *([f"exit code {failed.code}"] if failed.code != 3 else []),
        *([f"it does not say {says}"] if says not in failed.err else []),
        *([f"changed: {', '.join(lost)}"] if lost else []),
        *([f"then {ended.words}"] if ended.code else []),
        *(["then other weights, or something left over"] if not ended.code and not bench.whole(run) else []),
    ]
    return (
        what,
        "; ".join([failed.words, *problems] if problems else [failed.words, "resumed to the same weights"]),
        not problems,
    )


def full_disks(bench: Bench) -> Iterator[Row]:
    """No room for a checkpoint, the log, the final save or the cache of tokens; no room for one file more."""
    if not can_mount(bench.place()):
        yield "full disk, no inodes", "left out: this user may not mount a tmpfs", True
        return
    logged = [*RUN[: RUN.index("1000")], "1", *RUN[RUN.index("1000") + 1 :]]
    first, last = "checkpoint-10", "checkpoint-30"
    for what, words, checkpoint, options, take in (
        ("disk full before a checkpoint", RUN, first, "size=40m", fill),
        ("disk full before a line of the log", logged, first, "size=40m", fill),
        ("disk full before the final save", RUN, last, "size=40m", fill),
        ("no inodes before a checkpoint", RUN, first, "size=40m,nr_inodes=500", use_up_files),
        ("no inodes before the final save", RUN, last, "size=40m,nr_inodes=500", use_up_files),
    ):
        place = bench.place()
        with small_disk(place / "out", options):
            disk = place / "out"

            def strike(_: Command, take: Callable[[Path], Path] = take, disk: Path = disk) -> Callable[[], None]:
                ballast = take(disk)
                return lambda: remove(ballast)

            says = "inodes" if take is use_up_files else "disk is full"
            there = settled(disk / "run" / "checkpoints" / checkpoint)
            yield struck(bench, what, place, there, strike, words, (*words, *AGAIN), says)
    place = bench.place()
    (place / "cache").mkdir()
    with small_disk(place / "cache", "size=20m"):

        def strike_cache(_: Command) -> Callable[[], None]:
            ballast = fill(place / "cache")
            return lambda: remove(ballast)

        begun = place / "cache" / "lmtasks" / "tokens"
        there = lambda: any(begun.glob("*.unfinished/ids"))  # noqa: E731
        yield struck(bench, "disk full while the cache of tokens is written", place, there, strike_cache, RUN, RUN)


def limits(bench: Bench) -> Iterator[Row]:
    """``ulimit -f`` in a run, and memory."""

    def smaller_files(command: Command) -> Callable[[], None]:
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        return lambda: None

    for what, checkpoint in (
        ("ulimit -f before a checkpoint", "checkpoint-10"),
        ("before the final save", "checkpoint-30"),
    ):
        place = bench.place()
        there = settled(place / "out" / "run" / "checkpoints" / checkpoint)
        yield struck(bench, what.replace("before the final", "ulimit -f before the final"), place, there, smaller_files)

    def less_memory(command: Command) -> Callable[[], None]:
        pages = int(Path(f"/proc/{command.process.pid}/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (8 << 20)
        resource.prlimit(command.process.pid, resource.RLIMIT_AS, (most, most))
        return lambda: None

    # A batch of 4096 blocks: its scores alone take more than is left.
    place = bench.place()
    many = (
        " ".join(RUN).replace("train_batch_size 4", "train_batch_size 4096").replace("--max_steps 30", "--max_steps 2")
    )
    command = Command(place, many.split())
    if not command.stop_when(lambda: (place / "out" / "run" / "run.json").exists()):
        yield "out of memory in a step", f"the fault came too late; {command.ended().words}", False
        return
    less_memory(command)
    command.go_on()
    failed = command.ended()
    good = failed.code == 3 and failed.told and "out of memory" in failed.err
    yield "memory ends in a step", failed.words, good


def too_large(bench: Bench) -> Iterator[Row]:
    """A model of a hundred billion parameters."""
    place = bench.place()
    words = " ".join(RUN).replace("n_layer=2,n_embd=32,n_head=2", "n_layer=60,n_embd=12288,n_head=96").split()
    command = Command(place, words)
    most = 0
    while command.process.poll() is None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = int(Path(f"/proc/{command.process.pid}/statm").read_text().split()[1])
            most = max(most, pages * resource.getpagesize())
        time.sleep(0.05)
    refused = command.ended()
    good = refused.code == 2 and refused.told and not any((place / "out").iterdir()) and most < 2 << 30
    yield "a model of 100 billion parameters", f"{refused.words} ({most >> 20} MiB taken)", good


def permissions(bench: Bench) -> Iterator[Row]:
    """Folders in which nothing can be made, from the start and all of a sudden."""
    place = bench.place()
    (place / "out").chmod(0o555)
    refused = Command(place, RUN, powers=False).ended()
    (place / "out").chmod(0o755)
    good = refused.code == 2 and refused.told and not any((place / "out").iterdir())
    yield "a folder that is read-only", refused.words, good

    place = bench.place()
    (place / "cache").mkdir(mode=0o555)
    refused = Command(place, RUN, powers=False).ended()
    (place / "cache").chmod(0o755)
    good = refused.code == 3 and refused.told and "HF_HOME" in refused.err and not any((place / "out").iterdir())
    done = Command(place, RUN, powers=False).ended()
    good = good and done.code == 0 and bench.whole(place / "out" / "run")
    yield "a cache that is read-only", f"{refused.words}; mended: {done.words}", good

    for what, checkpoint in (("a checkpoint", "checkpoint-10"), ("the final save", "checkpoint-30")):
        place = bench.place()
        run = place / "out" / "run"

        def strike(_: Command, run: Path = run) -> Callable[[], None]:
            folders = [run, run / "checkpoints"]
            for folder in folders:
                folder.chmod(0o555)
            return lambda: [folder.chmod(0o755) for folder in folders] and None

        there = settled(run / "checkpoints" / checkpoint)
        yield struck(bench, f"a run folder that becomes read-only before {what}", place, there, strike, powers=False)


def two_at_once(bench: Bench) -> Iterator[Row]:
    """Two runs in one folder, and two on one cold cache."""
    place = bench.place()
    first = Command(place, RUN)
    first.stop_when(lambda: (place / "out" / "run" / "run.json").exists())
    others = [Command(place, [*RUN, *more]).ended() for more in ((), AGAIN, ("--overwrite_output_dir",))]
    first.go_on()
    done = first.ended()
    refused = all(other.code == 2 and other.told and "in use" in other.err for other in others)
    good = refused and done.code == 0 and bench.whole(place / "out" / "run")
    yield "two runs at once in one folder", f"the second: {others[0].words}; the first: {done.words}", good

    for what, killed in (("two runs at once on one cold cache", False), ("the same, and the first is killed", True)):
        place = bench.place()
        tokens = place / "cache" / "lmtasks" / "tokens"
        first = Command(place, RUN)
        first.stop_when(lambda tokens=tokens: any(path.read_text() for path in tokens.glob("*.unfinished/lock")))
        second = Command(place, [*RUN[:-1], "out/second"])
        until = time.monotonic() + PATIENCE
        waits = f"waiting for process {first.process.pid}, which tokenises the same text"
        while waits not in second.said() and second.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        first.process.kill() if killed else first.go_on()
        ends = [first.ended(), second.ended()]
        good = waits in ends[1].err and ends[1].code == 0 and bench.whole(place / "out" / "second")
        good = good and (killed or (ends[0].code == 0 and bench.whole(place / "out" / "run")))
        good = good and not any(tokens.glob("*.unfinished"))
        told = "the second waits and says for whom" if waits in ends[1].err else "the second does not wait"
        yield what, f"{told}; {' and '.join(end.words for end in ends)}", good


def readers(bench: Bench) -> Iterator[Row]:
    """A run that is used while another one replaces it."""
    uses = (["predict", "out/run", "A module"], ["evaluate", "out/run"], ["push", "out/run", "someone/model"])
    token = {"HF_TOKEN": "hf_" + "x" * 30, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    stages = {
        "has begun": lambda run: json.loads((run / "run.json").read_text())["status"] == "running",
        "trains": lambda run: settled(run / "checkpoints" / "checkpoint-10")(),
        "saves its model": lambda run: (run / "model.safetensors").exists(),
    }
    for stage, reached in stages.items():
        place = bench.copy()
        run = place / "out" / "run"
        old = digest(run / "run.json")
        other = Command(place, [*RUN, "--overwrite_output_dir", "--seed", "7"])
        other.stop_when(lambda: digest(run / "run.json") != old and reached(run))  # noqa: B023
        answers = [Command(place, use, **token).ended() for use in uses]
        other.go_on()
        done = other.ended()
        refused = all(answer.code == 2 and answer.told for answer in answers)
        meant = all("is not finished" in answer.err or "is not done" in answer.err for answer in answers)
        whole = done.code == 0 and json.loads((run / "run.json").read_text())["status"] == "done"
        told = "; ".join(f"{use[0]}: {answer.words}" for use, answer in zip(uses, answers, strict=True))
        yield f"predict, evaluate and push while another run {stage}", told, refused and meant and whole


def leftovers(bench: Bench) -> Iterator[Row]:
    """What killed runs leave."""
    place = bench.place()
    run = place / "out" / "run"
    first = Command(place, RUN)
    first.stop_when(settled(run / "checkpoints" / "checkpoint-10"))
    first.process.kill()
    first.ended()
    (run / ".saving").mkdir()
    (run / ".saving" / "model.safetensors").write_bytes(b"half")
    (run / ".lock").write_text(str(first.process.pid))
    (run / ".run.json.new").write_text('{"half')
    done = Command(place, [*RUN, *AGAIN]).ended()
    yield "a lock and half a save of a killed run", done.words, done.code == 0 and bench.whole(run)

    place = bench.place()
    run = place / "out" / "run"
    words = [*RUN, "--dataloader_num_workers", "2"]
    first = Command(place, words)
    first.stop_when(settled(run / "checkpoints" / "checkpoint-10"))
    first.process.kill()
    first.ended()
    done = Command(place, [*words, *AGAIN]).ended()
    yield "a killed run whose workers live on for a while", done.words, done.code == 0 and bench.whole(run)


FAULTS: tuple[Callable[[Bench], Iterator[Row]], ...] = (
    full_disks, limits, too_large, permissions, two_at_once, readers, leftovers
)  # fmt: skip
