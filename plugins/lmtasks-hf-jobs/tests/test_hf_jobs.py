"""Jobs on a server of this machine, which carries them out; and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lmtasks_hf_jobs import HF_JOBS, HfJobsOptions
from lmtasks_hf_jobs.submission import command, submit

from lmtasks import Job, load_catalog
from lmtasks.cli.app import main
from lmtasks.testing import check_launcher

TOKEN = "hf_" + "loopback" * 4


class Hub:
    """Enough of the Hub to take a job, carry it out in a folder, and tell of it."""

    def __init__(self, folder):
        self.folder, self.spec, self.requests = folder, None, []
        self.stage, self.message, self.lines, self.process = "RUNNING", None, [], None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            def do_POST(self):
                hub.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path, body))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(request, {"error": "no token"}, 401)
        elif path == "/api/whoami-v2":
            self.send(request, {"name": "someone", "type": "user", "orgs": []})
        elif (request.command, path) == ("POST", "/api/jobs/someone"):
            self.spec = json.loads(body)
            if self.spec["flavor"] == "abacus":
                self.send(request, {"error": "there is no such hardware"}, 400)
                return
            self.start()
            self.send(request, self.told())
        elif path == "/api/jobs/someone/7/logs":
            self.reader.join()
            events = "".join(f"data: {json.dumps({'timestamp': '', 'data': line})}\n\n" for line in self.lines)
            self.send(request, events, kind="text/event-stream")
        elif path == "/api/jobs/someone/7/cancel":
            self.stage = "CANCELED"
            self.process.terminate()
            self.send(request, {})
        elif path == "/api/jobs/someone/7":
            self.send(request, self.told())
        else:
            self.send(request, {"error": f"no {path}"}, 404)

    def start(self):
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_TOKEN")}
        environment = {**own, **self.spec["environment"], **self.spec["secrets"]}
        self.process = subprocess.Popen(
            self.spec["command"],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with self.process.stdout:
            self.lines = [line.rstrip("\n") for line in self.process.stdout]
        code = self.process.wait()
        if self.stage == "RUNNING":
            self.stage = "ERROR" if code else "COMPLETED"
            self.message = f"Job failed with exit code: {code}. Reason: Error" if code else None

    def told(self):
        if self.process.poll() is not None:
            self.reader.join()
        owner = {"id": "1", "name": "someone", "type": "user"}
        return {"id": "7", "owner": owner, "status": {"stage": self.stage, "message": self.message}}

    @staticmethod
    def send(request, content, status=200, kind="application/json"):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hub = Hub(tmp_path / "there")
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", "a key that nobody may see")
    monkeypatch.setenv("WANDB_PROJECT", "a project")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


LAUNCH = ["--launcher", "hf-jobs", "--hf_jobs.install", ""]


def test_it_keeps_the_contract():
    only = ["launcher-comes-in", "launcher-import-is-light", "launcher-options-are-documented"]
    assert not check_launcher(HF_JOBS, only=only).failed


def test_it_comes_in_by_its_entry_point():
    owner = next(plugin for plugin in load_catalog().plugins if "hf-jobs" in plugin.launchers)
    assert owner.distribution == "lmtasks-hf-jobs"


def test_what_the_container_runs():
    job = Job(command=("run", "masked-lm", "--text_template", "{a} {b}"), cwd=Path.cwd(), processes=4)
    words = command(job, HfJobsOptions())
    assert words[:2] == ["sh", "-c"]
    run = "exec lmtasks run masked-lm --text_template '{a} {b}' --num_processes 4"
    assert words[2] == f"pip install --quiet lmtasks==0.1.0 && {run}"
    several = command(job, HfJobsOptions(install=["lmtasks", "lmtasks-span"]))
    assert several[2] == f"pip install --quiet lmtasks lmtasks-span && {run}"


def test_a_job_is_carried_out_and_secrets_are_kept(hub, capsys):
    assert main(["run", "masked-lm", "--dry_run", *LAUNCH]) == 0
    told = capsys.readouterr().err
    assert f"hf-jobs: {hub.endpoint}/jobs/someone/7" in told
    assert "recipe     masked-lm" in told, "the plan, made in the job"
    assert hub.spec["secrets"] == {"HF_TOKEN": TOKEN, "WANDB_API_KEY": "a key that nobody may see"}
    assert hub.spec["environment"].get("WANDB_PROJECT") == "a project"
    assert {"HF_HOME", "PYTHONPATH", "HF_HUB_OFFLINE"} & hub.spec["environment"].keys() == set()
    open_parts = json.dumps({name: value for name, value in hub.spec.items() if name != "secrets"})
    assert TOKEN not in open_parts + told
    assert "nobody may see" not in open_parts + told
    assert hub.spec["timeoutSeconds"] == 3600
    assert (hub.spec["flavor"], hub.spec["dockerImage"]) == ("cpu-basic", "python:3.12")


def test_the_exit_code_of_a_job_is_that_of_the_command(hub, capsys):
    assert main(["run", "masked-lm", "--dry_run", "--model", "someone/none", *LAUNCH]) == 2
    assert capsys.readouterr().err.count("error: ") == 1


def test_a_job_that_is_cancelled(hub):
    job = Job(command=("run", "masked-lm"), cwd=Path.cwd())
    handle = submit(job, HfJobsOptions(install=[""]))
    handle.cancel()
    assert handle.wait() == 143
    assert isinstance(handle.logs(), str)


def test_what_the_hub_refuses(hub, capsys):
    assert main(["run", "masked-lm", "--dry_run", *LAUNCH, "--hf_jobs.flavor", "abacus"]) == 3
    told, hint = capsys.readouterr().err.splitlines()[-2:]
    assert told.startswith("error: the Hub has refused the job: ")
    assert "there is no such hardware" in told
    assert hint.startswith("hint: see hf jobs hardware")


BAD = [
    (["--train_file", "none.txt"], "--train_file 'none.txt' is of this machine, and the job is on another", "push it"),
    (["--model", "."], "'{here}' is on this machine, and the job on another", "push it to the Hub"),
    ([], "--launcher hf-jobs needs --push_to_hub: the machine and all its files are gone", "add --push_to_hub"),
    (["--dry_run", "--num_nodes", "2"], "--num_nodes 2: a Job is one machine", "a larger --hf_jobs.flavor"),
    (["--hf_jobs.flavour", "h200"], "unknown option '--hf_jobs.flavour', did you mean 'hf_jobs.flavor'?", "--help"),
]


@pytest.mark.parametrize(("words", "error", "hint"), BAD)
def test_a_bad_launch(words, error, hint, hub, capsys):
    assert main(["run", "masked-lm", *words, *LAUNCH]) == 2
    told, what_to_type = capsys.readouterr().err.splitlines()[-2:]
    assert told.startswith(f"error: {error.format(here=Path.cwd())}")
    assert what_to_type.startswith(f"hint: {hint}")
    assert not hub.requests


def test_a_preparation_has_to_leave_the_machine(hub, capsys):
    words = ["prepare", "masked-lm", *LAUNCH, "--output_dir"]
    assert main([*words, "there"]) == 2
    told, what_to_type = capsys.readouterr().err.splitlines()
    assert told.startswith("error: --launcher hf-jobs needs an --output_dir elsewhere: the machine and all its files")
    assert what_to_type == "hint: --output_dir hf://datasets/USER/NAME"
    assert not hub.requests
    assert main([*words, "memory://there"]) == 0
    assert "to memory://there" in capsys.readouterr().err


def test_nobody_is_logged_in(hub, monkeypatch, capsys, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert main(["run", "masked-lm", "--dry_run", *LAUNCH]) == 2
    told = "error: a Job needs a token of the Hub, and there is none\nhint: hf auth login, or set HF_TOKEN"
    assert told in capsys.readouterr().err
