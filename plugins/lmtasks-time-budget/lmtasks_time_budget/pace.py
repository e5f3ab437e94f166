"""``lmtasks pace``: how fast a run trained."""

import argparse
import json
from pathlib import Path

from lmtasks import InputError


def command(words: list[str]) -> int:
    """Print the pace of a run."""
    parser = argparse.ArgumentParser(prog="lmtasks pace", description="How fast a run trained.")
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--minutes", type=float, default=10, help="tell how many steps there are in them (default: 10)")
    typed = parser.parse_args(words)
    steps, seconds = _trained(Path(typed.run))
    print(f"{steps} steps in {seconds:.1f} s, {seconds / steps:.3f} s a step")
    print(f"{int(typed.minutes * 60 * steps / seconds)} steps in {typed.minutes:g} minutes")
    return 0


def _trained(folder: Path) -> tuple[int, float]:
    """Steps, and the seconds that they took."""
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        results = json.loads((folder / "train_results.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{folder}' holds no finished run", "lmtasks pace RUN takes the folder of one") from error
    return state["global_step"], results["train_runtime"]
