"""Words as a plugin tells them: masked as a whole, kept under its name and version, and named when wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from lmtasks import Blocks, InputError, WordSegmenter
from lmtasks.data.corpus import Split
from lmtasks.data.text import token_cache
from lmtasks.data.text.encode import encode
from lmtasks.data.text.word_boundaries import word_starts
from lmtasks.testing import check_word_segmenter, installed

ROOT = Path(__file__).parents[3]


def every_third(text: str) -> list[int]:
    """A word of three characters after the other."""
    return list(range(0, len(text), 3))


THIRDS = WordSegmenter(name="thirds", summary="Three characters are a word.", segment=every_third)
BLOCKS = Blocks(size=32, words=True, word_segmenter="thirds")

PLUGIN = """
from lmtasks import WordSegmenter, hookimpl

def segment(text):
    return range(0, len(text), {step})

@hookimpl
def lmtasks_word_segmenters():
    return [WordSegmenter(name="{name}", summary="Steps.", segment="{module}:segment"{more})]
"""


def split_of(text: str) -> Split:
    return Split(datasets.Dataset.from_dict({"text": [text]}), ("text",), True)


def test_a_word_begins_where_the_segmenter_says(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    text = "abc de,fg 東京都"
    with installed(word_segmenters=[THIRDS]):
        packed = encode("training", split_of(text), masked_tokenizer, BLOCKS)
    offsets = masked_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    # By hand: places 0, 3, 6, 9; a token counts from its first character that is no space, once for each character.
    first = [begin + (text[begin] == " " and end > begin + 1) for begin, end in offsets]
    wanted = [
        (place % 3 == 0 or text[begin:end].isspace()) and place not in first[:number]
        for number, (place, (begin, end)) in enumerate(zip(first, offsets, strict=True))
    ]
    assert packed.stream.words is not None
    assert packed.stream.words.tolist() == wanted
    assert wanted != word_starts(text, offsets).tolist()


def test_tokens_are_kept_by_name_version_and_code(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    split = split_of("some text that is long enough")

    def key(segmenter: WordSegmenter, blocks: Blocks = BLOCKS) -> str | None:
        with installed(word_segmenters=[segmenter]):
            return token_cache.key_of(split, masked_tokenizer, blocks)

    def with_libraries(*names: str) -> WordSegmenter:
        return WordSegmenter(name="thirds", summary="", segment=every_third, libraries=names)

    keys = [key(THIRDS), key(with_libraries("numpy")), key(with_libraries("torch"))]
    other = WordSegmenter(name="thirds", summary="", segment="string:capwords")
    keys += [key(other), key(THIRDS, Blocks(size=32, words=True))]
    assert len(set(keys)) == 5
    assert key(THIRDS) == keys[0]
    assert key(THIRDS, Blocks(size=32, word_segmenter="thirds")) == key(THIRDS, Blocks(size=32)), (
        "nobody asks for words"
    )


def test_other_words_are_other_data(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    told = []
    for step in (3, 4):
        segmenter = WordSegmenter(name="thirds", summary="", segment=lambda text, step=step: range(0, len(text), step))
        with installed(word_segmenters=[segmenter]):
            packed = encode("training", split_of("abcdefghi" * 9), masked_tokenizer, BLOCKS, fresh=True)
            told.append((packed.fingerprint, packed.stream.ids.tolist()))
    assert told[0][0] != told[1][0]
    assert told[0][1] == told[1][1]


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (lambda text: [1 / 0], "fails: ZeroDivisionError: division by zero"),
        (lambda text: [len(text) + 1], "gives places outside of the text"),
        (lambda text: [-1], "gives places outside of the text"),
        (lambda text: ["here"], "fails: ValueError"),
        ("no_such_module:words", "fails: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_segmenter_that_fails_is_named(segment: Any, message: str, masked_tokenizer: PreTrainedTokenizerBase) -> None:
    broken = WordSegmenter(name="thirds", summary="", segment=segment)
    with installed(word_segmenters=[broken]), pytest.raises(InputError, match=f"'thirds' of lmtasks_in_.* {message}"):
        encode("training", split_of("some text"), masked_tokenizer, BLOCKS, fresh=True)


def test_a_missing_library_is_named(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    lacking = WordSegmenter(name="thirds", summary="", segment=every_third, libraries=["numpy", "no-such-library"])
    with installed(word_segmenters=[lacking]), pytest.raises(InputError, match="needs no-such-library") as caught:
        encode("training", split_of("some text"), masked_tokenizer, BLOCKS)
    assert caught.value.hint == "pip install no-such-library"


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("third", "unknown word segmenter 'third', did you mean 'thirds'?", "there are unicode, thirds"),
        ("jeiba", "did you mean 'jieba'?", "pip install 'lmtasks-word-segmenters[chinese]'"),
        ("sudachi", "unknown word segmenter 'sudachi'", "pip install 'lmtasks-word-segmenters[japanese]'"),
        ("icu", "unknown word segmenter 'icu'", "pip install 'lmtasks-word-segmenters'"),
    ],
)
def test_an_unknown_segmenter_comes_with_the_nearest_and_its_package(typed: str, message: str, hint: str) -> None:
    with installed(word_segmenters=[THIRDS]) as catalog, pytest.raises(InputError) as caught:
        catalog.word_segmenter(typed)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "Thirds"}, "word segmenter 'Thirds' must be lower case"),
        ({"name": "unicode"}, "word segmenter 'unicode' is built in"),
        ({"segment": "module.function"}, "word segmenter 'thirds': 'module.function' must look like 'module:function'"),
    ],
)
def test_a_declaration_of_the_wrong_shape_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordSegmenter(**{"name": "thirds", "summary": "", "segment": every_third, **more})


def test_the_check_of_the_kit_accepts_words_of_the_text_and_nothing_else() -> None:
    blanks = WordSegmenter(
        name="blanks",
        summary="",
        segment=lambda text: [
            at for at in range(len(text)) if text[at] in " ." or text[at - 1 : at].strip(" \n") == ""
        ],
    )
    check_word_segmenter(blanks, ["two", " ", "words", "."], ["one"])
    with pytest.raises(AssertionError, match=r"blanks: words of 'two words\.' begin at \[0, 4, 9\], not at \[0, 9\]"):
        check_word_segmenter(blanks, ["two words", "."])
    # Three by three depends on what stands before the line.
    check_word_segmenter(THIRDS, ["abc", "d"])
    with pytest.raises(AssertionError, match=r"thirds: words of 'abcd\\nabc' begin at \[0, 3, 6\], not at \[0, 3, 5\]"):
        check_word_segmenter(THIRDS, ["abc", "d"], ["abc"])


# --- in commands, from packages ---


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Packages with a sound segmenter, one of a taken name, and two that are broken."""
    kinds = {"steps": {"name": "steps"}, "twin": {"name": "steps"}, "again": {"name": "unicode"}}
    kinds["later"] = {"name": "later", "more": ", api_version=2"}
    for number, (word, values) in enumerate(kinds.items()):
        module = f"words_{number}_{word}"
        code = PLUGIN.format(module=module, **{"step": 2, "more": "", **values})
        (tmp_path / f"{module}.py").write_text(code)
        about = tmp_path / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: words-{number}-{word}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[lmtasks]\n{word} = {module}\n")
    return tmp_path


def test_plugins_shows_segmenters_and_what_is_wrong_with_them(site: Path) -> None:
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]), "XDG_CACHE_HOME": str(site / "cache")}
    for _ in range(2):  # found, and then remembered
        done = subprocess.run(
            [sys.executable, "-m", "lmtasks", "plugins"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = dict(line.split(" 1.0: ", 1) for line in done.stdout.splitlines() if line.startswith("words-"))
        assert lines == {
            "words-0-steps:steps": "steps",
            "words-1-twin:twin": "BROKEN: word segmenter 'steps' already belongs to words-0-steps:steps",
            "words-2-again:again": "BROKEN: ValueError: word segmenter 'unicode' is built in"
            " (words_2_again.py, line 9)",
            "words-3-later:later": "BROKEN: needs a newer lmtasks: written for version 2 of the contract, "
            "this lmtasks has 1",
        }


def test_a_run_masks_these_words_and_records_who_told_them(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    plugin = tmp_path / "my_words.py"
    plugin.write_text(PLUGIN.format(module="my_words", name="steps", step=2, more=", libraries=['regex']"))
    run = ["run", "masked-lm", "--model", model_folders["bert"], "--train_file", text_file, "--max_steps", 1]
    run += ["--block_size", 32, "--use_cpu", "--mask_unit", "word", "--word_segmenter", "steps"]
    refused = lmtasks(*run, "--output_dir", tmp_path / "out")
    assert (refused.code, (tmp_path / "out").exists()) == (2, False)
    assert "error: unknown word segmenter 'steps'" in refused.err
    done = lmtasks(*run, "--output_dir", tmp_path / "out", "--plugin", plugin)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["options"]["word_segmenter"] == "steps"
    assert record["versions"]["regex"]
    again = lmtasks("evaluate", tmp_path / "out", "--plugin", plugin, "--json")
    assert json.loads(again.out)["eval_loss"] == pytest.approx(record["metrics"]["eval_loss"], rel=1e-6)
    other = lmtasks("evaluate", tmp_path / "out", "--plugin", plugin, "--word_segmenter", "unicode", "--json")
    assert json.loads(other.out)["eval_loss"] != pytest.approx(record["metrics"]["eval_loss"], rel=1e-6)


def test_a_segmenter_without_words_is_refused(text_file: Path, lmtasks: Callable[..., Any]) -> None:
    refused = lmtasks("run", "masked-lm", "--train_file", text_file, "--word_segmenter", "steps", "--dry_run")
    assert refused.code == 2
    assert "error: --word_segmenter steps has no words to tell\nhint: add --mask_unit word" in refused.err


def test_words_of_a_long_text_are_those_of_the_whole(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    """A segmenter that keeps to lines has the same words whatever parts a text is tokenised in."""

    def by_line(text: str) -> list[int]:
        starts = [0, *(at + 1 for at, sign in enumerate(text) if sign == "\n")]
        return [place for at in starts for place in range(at, text.find("\n", at) % (len(text) + 1), 3)]

    lines = WordSegmenter(name="thirds", summary="", segment=by_line)
    text = "".join(f"{number} 東京都に住んでいる友達と abc\n" for number in range(2000))
    with installed(word_segmenters=[lines]):
        packed = encode("training", split_of(text), masked_tokenizer, BLOCKS, fresh=True)
    encoded = masked_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    whole = word_starts(text, encoded["offset_mapping"], lambda text: np.asarray(by_line(text)))
    assert packed.stream.ids.tolist() == encoded["input_ids"]
    assert packed.stream.words is not None
    assert np.array_equal(packed.stream.words, whole)
