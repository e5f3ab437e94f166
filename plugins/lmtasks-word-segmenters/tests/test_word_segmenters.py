"""Each library finds the words of a few sentences, in any text, and whole words are what is masked."""

import lmtasks_word_segmenters
import pytest
from lmtasks_word_segmenters import SEGMENTERS
from lmtasks_word_segmenters.segment import THAI, starts

import lmtasks
from lmtasks.artifacts.run_folder import read_record
from lmtasks.testing import check_word_segmenter

BY_NAME = {segmenter.name: segmenter for segmenter in SEGMENTERS}

SENTENCES = {
    "icu": [
        ["我", "来到", "北京", "，", "今天", "天气", "很好", "。"],
        ["東京", "に", "いる", "友達", "。"],
        ["เรา", "ไป", " ", "สวน"],
        ["ຂ້ອຍ", "ຮັກ", "ພາສາ", "ລາວ"],
        ["😀", "我们", "去", " ", "New", " ", "York", "!"],
    ],
    "jieba": [
        ["我", "来到", "北京", "，", "清华大学", "。"],
        ["我们", "去", "公园", "散步", " ", "with", " ", "you", "."],
        ["😀", "学习", "3.14", "，", "東京", "𠮷"],
    ],
    "sudachi": [
        ["東京", "に", "住ん", "で", "いる", "友達", "と", "昼ごはん", "を", "食べ", "まし", "た", "。"],
        ["コーヒー", "を", "、", "2", "つ", " ", "please"],
    ],
    "newmm": [
        ["วันนี้", "อากาศ", "ดีมาก", " ", "เรา", "ไป", "เดินเล่น"],
        ["😀", "ที่", "สวนสาธารณะ", " ", "in", " ", "Bangkok", "."],
    ],
}


@pytest.mark.parametrize("name", BY_NAME)
def test_sentences_have_their_words_alone_and_in_a_text(name: str) -> None:
    check_word_segmenter(BY_NAME[name], *SENTENCES[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_texts_of_other_scripts_have_unicodes_words(name: str) -> None:
    check_word_segmenter(BY_NAME[name], ["Don't", " ", "panic", ",", " ", "мир", "!"], ["سلام", " ", "عليكم"])


def test_a_very_long_run_has_words_to_its_end() -> None:
    text = "友達と食べました" * 5000
    places = BY_NAME["sudachi"].segment(text)
    assert {len(text) - 1, len(text) - 3, len(text) - 5, 0, 2, 3, 5} <= set(places)


def test_what_a_library_leaves_out_is_no_word() -> None:
    assert sorted(starts("ab สวน cd", THAI, lambda run: ["ส", "วน"])) == [0, 2, 3, 4, 6, 7, 9]


def test_all_are_installed_and_named() -> None:
    (plugin,) = [one for one in lmtasks.load_catalog().plugins if one.module == lmtasks_word_segmenters.__name__]
    assert plugin.state == "icu, jieba, sudachi, newmm"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_model_learns_whole_words(name: str, tmp_path) -> None:
    texts = ["".join(words) for words in SENTENCES[name]] * 40
    run = lmtasks.run(
        "masked-lm",
        model_type="bert",
        config_overrides="num_hidden_layers=1,hidden_size=16,num_attention_heads=1,intermediate_size=16",
        train_tokenizer=400,
        train_dataset=texts,
        mask_unit="word",
        word_segmenter=name,
        block_size=32,
        max_steps=2,
        output_dir=str(tmp_path / "out"),
    )
    record = read_record(run.output_dir)
    assert record["options"]["word_segmenter"] == name
    for library in BY_NAME[name].libraries:
        assert record["versions"][library]
    assert lmtasks.evaluate(run.output_dir, eval_dataset=texts)["eval_loss"] > 0
