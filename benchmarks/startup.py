"""How long the commands that only tell take, against a Python that does nothing.

    python benchmarks/startup.py [--rounds 20]

Prints one row per command: median of the rounds in milliseconds, and as a multiple of
``python -c pass`` in the same rounds. The commands alternate, so that a busy moment hits them all.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("lmtasks"))

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "lmtasks --help": [SCRIPT, "--help"],
    "lmtasks list": [SCRIPT, "list"],
    "lmtasks show masked-lm": [SCRIPT, "show", "masked-lm"],
    "lmtasks run masked-lm --help": [SCRIPT, "run", "masked-lm", "--help"],
    "python -c 'import transformers'": [sys.executable, "-c", "import transformers"],
}


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)  # once for the disk
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    floor = statistics.median(times["python -c pass"])
    print(f"| command | median of {rounds}, ms | × python -c pass |")
    print("|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| `{name}` | {median * 1000:.0f} | {median / floor:.1f} |")


if __name__ == "__main__":
    main()
