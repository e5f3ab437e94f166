"""The world of a run: one process, or several that tell each other what they have."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lmtasks.config.world import ALONE, World
from lmtasks.errors import InputError


def test_a_process_that_nobody_launched_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert World.current() == ALONE == World(0, 1)
    assert ALONE.is_main
    assert (ALONE.broadcast("x"), ALONE.gather("x")) == ("x", ["x"])
    ALONE.barrier()


def test_a_launcher_tells_rank_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert World.current() == World(1, 3)
    assert not World.current().is_main
    assert World.current(talking=True) == ALONE, "told of others, but without a group to hear them"


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
def test_a_variable_that_is_no_number_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "")
    assert World.current() == ALONE
    monkeypatch.setenv(variable, "two")
    with pytest.raises(InputError, match=f"the variable {variable} is 'two', which is no number"):
        World.current()


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("1", ""), ("0", "0")])
def test_a_process_that_there_is_not_is_refused_and_not_waited_for(
    rank: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(InputError, match=f"RANK and WORLD_SIZE are {rank} and {size or 1}: processes are counted"):
        World.current()


@pytest.mark.parametrize("tell", [lambda world: world.broadcast(1), lambda world: world.gather(1)])
def test_processes_without_a_group_cannot_talk(tell: object) -> None:
    with pytest.raises(RuntimeError, match="there is no process group"):
        tell(World(0, 2))


def test_two_processes_have_what_the_main_one_has_and_all_that_each_has(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            import torch.distributed as dist
            from lmtasks.config.world import World

            rank = int(sys.argv[1])
            dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
            world = World.current()
            world.barrier()
            print(json.dumps([world.rank, world.size, world.broadcast(f"of {rank}"), world.gather(rank * 10)]))
            dist.destroy_process_group()
            """
        )
    )
    processes = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE)
        for rank in (0, 1)
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert told == [[0, 2, "of 0", [0, 10]], [1, 2, "of 0", [0, 10]]]
