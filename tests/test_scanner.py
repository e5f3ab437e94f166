"""The scanner of the suite finds what it is there for, also in tests that pass; here it is let loose on some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN
from scanner import LARGEST, SUITE_TOKEN, findings, secrets_in

LEAKING = """
import logging, os, sys, warnings
def test_writes(tmp_path): (tmp_path / "deep").mkdir(); (tmp_path / "deep" / "a").write_text(os.environ["HF_TOKEN"])
def test_prints(): print(os.environ["HF_TOKEN"])
def test_logs(): logging.getLogger("x").warning(os.environ["HF_TOKEN"])
def test_raises(): raise ValueError(os.environ["HF_TOKEN"])
def test_publishes_its_path(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "README.md").write_text(f"see {tmp_path}")
def test_command_prints(lmtasks, monkeypatch):
    monkeypatch.setattr("lmtasks.cli.usage.USAGE", os.environ["HF_TOKEN"])
    lmtasks("--help")
def test_does_nothing_wrong(tmp_path): (tmp_path / "a").write_text("fine"); print("fine")
def test_shares(tmp_path_factory): (tmp_path_factory.mktemp("shared") / "x").write_text(os.environ["HF_TOKEN"])
"""


def test_a_test_that_leaks_fails(tmp_path: Path) -> None:
    here = Path(__file__).parent
    (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    path = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), "-rA"]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    lines = [line.partition(" - ")[0] for line in done.stdout.splitlines()]
    passed = {line.rpartition("::")[2] for line in lines if line.startswith("PASSED")}
    failed = {line.rpartition("::")[2] for line in lines if line.startswith("FAILED")}
    assert passed == {"test_does_nothing_wrong", "test_shares"}, done.stdout
    assert failed == {
        "test_writes", "test_prints", "test_logs", "test_raises", "test_publishes_its_path", "test_command_prints"
    }  # fmt: skip
    assert "shared0/x holds the token" in done.stdout, "what tests share is scanned at the end"
    for path in (tmp_path / "t").rglob("*"):  # or the scan of this test's own folder would find them
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("token", [SUITE_TOKEN, TOKEN])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_token_is_found_in_whatever_it_stands(token: str, encoding: str) -> None:
    assert secrets_in(b"\0\xff" + token.encode(encoding) + b"\0") == [token]
    assert secrets_in(token[:-1].encode(encoding)) == []


def test_the_end_of_a_large_file_is_read_and_links_are_not_followed(tmp_path: Path) -> None:
    large = tmp_path / "folder" / "large"
    large.parent.mkdir()
    large.write_bytes(bytes(2 * LARGEST) + b"hf_secret")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_text("hf_secret")
    assert findings(large.parent, ["hf_secret"]) == [f"{large} holds the token hf_secre..."]


def test_paths_belong_in_a_record_and_not_in_what_is_published_of_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"train_file": f"{tmp_path}/secret.txt"}))
    (run / "notes.txt").write_text(str(tmp_path))
    assert findings(tmp_path, paths=[str(tmp_path)]) == []
    for name in ("log.jsonl", "all_results.json"):
        (run / name).write_text(str(tmp_path))
    assert len(findings(tmp_path, paths=[str(tmp_path)])) == 2
    for name in ("log.jsonl", "all_results.json"):
        (run / name).unlink()  # or this very test would fail
