"""The site of the documentation, built without a warning and clicked through in a real browser, from the disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lmtasks

pytest.importorskip("playwright.sync_api", reason="tox run -e site has it")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "site.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    done = subprocess.run([sys.executable, SCRIPT, out], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Any]:
    """The first page; afterwards nothing may have been asked of a network, and no script may have failed."""
    page, asked, failed = browser.new_page(viewport={"width": 1280, "height": 900}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/README.html")
    yield page
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert failed == []
    page.close()


def test_the_menu_leads_to_every_page(page: Any, site: Path) -> None:
    listed = {link.get_attribute("href") for link in page.locator(".sidebar-tree a").all()}
    pages = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")]
    assert {"docs/api.html", *pages} <= listed
    page.locator(".sidebar-tree a", has_text="Adapters").first.click()
    assert page.url.endswith("/docs/adapters.html")
    assert "LoRA" in page.locator("article").inner_text()


def test_links_between_pages_lead_to_their_headings(page: Any) -> None:
    page.locator("article a[href='docs/python.html']").first.click()
    assert page.locator("h1").first.inner_text().startswith("From Python")
    page.locator("article a[href='extending.html#an-extension']").first.click()
    assert page.locator("#an-extension").is_visible()


def test_search_needs_no_server(page: Any) -> None:
    page.locator("input[name=q]").first.fill("lora_target_modules")
    page.locator("input[name=q]").first.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert any("dapters" in link.inner_text() for link in page.locator("#search-results li a").all())


def test_every_public_name_has_its_docstring(page: Any, site: Path) -> None:
    page.goto((site / "docs" / "api.html").as_uri())
    text = page.locator("article").inner_text()
    described = {term.get_attribute("id") for term in page.locator("dt[id^='lmtasks.']").all()}
    for name in lmtasks.__all__:
        value = getattr(lmtasks, name)
        if callable(value) and hasattr(value, "__name__"):
            assert f"lmtasks.{name}" in described
        else:
            assert f"lmtasks.{name}" in text
    assert "Train a model as the recipe says." in text


def test_arabic_and_japanese_are_there(page: Any, site: Path) -> None:
    page.goto((site / "docs" / "ja" / "tutorial.html").as_uri())
    assert "マスク" in page.locator("article").inner_text()
    page.goto((site / "docs" / "ar" / "tutorial.html").as_uri())
    assert "نموذج" in page.locator("article").inner_text()
