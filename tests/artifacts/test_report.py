"""The report: what is drawn, what is said, and that nothing in a run can become more than text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lmtasks.artifacts.report.chart import Chart, Line, number, thinned, ticks
from lmtasks.artifacts.report.curves import learning_curve
from lmtasks.artifacts.report.folder import told_by
from lmtasks.artifacts.report.page import heat, page, write_curve, write_page
from lmtasks.artifacts.report.reading import (
    Confidence,
    Guessed,
    Position,
    Reading,
    Surprise,
    read_reading,
    write_reading,
)
from lmtasks.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>alert(1)</script>\"'&"
ARABIC = "المريخ"
RECORD: dict[str, Any] = {
    "status": "done",
    "recipe": "masked-lm",
    "summary": "Fill in hidden words.",
    "data": {"source": "notes.txt", "train": {"rows": 9, "unit": "lines", "tokens": 90}, "evaluation": {"rows": 2}},
    "options": {"block_size": 16},
    "training": {"learning_rate": 0.007, "num_train_epochs": 3.0},
    "settings": {"train_file": ["/home/someone/notes.txt"]},
    "metrics": {"eval_loss": 5.0, "perplexity": 148.4, "eval_targets": 7, "unigram_loss": 5.5, "train_runtime": 3.0},
    "verdict": {"sentences": ["0.50 nats under"], "flags": "--max_steps 9", "publishable": True},
}
LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 6.0, "learning_rate": 0.007, "grad_norm": 1.0, "train_tokens_per_second": 90.0},
    {"step": 20, "eval_loss": 5.25},
    {"step": 20, "loss": 5.5, "learning_rate": 0.003, "grad_norm": "nan", "train_tokens_per_second": 80.0},
    {"step": 30, "train_loss": 5.7, "train_runtime": 3.0},
]
GUESSED = Guessed(0.25, [(" the", 0.5), (ARABIC, 0.25), ("\n", 0.125)])
READING = Reading(
    examples=1,
    targets=4,
    shown=[[("<s>", None), ("and ", None), (ARABIC, GUESSED), ("\nmore", None)]],
    surprising=[Surprise("before ", ARABIC, " after", GUESSED)] * 9,
    calibration=[Confidence(3, 0.2, 0.3), Confidence(1, 0.9, 0.5)],
    positions=[Position(0, 8, 3, 5.0), Position(8, 16, 1, 4.0)],
)


def made(folder: Path, record: dict[str, Any] | None = None, reading: Reading | None = None) -> Path:
    """A run folder as far as reports look at it."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**RECORD, **(record or {})}))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    if reading:
        write_reading(folder, reading)
    return folder


# --- charts ---


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (4.7, 7.6, [4, 5, 6, 7, 8]),
        (0.0001, 0.0069, [0, 0.002, 0.004, 0.006, 0.008]),
        (5, 5, [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (12345.0, "12,345"), (0.0070001, "0.007"), (5.08276, "5.083"), (2.5e-5, "2.5e-05")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_long_lines_are_averaged_in_groups() -> None:
    points = [(float(x), float(x % 2)) for x in range(1, 9)]
    assert thinned(points, 4) == [(2, 0.5), (4, 0.5), (6, 0.5), (8, 0.5)]
    assert thinned(points, 8) == points


def test_a_chart_puts_points_where_they_belong() -> None:
    lines = [Line("training", [(0, 0), (5, 5), (10, 10)]), Line("base", [(10, 5)], "level", 1)]
    drawn = ElementTree.fromstring(Chart("Loss", lines).svg("text {}"))
    paths = {path.get("class"): path.get("d") for path in drawn.iter(f"{SVG}path")}
    # From 48 to 330 across, from 196 up to 25: below the legend.
    line = [path.get("d") for path in drawn.iter(f"{SVG}path") if path.get("class") == "c0 line"]
    assert line[0] == "M48.0 196.0 189.0 110.5 330.0 25.0"
    assert "c1 level" in paths
    level = [path.get("d") for path in drawn.iter(f"{SVG}path") if path.get("class") == "c1 level"]
    assert level[0] == "M48 110.5H330"
    assert drawn.get("aria-label") == "Loss: training, base"
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert [text for text in texts if text in ("training", "base", "step")] == ["step", "training", "base"]


def test_one_point_is_drawn_as_a_dot_and_told() -> None:
    drawn = ElementTree.fromstring(Chart("Loss", [Line("held out", [(30, 5)], "dots")]).svg("text {}"))
    (dot,) = drawn.iter(f"{SVG}circle")
    assert dot[0].text == "held out, 30: 5"


def test_a_legend_that_is_too_wide_goes_on_in_the_next_row() -> None:
    lines = [Line(f"a set with a long name {number}", [(1, 1), (2, 2)]) for number in range(3)]
    drawn = ElementTree.fromstring(Chart("Loss", lines, y="nats").svg("text {}"))
    rows = [text.get("y") for text in drawn.iter(f"{SVG}text") if (text.text or "").startswith("a set")]
    assert rows == ["29", "46", "63"]


def test_the_table_of_a_chart_has_its_figures() -> None:
    lines = [Line("a", [(1, 2.0), (2, 3.0)]), Line("b", [(2, 4.0)], "dots"), Line("base", [(2, 5.0)], "level")]
    assert Chart("Loss", lines).rows() == (["step", "a", "b"], [[1, 2.0, None], [2, 3.0, 4.0]])
    many = Chart("Loss", [Line("a", [(step, 1.0) for step in range(1000)])]).rows()[1]
    assert len(many) == 40 and (many[0][0], many[-1][0]) == (0, 999)


# --- what a folder tells ---


def test_a_run_is_read_as_it_lies_there(tmp_path: Path) -> None:
    told = told_by(made(tmp_path / "run", reading=READING))
    assert told.name == "run"
    assert told.series("loss") == [(10, 6.0), (20, 5.5)]
    assert told.series("grad_norm") == [(10, 1.0)], "what is no number is not drawn"
    assert told.evaluations() == {"": [(20, 5.25), (30, 5.0)]}
    assert (told.unit, told.speed()) == ("tokens", [(10, 90.0), (20, 80.0)])
    assert told.reading == READING
    assert "someone" not in json.dumps(told.record), "pages are passed on"


def test_the_best_model_is_not_the_last_point(tmp_path: Path) -> None:
    told = told_by(made(tmp_path / "run", {"training": {"load_best_model_at_end": True}}))
    assert told.evaluations() == {"": [(20, 5.25)]}


def test_each_set_has_its_curve(tmp_path: Path) -> None:
    figures = {
        "eval_a_loss": 4.0,
        "eval_a_targets": 3,
        "eval_b_loss": 3.0,
        "eval_b_targets": 3,
        "eval_b_unigram_loss": 6,
    }
    told = told_by(made(tmp_path / "run", {"metrics": {"eval_loss": 4.0, "unigram_loss": 7, **figures}}))
    assert told.evaluations() == {"a": [(30, 4.0)], "b": [(30, 3.0)]}
    lines = [(line.name, line.kind, list(line.points)[-1][1]) for line in learning_curve(told).lines]
    assert lines == [
        ("training", "line", 5.5),
        ("held out a", "dots", 4.0),
        ("held out b", "dots", 3.0),
        ("unigram baseline b", "level", 6),
    ]


def test_half_a_line_of_the_log_is_none(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with (run / "log.jsonl").open("a") as log:
        log.write('[1]\n{"step": 40, "loss": 5.')
    assert len(told_by(run).log) == 4


def _gone(run: Path) -> None:
    (run / "run.json").unlink()


def _silent(run: Path) -> None:
    (run / "log.jsonl").write_text("")


def _damaged(run: Path) -> None:
    (run / "report.json").write_text('{"examples": "many"}')


@pytest.mark.parametrize(
    ("harm", "said", "hint"),
    [
        (_gone, "run is not the folder of a run: it has no run.json", "lmtasks report RUN"),
        (_silent, "run has nothing to report: its log.jsonl is empty or missing", "wait for the first steps"),
        (_damaged, "report.json' is damaged: ", "remove it"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    harm: Callable[[Path], None], said: str, hint: str, tmp_path: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(made(Path("run")))
    outcome = lmtasks("report", "run")
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err.splitlines()[0]
    assert outcome.err.splitlines()[1].startswith("hint: ") and hint in outcome.err
    assert not Path("report.html").exists()


def test_no_folder_is_refused(lmtasks: Any, tmp_path: Path) -> None:
    outcome = lmtasks("report", tmp_path / "gone")
    assert outcome.code == 2
    assert "no such run folder" in outcome.err


# --- the page ---


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def evil(value: Any) -> Any:
    """The same with something evil in each text."""
    if isinstance(value, dict):
        return {name: evil(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [evil(inner) for inner in value]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def test_texts_of_a_run_stay_texts(tmp_path: Path) -> None:
    guessed = Guessed(0.5, [(EVIL, 0.5)])
    reading = Reading(1, 1, [[(EVIL, guessed), (EVIL, None)]], [Surprise(EVIL, EVIL, EVIL, guessed)], [], [])
    record = evil({**RECORD, "perplexity_label": "masked"}) | {"options": {EVIL: EVIL}}
    record["data"] = {"source": EVIL, "column": EVIL, "evaluations": {EVIL: {EVIL: EVIL}}}
    text = page([told_by(made(tmp_path / "<script>run", record, reading))])
    told = Page(text)
    assert "<script" not in text and text.count("&lt;script&gt;alert(1)") >= 15
    assert {tag for tag, _ in told.tags} & {"script", "iframe", "img", "object"} == set()
    assert not any(name.startswith("on") for _, attributes in told.tags for name in attributes)
    assert told.text.count("alert(1)") >= 15, "it is there to be read"


def test_the_page_needs_no_network_and_no_script(tmp_path: Path) -> None:
    text = page([told_by(made(tmp_path / "run", reading=READING))])
    told = Page(text)
    (policy,) = (attributes["content"] for _, attributes in told.tags if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "://" not in text
    links = {attributes["href"] for _, attributes in told.tags if "href" in attributes}
    assert {link for link in links if not (link or "").startswith("#")} == {"data:,"}
    ids = {attributes["id"] for _, attributes in told.tags if "id" in attributes}
    assert {(link or "")[1:] for link in links if (link or "").startswith("#")} <= ids
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert len(text) < 60_000


def test_the_page_says_what_there_is_to_say(tmp_path: Path) -> None:
    text = page([told_by(made(tmp_path / "run", reading=READING))])
    said = Page(text).text
    for words in (
        "0.50 nats under",
        "ten times the steps, or the text, would take 30 s",
        "to try next: the same command with --max_steps 9",
        "Expected calibration error: 17.5%.",  # a quarter of three times 0.1 and 0.4
        "1 examples with 4 targets were read",
        "training: learning_rate",
    ):
        assert words in said, words
    assert f'<mark class="h2" title="25.0%">{ARABIC}</mark>' in text
    assert f'<bdi class="token">{ARABIC}</bdi> 25.0% · <bdi class="token">⏎</bdi> 12.5%' in text
    texts = [attributes for _, attributes in Page(text).tags if attributes.get("class") == "text"]
    assert len(texts) == 10 and all(attributes["dir"] == "auto" for attributes in texts)
    assert said.count("More of them") == 1
    for title in ("Loss", "Learning rate", "Gradient norm", "Speed", "Loss by position", "Calibration of the guesses"):
        assert f"<figcaption>{title}</figcaption>" in text


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(1.0, "h0"), (0.6, "h0"), (0.5, "h1"), (0.1, "h3"), (0.002, "h8"), (1e-9, "h9"), (0.0, "h9")],
)
def test_colour_is_surprise_in_bits(probability: float, expected: str) -> None:
    assert heat(probability) == expected


def test_several_runs_stand_beside_each_other(tmp_path: Path) -> None:
    other = {"training": {"learning_rate": 0.001, "num_train_epochs": 3.0}, "metrics": {"eval_loss": 4.0}}
    runs = [made(tmp_path / "a" / "run", reading=READING), made(tmp_path / "b" / "run", other)]
    text = page([told_by(run) for run in runs])
    differences = text.partition('id="differences"')[2].partition("</section>")[0]
    assert re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", differences) == [
        *("option", "run (1)", "run (2)"),
        *("training: learning_rate", "0.007", "0.001"),
    ]
    figures = text.partition('id="verdict"')[2].partition("</section>")[0]
    assert '<th scope="row" dir="auto">loss</th><td dir="auto">5</td><td dir="auto">4</td>' in figures
    assert "<figcaption>Training loss</figcaption>" in text and "<figcaption>Held-out loss</figcaption>" in text
    assert "Most surprising first" not in text


def test_alike_runs_have_no_differences(tmp_path: Path) -> None:
    runs = [told_by(made(tmp_path / name)) for name in "ab"]
    assert 'id="differences"' not in page(runs)


def test_a_run_that_is_not_done_has_a_page(tmp_path: Path) -> None:
    record = {"status": "running", "metrics": None, "verdict": None}
    text = page([told_by(made(tmp_path / "run", record))])
    assert "the run is not done: its status is &#39;running&#39;" in text


def test_a_report_is_replaced_and_nothing_else(tmp_path: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("run"))
    assert lmtasks("report", "run").out == "report.html\n"
    before = Path("report.html").read_bytes()
    assert json.loads(lmtasks("report", "run", "--json").out) == {"report": "report.html"}
    assert Path("report.html").read_bytes() == before
    Path("mine.html").write_text("<p>mine")
    outcome = lmtasks("report", "run", "--output", "mine.html")
    assert outcome.code == 2 and "--output mine.html exists and is no report" in outcome.err
    assert Path("mine.html").read_text() == "<p>mine"
    outcome = lmtasks("report", "run", "--output", "run")
    assert outcome.code == 2 and "--output run is a folder" in outcome.err and "run/report.html" in outcome.err


def test_an_output_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies in no folder"):
        write_page(tmp_path / "gone" / "report.html", [told_by(made(tmp_path / "run"))])


# --- the picture of the card ---


def test_the_picture_stands_alone(tmp_path: Path) -> None:
    run = made(tmp_path / "run", reading=READING)
    write_curve(run, told_by(run))
    text = (run / "learning_curve.svg").read_text()
    drawn = ElementTree.fromstring(text)
    assert drawn.tag == f"{SVG}svg"
    assert "prefers-color-scheme" in next(iter(drawn.iter(f"{SVG}style"))).text
    assert {path.get("class") for path in drawn.iter(f"{SVG}path")} == {"grid", "c0 line", "c1 dots", "c1 level"}
    assert ARABIC not in text


def test_a_reading_comes_back_as_it_was(tmp_path: Path) -> None:
    write_reading(tmp_path, READING)
    assert read_reading(tmp_path) == READING
    assert read_reading(tmp_path / "elsewhere") is None
