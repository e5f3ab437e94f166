"""The report in a real browser: nothing leaves the page, and it can be read on a phone, in the dark and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lmtasks

CONTRAST = """
() => {
  const channel = value => value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const light = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  };
  const paper = light(getComputedStyle(document.documentElement).backgroundColor);
  const seen = [...document.querySelectorAll('h1, p, a, summary, dt, svg text')].map(one => {
    const style = getComputedStyle(one);
    const ink = light(one instanceof SVGElement ? style.fill : style.color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  });
  return Math.min(...seen);
}
"""
"""The least contrast of text and paper (WCAG 2): 4.5 is what small text needs."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], text_file: Path) -> Iterator[Path]:
    """The report of a small run."""
    out = tmp_path_factory.mktemp("report") / "out"
    how = {"train_file": str(text_file), "block_size": 32, "max_steps": 20, "eval_strategy": "steps", "eval_steps": 5}
    lmtasks.run("causal-lm", model=str(model_folders["gpt2"]), output_dir=str(out), **how)
    yield out / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the report for a reader with a screen of some width and a preference of colours; closes it after."""
    pages = []

    def open_page(width: int, scheme: str) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1200])
def test_it_is_readable_and_asks_for_nothing(width: int, scheme: str, opened: Any, report: Path) -> None:
    page = opened(width, scheme)
    assert (page.said, page.asked) == ([], [report.as_uri()])
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing has to be scrolled sideways"
    assert page.evaluate(CONTRAST) >= 4.5
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(13, 17, 23)"
    assert dark is (scheme == "dark")
    assert page.locator("svg").count() == 6
    for box in (page.locator("svg").nth(number).bounding_box() for number in range(6)):
        assert box["width"] >= 0.75 * min(width, 360) and box["height"] > 150


def test_the_keyboard_reaches_everything(opened: Any) -> None:
    page = opened(1200, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "it is seen when it is reached"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        tag = page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim()")
        reached.add(tag)
    assert {"SUMMARY Figures", "SUMMARY All figures", "SUMMARY The guesses in words", "A Options"} <= reached
    page.locator("summary", has_text="All figures").focus()
    page.keyboard.press("Enter")
    assert page.locator("table", has_text="perplexity").first.is_visible()
