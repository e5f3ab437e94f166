"""Whether the ids of text files are those of the tokenizer called on the whole file.

    python benchmarks/running_text.py --tokenizers FOLDER [FOLDER ...] [--windows 300 3000 32768] FILE [FILE ...]

For each tokenizer and file: the number of tokens, whether the ids that a run reads equal ``tokenizer(whole file)``
with each size of the parts that it reads at once, with one reading and with one that goes on in the middle, and the
number of tokens line by line. Exit 1 where any ids differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lmtasks import Blocks
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Split, load_corpus
from lmtasks.data.text import tokenize


def lines_of(file: str) -> Split:
    """A text file as a run reads it."""
    return load_corpus(DataSettings(validation_file=[file]), evaluation_only=True).evaluation


def ids_of(split: Split, tokenizer: PreTrainedTokenizerBase, longest: int, start: int = 0) -> list[list[int]]:
    """The ids of each piece, and after each how many rows are done."""
    tokenize.LONGEST = longest
    return [[piece.rows, *piece.ids.tolist()] for piece in tokenize.read(split, tokenizer, Blocks(size=8), start)]


def is_whole(split: Split, tokenizer: PreTrainedTokenizerBase, longest: int, whole: list[int]) -> bool:
    """Whether the ids are those of the whole, read from the beginning and on from the middle."""
    pieces = ids_of(split, tokenizer, longest)
    if [token for _, *ids in pieces for token in ids] != whole:
        return False
    half = len(pieces) // 2
    while half and not pieces[half - 1][0]:
        half -= 1
    rest = ids_of(split, tokenizer, longest, sum(rows for rows, *_ in pieces[:half]))
    done = sum(len(ids) for _, *ids in pieces[:half])
    return [token for _, *ids in rest for token in ids] == whole[done:]


def by_line(split: Split, tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of tokens that the same text has line by line."""
    batches = (tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in split.texts())
    return sum(len(ids) for batch in batches for ids in batch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizers", nargs="+", required=True)
    parser.add_argument("--windows", nargs="+", type=int, default=[300, 3000, 1 << 15])
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    differ = 0
    print("| tokenizer | file | tokens | " + " | ".join(f"parts of {size}" for size in asked.windows) + " | by line |")
    print("|---|---|---|" + "---|" * (len(asked.windows) + 1))
    for name in asked.tokenizers:
        tokenizer = AutoTokenizer.from_pretrained(name)
        for file in asked.files:
            split = lines_of(file)
            text = "".join(line for batch in split.texts() for line in batch)
            whole = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            same = [is_whole(split, tokenizer, size, whole) for size in asked.windows]
            differ += same.count(False)
            told = ["equal" if one else "DIFFERENT" for one in same]
            apart = by_line(split, tokenizer)
            print(
                f"| {Path(name).name} | {Path(file).name} | {len(whole):,} | {' | '.join(told)} | {apart:,} |",
                flush=True,
            )
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
