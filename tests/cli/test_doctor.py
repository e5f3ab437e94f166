"""``lmtasks doctor``: what is installed, what the machine has, and what is broken."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from lmtasks.cli import doctor
from lmtasks.config import caches
from lmtasks.data.text.token_cache import cache_folder
from lmtasks.training import precision


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine happens to have installed, and no token."""
    monkeypatch.setenv("LMTASKS_PLUGINS", "")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)


def examined(lmtasks: Any) -> dict[str, Any]:
    outcome = lmtasks("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def install(site: Path, name: str, version: str, **files: str) -> None:
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for file, content in files.items():
        (about / f"{file}.txt").write_text(content)


def test_versions_are_those_that_are_installed(lmtasks: Any) -> None:
    versions = examined(lmtasks)["versions"]
    assert versions.pop("Python") == platform.python_version()
    assert versions == {name: metadata.version(name) for name in ("lmtasks", *doctor.LIBRARIES)}


def test_devices_say_whether_bfloat16_is_native(lmtasks: Any) -> None:
    cpu, *others = examined(lmtasks)["devices"]
    assert cpu == {"name": f"cpu, {torch.get_num_threads()} threads", "bfloat16": precision.native_on_cpu()}
    assert len(others) == (torch.accelerator.device_count() if torch.accelerator.is_available() else 0)


def test_caches_have_their_sizes_and_links_count_once(
    lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "there"))
    (tmp_path / "hf" / "deep").mkdir(parents=True)
    (tmp_path / "hf" / "deep" / "weights").write_bytes(b"x" * 5000)
    (tmp_path / "hf" / "link").symlink_to(tmp_path / "hf" / "deep" / "weights")
    monkeypatch.chdir(tmp_path)
    found = {cache["name"]: cache for cache in examined(lmtasks)["caches"]}
    sizes = {name: cache["bytes"] for name, cache in found.items()}
    assert sizes == {"HF_HOME": 5000, "HF_HUB_CACHE": 0, "lmtasks' cache": 0, "this folder": None}
    assert all(cache["free"] > 0 and cache["counted"] for cache in found.values())
    assert found["lmtasks' cache"]["path"] == str(tmp_path / "not" / "there" / "lmtasks")


def test_lmtasks_own_cache_is_the_one_that_is_measured() -> None:
    assert cache_folder().is_relative_to(caches.own())


@pytest.mark.parametrize(
    "variables", [{}, {"XDG_CACHE_HOME": "~/elsewhere"}, {"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/x"}]
)
def test_the_libraries_cache_is_where_they_keep_it(variables: dict[str, str]) -> None:
    imports = "from huggingface_hub.constants import HF_HOME; from lmtasks.config import caches"
    code = f"{imports}; print(HF_HOME == caches.libraries())"
    others = {name: value for name, value in os.environ.items() if name not in {"HF_HOME", "XDG_CACHE_HOME"}}
    done = subprocess.run(
        [sys.executable, "-c", code], env=others | variables, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_counting_a_huge_cache_ends_after_a_while(
    lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"x" * 2048)
    monkeypatch.setattr(doctor, "PATIENCE", -1.0)
    (line,) = [line for line in lmtasks("doctor").out.splitlines() if line.startswith("HF_HOME")]
    assert f"{tmp_path}: more than 2 KiB, " in line


def test_little_room_and_no_permission_are_noted(lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SCARCE", 2**80)
    assert any(note.startswith("HF_HOME: only ") for note in examined(lmtasks)["notes"])
    monkeypatch.setattr(doctor, "SCARCE", 0)
    if os.geteuid():  # root may write everywhere
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        tmp_path.chmod(0o500)
        assert examined(lmtasks)["notes"] == [f"HF_HOME: '{tmp_path}' cannot be written"]
        tmp_path.chmod(0o700)


def test_the_hub_and_the_token_are_told_and_never_the_token_itself(
    lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_" + "a" * 30
    hub = examined(lmtasks)["hub"]
    assert hub == {"endpoint": huggingface_hub.constants.ENDPOINT, "offline": True, "token": False}
    assert "Hub" in lmtasks("doctor").out
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    outcome = lmtasks("doctor")
    assert f"is asked at {huggingface_hub.constants.ENDPOINT}; a token is there" in outcome.out
    assert token not in outcome.out + outcome.err + lmtasks("doctor", "--json").out


def test_a_library_that_cannot_be_imported_is_broken_and_the_rest_is_told(
    lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", (*doctor.LIBRARIES, "no-such-library"))
    outcome = lmtasks("doctor")
    assert outcome.code == 3
    reason = "no-such-library: ModuleNotFoundError: No module named 'no_such_library'"
    assert outcome.err.splitlines()[0] == f"error: 1 broken: {reason}"
    assert [line.split()[1:] for line in outcome.out.splitlines() if line.startswith("no-such")] == [
        ["not", "installed"]
    ]
    assert "plugin" in outcome.out


def test_a_library_that_is_too_old_is_broken(lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "pluggy", "0.1")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = lmtasks("doctor")
    assert outcome.code == 3
    assert "BROKEN" in outcome.out
    assert "pluggy 0.1: lmtasks needs >=1.5" in outcome.out


def test_packages_that_are_allowed_and_not_there_are_noted(lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMTASKS_PLUGINS", "lmtasks,no-such-plugin")
    assert examined(lmtasks)["notes"] == ["LMTASKS_PLUGINS names 'no-such-plugin', which is no installed plugin"]


def test_a_plugin_that_does_not_count_is_told(lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "theirs", "2.0", entry_points="[lmtasks]\nplug = nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = lmtasks("doctor")
    assert outcome.code == 0
    lines = [line.split(None, 1) for line in outcome.out.splitlines()]
    assert ["plugin", "theirs:plug 2.0: not loaded: not in LMTASKS_PLUGINS"] in lines
    assert ["plugin", f"lmtasks:masked-lm {metadata.version('lmtasks')}: masked-lm"] in lines


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_that_nobody_can_look_at_takes_nothing_down(
    name: str, lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file system has names of 300 bytes, and root, too, is refused."""
    monkeypatch.setenv(name, str(tmp_path / ("a" * 300) / "cache"))
    found = examined(lmtasks)
    assert [cache["name"] for cache in found["caches"]][-1] == "this folder"
    assert found["problems"] == []


def test_a_folder_without_permission_takes_nothing_down(
    lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may look anywhere")
    (tmp_path / "closed").mkdir(mode=0)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "closed" / "cache"))
    assert "HF_HOME" in [cache["name"] for cache in examined(lmtasks)["caches"]]


def test_a_folder_that_is_gone_is_a_note(lmtasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = examined(lmtasks)
    assert "this folder" not in [cache["name"] for cache in found["caches"]]
    assert [note for note in found["notes"] if note.startswith("this folder: '.' cannot be looked at: ")]
