"""Secrets and paths of this machine, looked for in everything that commands write, say and send.

Runs, evaluations, predictions, publications to a Hub on the loopback interface, refusals and failures with tracebacks:
all with a token, a home folder and a user that are easily recognised. The token may be nowhere at all; home and user
not in what is published.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmtasks.artifacts.redact import HUB_TOKEN
from lmtasks.data.sample import sample_documents

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))  # the loopback Hub and the scanner are the tests' own

USER = "wilhelmina-recognisable"
WANDB = "0123456789abcdef" * 2 + "deadbeef"
"""A key of another service, which lmtasks has no business with."""

NO_TOKEN = {"HF_TOKEN": ""}

PUBLIC = re.compile(r"README\.md|.*_results\.json|log\.jsonl|trainer_state\.json|config\.json|.*tokenizer.*\.json")
"""Files of a run that are published, or that people pass on."""

SMALL = shlex.split("--block_size 32 --per_device_train_batch_size 4 --max_steps 3 --save_steps 2 --logging_steps 1")
FRESH = ["--model_type", "gpt2", "--config_overrides", "n_layer=1,n_embd=16,n_head=2,n_positions=32"]

FAILING = """
from lmtasks import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
import dataclasses

def loss(model, batch):
    raise RuntimeError("a bug in somebody's recipe")

FAILING = dataclasses.replace(CAUSAL_LM, name="failing", loss=loss)
"""


def measure(folder: Path) -> tuple[int, int, list[str]]:
    """Do all of it, and scan.

    Returns:
        how many files, outputs and requests were scanned, how many secrets were found, and where.
    """
    from hub_server import HubServer

    home = folder / "home" / USER
    place = home / "work"
    place.mkdir(parents=True, exist_ok=True)
    texts = "\n".join(document[:1500] for document in sample_documents("python")[:30])
    (place / "text.txt").write_text(texts, encoding="utf-8")
    (place / "failing.py").write_text(FAILING, encoding="utf-8")
    (place / "bad.yaml").write_text("seed: [\n", encoding="utf-8")
    said: list[tuple[str, bytes]] = []
    with HubServer() as hub:
        secrets = {"the token": hub.token, "another key": WANDB}
        for number, (words, code) in enumerate(_commands(place)):
            heard = _said(number, words, place, home, hub.environment(home / "hf"))
            if not heard[0][0].endswith(f"exit {code})"):
                raise RuntimeError(f"{heard[0][0]}, and not {code}: {heard[1][1].decode()}")
            said += heard
        # As `hf auth login` leaves it.
        (home / "hf").mkdir(exist_ok=True)
        (home / "hf" / "token").write_text(hub.token)
        said += _said(99, ["push", "out/causal", "someone/again"], place, home, hub.environment(home / "hf") | NO_TOKEN)
        (home / "hf" / "token").unlink()
        sent = list(_sent(hub))
    scanned, found = 0, []
    for where, data in [*_files(home), *said, *sent]:
        scanned += 1
        found += [f"{what} in {where}" for what, secret in secrets.items() if _holds(data, secret)]
        found += [f"a token in {where}" for one in HUB_TOKEN.findall(data.decode("latin-1")) if one != hub.token]
    for where, data in [*_published(place), *sent]:
        found += [f"{what} in {where}" for what in (str(home), USER) if what.encode() in data]
    return scanned, len(found), found


def _commands(place: Path) -> Iterator[tuple[list[str], int]]:
    """Much that people do, and much that goes wrong, each with the exit code that it has."""
    train = ["--train_file", str(place / "text.txt"), *SMALL]
    fresh = [*train, *FRESH, "--train_tokenizer", "300"]
    tuned = ["--model", str(place / "out/causal"), "--output_dir", str(place / "out/tuned"), "--push_to_hub"]
    yield ["run", "causal-lm", *fresh, "--output_dir", str(place / "out/causal"), "--report_to", "none"], 0
    yield ["run", "causal-lm", *train, *tuned, "--hub_model_id", "someone/tuned"], 0
    yield ["run", "masked-lm", *train, "--output_dir", "out/masked"], 0
    yield ["evaluate", "out/causal", "--json"], 0
    yield ["predict", "out/causal", "A module", "--json"], 0
    yield ["push", "out/causal", "someone/causal", "--private"], 0
    yield ["push", str(place / "out/tuned"), "someone/else", "--create_pr", "--commit_message", "tuned"], 0
    yield ["data", "causal-lm", *train, "--model", "out/causal"], 0
    yield ["doctor", "--json"], 0
    yield ["run", "./failing.py", *fresh, "--output_dir", "out/failing"], 1  # a traceback
    yield ["push", "out/causal", "nobody/else"], 3  # a namespace of somebody else's: refused by the Hub
    yield ["push", "out/causal", "not an id"], 2
    yield ["push", "nowhere", "someone/x"], 2
    yield ["run", "causal-lm", "--config", "bad.yaml"], 2
    yield ["run", "causal-lm", *fresh, "--hub_token", "x"], 2
    yield ["run", "causal-lm", "--model", "someone/absent", *train], 2
    yield ["run", "causal-lm", *fresh, "--output_dir", str(place / "out/causal")], 2


def _said(
    number: int, words: Sequence[str], place: Path, home: Path, environment: dict[str, str]
) -> list[tuple[str, bytes]]:
    """What a command says, on both channels."""
    own = {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "WANDB_API_KEY": WANDB,
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "lmtasks", *words]
    done = subprocess.run(command, cwd=place, env={**os.environ, **own, **more, **environment}, capture_output=True)
    name = f"the output of lmtasks {' '.join(words[:2])} ({number}, exit {done.returncode})"
    return [(name, done.stdout), (name, done.stderr)]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def _published(place: Path) -> Iterator[tuple[str, bytes]]:
    """What of the runs is public: the card, results and logs as they are, the record as it is published."""
    from lmtasks.artifacts.redact import redacted

    for record in sorted(place.glob("out/*/run.json")):
        yield f"{record} as published", json.dumps(redacted(json.loads(record.read_text()))).encode()
        for path in sorted(record.parent.iterdir()):
            if PUBLIC.fullmatch(path.name):
                yield str(path.relative_to(place)), path.read_bytes()


def _sent(hub: Any) -> Iterator[tuple[str, bytes]]:
    """What arrived at the Hub, but for the header that the token belongs in."""
    for request in hub.requests:
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        yield f"{request.method} {request.path}", f"{request.path} {request.query} {headers}".encode() + request.body
    for repo in hub.repos.values():
        for files in repo.commits.values():
            yield from ((f"{repo.name}/{name} on the Hub", data) for name, data in files.items())


def _holds(data: bytes, secret: str) -> bool:
    """Whether bytes hold a secret: as it is, as wide characters, in base64 at any place, or backwards."""
    text = secret.encode()
    forms = [text, secret.encode("utf-16-le"), text[::-1]]
    forms += [base64.b64encode(bytes(shift) + text)[4:-4] for shift in range(3)]
    return any(form in data for form in forms)
