"""A real Chromium: the tox environment's own, or the system's where that cannot be fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="tox run -e browser has it")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        system = None if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        chromium = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield chromium
        chromium.close()
