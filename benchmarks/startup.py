"""How long the commands that only tell take, against a Python that does nothing.

    python benchmarks/startup.py [--rounds 20]

Prints one row per command: median of the rounds in milliseconds, and as a multiple of
``python -c pass`` in the same rounds. The commands alternate, so that a busy moment hits them all.
One row is ``lmtasks list`` with eight broken plugins installed beside it, each broken in another way; one is
``lmtasks list`` without what it remembers of its last answer: what remembering buys.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("lmtasks"))

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "lmtasks --help": [SCRIPT, "--help"],
    "lmtasks list": [SCRIPT, "list"],
    "lmtasks list, 8 broken plugins": [SCRIPT, "list"],
    "lmtasks list, nothing remembered": [SCRIPT, "list"],
    "lmtasks show masked-lm": [SCRIPT, "show", "masked-lm"],
    "lmtasks plugins": [SCRIPT, "plugins"],
    "lmtasks run masked-lm --help": [SCRIPT, "run", "masked-lm", "--help"],
    "python -c 'import transformers'": [sys.executable, "-c", "import transformers"],
}


BROKEN = {
    "missing": "import no_such_module_anywhere",
    "raises": "raise RuntimeError('out of cheese')",
    "exits": "import sys; sys.exit(3)",
    "syntax": "def lmtasks_recipes(:",
    "misspelt": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipies(): return []",
    "wrong": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return ['no recipe']",
    "hook-raises": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return 1 / 0",
    "slow": "import torch",
}


def install_broken(site: Path) -> None:
    """What pip leaves behind of each: a module, and a folder about it."""
    for name, code in BROKEN.items():
        module = f"broken_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(code)
        about = site / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: broken-{name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[lmtasks]\n{name} = {module}\n")


def seconds(command: list[str], **environment: str) -> float:
    """How long a command takes with these variables, too."""
    environment = {**os.environ, **environment}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as site:
        install_broken(Path(site))
        more: dict[str, dict[str, str]] = {name: {} for name in COMMANDS}
        more["lmtasks list, 8 broken plugins"] = {"PYTHONPATH": site}
        more["lmtasks list, nothing remembered"] = {"XDG_CACHE_HOME": os.devnull}
        for name, command in COMMANDS.items():
            seconds(command, **more[name])  # once for the disk, and for what list remembers
        for _ in range(rounds):
            for name, command in COMMANDS.items():
                times[name].append(seconds(command, **more[name]))
    floor = statistics.median(times["python -c pass"])
    print(f"| command | median of {rounds}, ms | × python -c pass |")
    print("|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| `{name}` | {median * 1000:.0f} | {median / floor:.1f} |")


if __name__ == "__main__":
    main()
