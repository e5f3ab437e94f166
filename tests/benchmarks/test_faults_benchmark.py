"""Reliability as figures: each judge finds what is wrong, and a few real faults come out as promised."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "faults.py"
PAGE = ROOT / "docs" / "reliability.md"
sys.path.append(str(SCRIPT.parent))  # where `python benchmarks/faults.py` finds its parts

from reliability import damage, kills, signals  # noqa: E402
from reliability.processes import Running, start  # noqa: E402
from reliability.runs import OUT, STAGES, Aim, Place, Reference, Watch, reached  # noqa: E402
from reliability.state import damage_of, differences, state_of, unverified  # noqa: E402
from reliability.tries import Setting, Tried, carried_out  # noqa: E402


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    assert spec and spec.loader
    sys.modules["faults"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what a run leaves ---

RESULTS = {"eval_loss": 2.5, "train_loss": 3.0, "train_runtime": 1.0, "train_tokens_per_second": 9.0}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The files of a finished run, as far as a judge looks at them."""
    out = tmp_path / "place" / OUT
    checkpoint = out / "checkpoints" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (out / "model.safetensors").write_bytes(b"weights")
    (out / "all_results.json").write_text(json.dumps(RESULTS))
    (out / "run.json").write_text(json.dumps({"status": "done", "files": ["model.safetensors"], "metrics": RESULTS}))
    (out / "README.md").write_text("A model.\nTraining took 1.0 seconds.\n")
    lines = [{"step": 3, "loss": 3.0}, {"step": 3, "train_runtime": 1.0, "train_loss": 3.0}]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (checkpoint / "model.safetensors").write_bytes(b"earlier")
    files = {"model.safetensors": {"size": 7, "sha256": hashlib.sha256(b"earlier").hexdigest()}}
    (checkpoint / "manifest.json").write_text(json.dumps({"files": files}))
    return out


def test_only_times_may_differ(run_folder: Path) -> None:
    before = state_of(run_folder)
    later = {**RESULTS, "train_runtime": 2.0, "train_tokens_per_second": 4.5}
    (run_folder / "all_results.json").write_text(json.dumps(later))
    (run_folder / "README.md").write_text("A model.\nTraining took 2.0 seconds.\n")
    with (run_folder / "log.jsonl").open("a") as log:  # a step that was done once more
        log.write('{"step": 3, "loss": 3.0}\n')
    assert differences(before, state_of(run_folder)) == []
    assert unverified(run_folder) == []


def weights(out: Path) -> None:
    (out / "model.safetensors").write_bytes(b"wEights")


def result(out: Path) -> None:
    (out / "all_results.json").write_text(json.dumps({**RESULTS, "train_loss": 3.0000000000000004}))


def card(out: Path) -> None:
    (out / "README.md").write_text("Another model.\n")


def no_text(out: Path) -> None:
    (out / "README.md").write_bytes(b"A m\xffdel.\n")


def logged(out: Path) -> None:
    (out / "log.jsonl").write_text((out / "log.jsonl").read_text().replace("3.0", "3.5"))


def half_a_line(out: Path) -> None:
    (out / "log.jsonl").write_text((out / "log.jsonl").read_text() + '{"step": 4')


def staging(out: Path) -> None:
    (out / ".saving").mkdir()


def lock(out: Path) -> None:
    (out / ".lock").touch()


def half_a_checkpoint(out: Path) -> None:
    (out / "checkpoints" / "checkpoint-6").mkdir()
    (out / "checkpoints" / "checkpoint-6" / "model.safetensors").touch()


def lost(out: Path) -> None:
    (out / "checkpoints" / "checkpoint-3" / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (weights, r"model.safetensors: \w+ instead of \w+"),
        (result, "all_results.json, train_loss: 3.0000000000000004 instead of 3.0"),
        (card, r"README.md: \w+ instead of \w+"),
        (no_text, r"README.md: \w+ instead of \w+"),
        (logged, "log.jsonl, step 3, loss: 3.5 instead of 3.0"),
        (half_a_line, "log.jsonl, half a line is left over"),
        (staging, ".saving/ is left over"),
        (lock, ".lock is left over"),
        (half_a_checkpoint, "checkpoints/checkpoint-6/model.safetensors is left over"),
        (lost, "checkpoints/checkpoint-3/model.safetensors is missing"),
    ],
)
def test_a_run_that_is_not_as_it_should_be_is_found(
    run_folder: Path, change: Callable[[Path], None], said: str
) -> None:
    before = state_of(run_folder)
    change(run_folder)
    assert re.fullmatch(said, differences(before, state_of(run_folder))[0])


def test_a_checkpoint_that_is_not_as_its_manifest_says_is_found(run_folder: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "checkpoint-3"
    (checkpoint / "model.safetensors").write_bytes(b"earlieR")
    (checkpoint / "more").touch()
    assert unverified(run_folder) == [
        "checkpoint-3/more is not in its manifest",
        "checkpoint-3/model.safetensors is not what its manifest says",
    ]
    (checkpoint / "model.safetensors").unlink()
    assert "checkpoint-3/model.safetensors is missing" in damage_of(checkpoint)
    (checkpoint / "manifest.json").unlink()
    (told,) = unverified(run_folder)
    assert told.startswith("checkpoint-3 has no manifest that can be read: ")


def test_a_checkpoint_that_a_signal_had_saved_may_stay_but_must_be_whole(run_folder: Path, tmp_path: Path) -> None:
    where, place = run_folder.parent, Pretending(tmp_path)
    reference = Reference(state_of(run_folder), {}, {}, frozenset())
    shutil.copytree(run_folder / "checkpoints" / "checkpoint-3", run_folder / "checkpoints" / "checkpoint-2")
    assert kills.finished(place, [], where, reference) != []
    assert kills.finished(place, [], where, reference, asked=True) == []
    (run_folder / "checkpoints" / "checkpoint-2" / "model.safetensors").write_bytes(b"half")
    (told,) = kills.finished(place, [], where, reference, asked=True)
    assert told.endswith("checkpoint-2/model.safetensors is not what its manifest says")
    shutil.rmtree(run_folder / "checkpoints")
    (told, *_) = kills.finished(place, [], where, reference, asked=True)
    assert told.endswith("checkpoints/checkpoint-3/manifest.json is missing")


# --- how commands end ---


def test_exit_codes_tracebacks_and_hanging_are_told(tmp_path: Path) -> None:
    def complains() -> int:
        print("error: no", file=sys.stderr)
        return 3

    def breaks() -> int:
        raise ValueError("a bug")

    def hangs() -> int:
        time.sleep(60)
        return 0

    def wrong(call: Callable[[], int], expected: int = 0, patience: float = 60.0) -> list[str]:
        run = start(call, tmp_path, {})
        return kills.failed(run, run.wait(patience), expected)

    assert wrong(lambda: 0) == wrong(complains, 3) == []
    assert wrong(complains) == ["exit code 3 instead of 0: error: no"]
    (told,) = wrong(breaks, 1)
    assert told.startswith("a traceback: ") and told.endswith("ValueError: a bug")
    assert wrong(hangs, patience=0.2) == ["hangs: "]


def test_a_signal_must_end_a_run_with_its_code_and_a_second_one_at_once(tmp_path: Path) -> None:
    def ready() -> None:
        (tmp_path / "ready").touch()
        time.sleep(60)

    def dies() -> int:
        ready()
        return 0

    def obeys() -> int:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return dies()

    def forgets() -> int:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        return dies()

    def waits() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return dies()

    def sent(call: Callable[[], int], twice: float | None = None) -> list[str]:
        (tmp_path / "ready").unlink(missing_ok=True)
        run = start(call, tmp_path, {})
        while not (tmp_path / "ready").exists():
            time.sleep(0.001)
        return signals.stopped(run, signal.SIGTERM, twice)

    assert sent(dies) == sent(obeys) == sent(obeys, 0.05) == []
    assert sent(forgets) == ["exit code 0 instead of 143: "]
    assert sent(waits, 0.05) == [f"still there {signals.AT_ONCE} s after the second signal: "]


def test_a_step_that_is_said_to_be_safe_must_have_a_checkpoint(run_folder: Path) -> None:
    assert signals.untrue("error: stopped by SIGTERM; all is safe up to step 3\n", run_folder) == []
    (told,) = signals.untrue("error: stopped by SIGTERM after step 4, with a checkpoint\n", run_folder)
    assert told.startswith("it says that step 4 is safe: checkpoint-4 has no manifest")


def test_a_refusal_is_one_error_and_one_hint() -> None:
    assert damage.refusal("note: x\nerror: damaged\nhint: bring it back\n") == []
    assert damage.refusal("error: damaged\n") == ["1 errors and 0 hints: error: damaged"]
    assert damage.refusal("Traceback (most recent call last):\nerror: a\nhint: b\n")[0].startswith("a traceback")


class Pretending(Place):
    """A place where every command does the same: a program that is not as it should be."""

    def start(self, words: Any, where: Path, **_: Any) -> Running:
        def pretend() -> int:
            print("the answer")
            return 0

        return start(pretend, where, {})


def test_a_command_that_takes_a_damaged_file_without_a_word_is_found(run_folder: Path, tmp_path: Path) -> None:
    place, kind = Pretending(tmp_path), next(iter(kills.KINDS))
    (tmp_path / "whole").mkdir()
    run_folder.parent.rename(tmp_path / "whole" / damage.FINISHED)
    where = tmp_path / "whole" / damage.FINISHED
    whole = damage.Whole(
        tmp_path / "whole", state_of(where / OUT), {"predict": "the answer\n", "evaluate": "another\n"}
    )

    def judged(file: str, command: str) -> list[str]:
        return damage.judged(place, whole, damage.Case(kind, damage.FINISHED, file, "emptied", command), where)

    assert judged("model.safetensors", "predict") == ["silent: exit code 0 without a word about model.safetensors"]
    assert judged("README.md", "predict") == []
    assert judged("run.json", "evaluate") == ["silent: exit code 0, and something else than from the undamaged run"]
    assert judged("model.safetensors", "run") == []  # nothing is damaged yet
    card(where / OUT)
    assert judged("README.md", "run") == []
    assert len(judged("model.safetensors", "run")) == 1  # the card, which nobody said was damaged
    weights(where / OUT)
    (told,) = judged("README.md", "run")
    assert told.startswith("model.safetensors: ")


def test_a_command_that_does_not_finish_the_run_is_found(run_folder: Path, tmp_path: Path) -> None:
    where, expected = run_folder.parent, state_of(run_folder)
    reference = Reference(expected, {}, {}, frozenset())
    place = Pretending(tmp_path)
    assert kills.finished(place, [], where, reference) == []
    (where / "tmp3f").touch()
    assert kills.finished(place, [], where, reference) == [
        "after the command once more: tmp3f is left over beside the run"
    ]
    (where / "tmp3f").unlink()
    weights(run_folder)
    (told,) = kills.finished(place, [], where, reference)
    assert told.startswith("after the command once more: model.safetensors: ")


# --- instants ---


def test_an_instant_is_waited_for_by_what_the_run_leaves(tmp_path: Path) -> None:
    def trains() -> int:
        out = tmp_path / OUT
        (out / "checkpoints" / "checkpoint-3").mkdir(parents=True)
        (out / "run.json").write_text('{"status": "running"}')
        for step in (1, 2, 3):
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": 1.0}) + "\n")
            time.sleep(0.05)
        (out / "checkpoints" / "checkpoint-3" / ".begun").touch()
        time.sleep(60)
        return 0

    for aim, steps in ((Aim("training", "step", 1, 0.0), 2), (Aim("checkpoint", "checkpoint", 0, 0.01), 3)):
        shutil.rmtree(tmp_path / OUT, ignore_errors=True)
        watch = Watch(tmp_path / OUT)
        run = start(trains, tmp_path, {})
        assert reached(run, watch, aim)
        run.kill()
        assert len((tmp_path / OUT / "log.jsonl").read_text().splitlines()) == steps
    run = start(lambda: 0, tmp_path, {})
    assert not reached(run, Watch(tmp_path / OUT), Aim("training", "step", 0, 0.0))


def test_every_stage_is_aimed_at_by_every_kind_of_run() -> None:
    assert set(kills.SHARES) == set(STAGES)
    firsts = {(kills.kind_of(number), kills.first_stage(number)) for number in range(200)}
    assert firsts == {(kind, stage) for kind in kills.KINDS for stage in STAGES}
    stopped = {(number % 2, signals.stage_of(number)) for number in range(40)}
    assert stopped == {(sent, stage) for sent in (0, 1) for stage in (*STAGES, signals.PUSHING)}


def test_tries_are_repeated_alone_as_they_were_among_others(tmp_path: Path) -> None:
    def attempt(folder: Path, generator: Any, number: int) -> list[str]:
        assert list(folder.iterdir()) == []
        (folder / "left").write_text("something")
        return [f"drew {generator.random()}"] if number != 1 else []

    all_of_them = Setting(tmp_path / "work", seed=5, count=3, keep=tmp_path / "kept")
    tried = carried_out("a row", attempt, all_of_them.numbers(200), all_of_them)
    assert tried.tried == 3 and len(tried.failures) == 2
    assert "`python benchmarks/faults.py --only 'a row' --seed 5 --try 2`" in tried.failures[1]
    alone = Setting(tmp_path / "work", seed=5, only=2)
    assert carried_out("a row", attempt, alone.numbers(200), alone).failures == tried.failures[1:]
    assert sorted(path.name for path in (tmp_path / "kept" / "a-row").iterdir()) == ["0", "2"]
    assert list((tmp_path / "work" / "a-row").iterdir()) == []


# --- the command and its page ---


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_the_table_marks_and_lists_what_is_not_as_promised(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def impossible(setting: Setting) -> Tried:
        raise RuntimeError("an undisturbed run fails")

    rows = {
        "kills": script.Row("how so", lambda setting: Tried(setting.count)),
        "signals": script.Row("and so", lambda setting: Tried(4, ["signals, try 3: wrong"])),
        "damage": script.Row("so", impossible),
    }
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert script.main(["--count", "7", "--write"], rows, page) == 1
    out = capsys.readouterr().out
    right, wrong = ["kills", "7", "7", "how so"], ["signals", "4", "**3**", "and so"]
    assert cells(out) == [list(script.HEADER), right, wrong, ["damage", "1", "**0**", "so"]]
    assert out.endswith("Not as promised:\n\n- signals, try 3: wrong\n- damage: an undisturbed run fails\n")
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert script.main(["--count", "7", "--write", "--only", "kills"], rows, page) == 0
    before, after = (text.read_text(encoding="utf-8").splitlines() for text in (PAGE, page))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line for line in changed if not line.startswith("Measured ")] == ["| kills | 7 | 7 | how so |"]


def test_the_page_has_exactly_the_rows_that_the_script_makes(script: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    header, *rows = cells(text[text.index(script.BEGIN) : text.index(script.END)])
    assert tuple(header) == script.HEADER
    assert [(row[0], row[3]) for row in rows] == [(name, row.how) for name, row in script.ROWS.items()]
    assert not any("**" in cell for row in rows for cell in row)


# --- real ones ---

SAMPLE = """
import json, random, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import faults  # sets what libraries read when they are imported
from reliability import damage, kills, runs, signals

folder = Path(sys.argv[2])
faults.load()
place = runs.furnished(folder / "place")
kind = next(iter(runs.KINDS))
references = {kind: runs.undisturbed(place, kind, folder / "undisturbed", fresh=False)}
found = {}


def tried(name, attempt, number, *given):
    where = folder / name
    where.mkdir()
    found[name] = attempt(place, *given, where, random.Random(name), number)


def first(stage_of, stage, numbers):
    return next(number for number in numbers if kills.kind_of(number) == kind and stage_of(number) == stage)


tried("kill", kills.attempt, first(kills.first_stage, "checkpoint", range(0, 200, 12)), references, 1)
tried("signal", signals.attempt, first(signals.stage_of, "training", range(0, 40)), references)
wholes = {kind: damage.whole_of(place, kind, folder / "whole", [damage.PREDICT], [damage.UNFINISHED])}
cases = list(damage.cases_of(wholes))
for file, how, command in json.loads(sys.argv[3]):
    (number, *_) = (n for n, case in enumerate(cases) if case.file.endswith(file) and case.damage == how
                    and case.command == command)
    tried(f"{command} {how}", damage.attempt, number, wholes, cases)
json.dump(found, sys.stdout)
"""


def test_real_kills_signals_and_damages_come_out_as_promised(tmp_path: Path) -> None:
    damaged = [
        ("checkpoint-6/model.safetensors", "a bit flipped", "run"),
        ("model.safetensors", "truncated", "predict"),
    ]
    command = [sys.executable, "-c", SAMPLE, str(SCRIPT.parent), str(tmp_path), json.dumps(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    tried = ("kill", "signal", "run a bit flipped", "predict truncated")
    assert json.loads(done.stdout) == {name: [] for name in tried}
