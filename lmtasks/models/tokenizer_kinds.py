"""The kinds of tokenizers that can be trained on the spot (``--tokenizer_model``).

All but WordPiece give back any text as it went in: what they have no token for is told in bytes.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lmtasks.errors import InputError

WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|[\r\n]+(?!\s)|\s+(?!\S)|\s+"
"""GPT-2's words, but that line breaks go with the punctuation before them, and several are one word before another."""

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""Tokens for single bytes, as SentencePiece calls them."""


class Texts:
    """Texts one by one, as often as somebody wants to read them.

    Args:
        batches: begins to read, batch by batch.
    """

    def __init__(self, batches: Callable[[], Iterable[list[str]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._batches())


Train = Callable[[Iterable[str], int, Sequence[AddedToken], str], Tokenizer]
"""(texts, size, special tokens, the unknown one) to a tokenizer that adds nothing around a text."""


def bpe(texts: Iterable[str], size: int, special: Sequence[AddedToken], unknown: str) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019): no text has unknown tokens. Its size includes 256 bytes."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def wordpiece(texts: Iterable[str], size: int, special: Sequence[AddedToken], unknown: str) -> Tokenizer:
    """WordPiece as in BERT (Devlin et al. 2019): words between spaces and punctuation, in pieces.

    Pieces after the first of a word begin with ##. Capitals and accents stay. Which space was between words is lost,
    and a word with a character that the texts did not have is unknown.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The library would number them in the order of a table that is another each time, and so decide between equals.
    inner = [f"##{letter}" for letter in _letters_within(tokenizer, texts)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=[*special, *inner], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    trained = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=unknown))
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    trained.add_special_tokens(list(special))
    return trained


def _letters_within(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters that some word has after its first, sorted."""
    words: set[str] = set()
    for text in texts:
        words |= {
            word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        }
    return sorted({letter for word in words for letter in word[1:]})


def unigram(texts: Iterable[str], size: int, special: Sequence[AddedToken], unknown: str) -> Tokenizer:
    """A unigram language model (Kudo 2018) over pieces with ``▁`` for spaces, as in SentencePiece.

    Its size includes 256 bytes. The character ``▁`` itself comes back as a space.

    Raises:
        InputError: the texts have more characters than the size has room for.
    """
    bare = Tokenizer(models.Unigram())
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=size - len(special) - len(BYTES) + 1,
        special_tokens=[unknown],
        unk_token=unknown,
        # So that what looks like the name of a byte can be told without it; see below.
        initial_alphabet=sorted(set("".join(BYTES))),
        show_progress=False,
    )
    try:
        bare.train_from_iterator(texts, trainer=trainer)
    except Exception as error:  # the library has no kind of its own for it
        raise InputError(
            f"--train_tokenizer {size} has no room for the characters of the text beside 256 bytes",
            "raise --train_tokenizer, or take --tokenizer_model bpe",
        ) from error
    scores = _settled(
        {piece: score for piece, score in json.loads(bare.to_str())["model"]["vocab"] if piece != unknown}
    )
    # Less likely than any other way to tell its six characters.
    byte = len(BYTES[0]) * min(scores.values()) - 1
    pieces = [(unknown, 0.0), *((name, byte) for name in BYTES), *scores.items()]
    extra = [(str(token), 0.0) for token in special if str(token) != unknown]
    tokenizer = Tokenizer(models.Unigram([*extra, *pieces], unk_id=len(extra), byte_fallback=True))
    tokenizer.pre_tokenizer = bare.pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")])
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _settled(scores: Mapping[str, float]) -> dict[str, float]:
    """The pieces, most likely first, with scores that are the same in every training on the same texts.

    The library sums in the order of a table that is another each time, and so are the scores, in that order, of the
    characters that it would have dropped.
    """
    least = min(scores.values())
    single = sum(len(piece) == 1 for piece in scores)
    dropped = {piece for piece, score in scores.items() if len(piece) == 1 and score - least < 1e-4 * single}
    settled = {piece: round(least if piece in dropped else score, 6) for piece, score in scores.items()}
    return dict(sorted(settled.items(), key=lambda item: (-item[1], item[0])))


def character(texts: Iterable[str], size: int, special: Sequence[AddedToken], unknown: str) -> Tokenizer:
    """A token for each of the most frequent characters of the texts, and the bytes of all others.

    Its size is at most the one that was asked for, and includes 256 bytes.
    """
    counts = collections.Counter(itertools.chain.from_iterable(texts))
    frequent = sorted(counts, key=lambda one: (-counts[one], one))[: size - len(special) - len(BYTES)]
    tokens = [*map(str, special), *BYTES, *frequent]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(special))
    return tokenizer


KINDS: Mapping[str, Train] = {"bpe": bpe, "wordpiece": wordpiece, "unigram": unigram, "character": character}
"""By the words of ``--tokenizer_model``."""

NEEDS_UNKNOWN = ("wordpiece", "unigram")
"""Kinds that have a token for what they do not know; the latter never uses it."""
