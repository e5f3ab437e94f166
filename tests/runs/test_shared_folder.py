"""A run folder has to be one folder for all processes of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from launched import free_port

from lmtasks.config.world import ALONE, World
from lmtasks.errors import InputError
from lmtasks.runs.shared_folder import require_shared

LOOKING = """
import json, os, sys
from pathlib import Path

import torch
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.runs import shared_folder

rank = 0 if os.fork() else 1
os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1]}
torch.distributed.init_process_group("gloo")
shared_folder.PATIENCE = 0.3
home = Path.cwd()
said = []
own = f"node{rank}"
for place, folder in (("both", "out"), ("both", "out/deeper/still"), (own, "out"), (own, home / "out")):
    os.chdir(home / place)
    try:
        shared_folder.require_shared(Path(folder), World.current())
        said.append(None)
    except InputError as error:
        said.append(error.message)
(home / f"said{rank}").write_text(json.dumps(said))
World.current().barrier()
torch.distributed.destroy_process_group()
if rank == 0:
    os.wait()
"""


def test_a_folder_for_each_machine_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for name in ("both", "node0", "node1"):
        (tmp_path / name).mkdir()
    (tmp_path / "looking.py").write_text(LOOKING)
    subprocess.run([sys.executable, "looking.py", str(free_port())], cwd=tmp_path, check=True, timeout=120)
    refusals = [json.loads((tmp_path / f"said{rank}").read_text()) for rank in range(2)]
    assert refusals[0] == refusals[1], "all refuse, or none"
    shared, deep, apart, absolute = refusals[0]
    assert (shared, deep, absolute) == (None, None, None)
    assert apart.startswith(
        "output_dir 'out' is not one folder for all processes: what process 0 writes there, process 1"
    )
    assert f"in '{tmp_path / 'node1'}'" in apart
    assert not any(path for name in ("both", "node0", "node1") for path in (tmp_path / name).iterdir())
    assert not (tmp_path / "out").exists()


def test_a_process_alone_looks_for_nothing(tmp_path: Path) -> None:
    require_shared(tmp_path / "out", ALONE)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody can make a file")
def test_a_folder_where_no_files_are_made_was_never_removed() -> None:
    with pytest.raises(InputError, match="output_dir '/proc/nope' cannot be made: '/proc' takes no files"):
        require_shared(Path("/proc/nope"), World(rank=0, size=2))
