"""Documents that are no text, and what their examples have to be able to.

Text needs none of this: :class:`lmtasks.Blocks` says all about it. For anything else a recipe names a
:class:`Medium`, and its ``preprocess`` returns a :class:`Layout`. The runner asks these and nothing more, so it
does not know what the documents are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from lmtasks.api.references import Reference, defer

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from transformers import PretrainedConfig


class Documents(Protocol):
    """One split of a corpus: what :class:`lmtasks.data.corpus.Split` is."""

    @property
    def rows(self) -> datasets.Dataset:
        """The rows; those that do not belong to the split as well."""

    @property
    def column(self) -> tuple[str, ...]:
        """Path of the column of the documents."""

    @property
    def documents(self) -> bool:
        """Whether every row is a document; else rows are lines of a running text."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change with what the documents hold."""

    def __len__(self) -> int:
        """The number of rows that belong to the split."""

    def arrays(self) -> Iterator[pa.Array]:
        """Texts in order, as Arrow's string arrays, lists joined with a space; for columns of text only."""

    def numbers(self) -> npt.NDArray[np.int64]:
        """The rows that belong to the split, by number, in order."""


class ReadSettings(Protocol):
    """The settings that say how data files are read."""

    @property
    def text_column(self) -> str | None:
        """The column of the documents, where somebody named it."""

    @property
    def text_template(self) -> str | None:
        """The text of a row, with columns in braces."""

    @property
    def chat(self) -> bool:
        """Whether the column holds conversations."""

    @property
    def sample_by(self) -> Literal["line", "paragraph", "document"]:
        """The meaning of a row of a text file."""

    @property
    def format(self) -> str | None:
        """The format of all files, where somebody named it."""

    @property
    def encoding(self) -> str | None:
        """The encoding of files of characters; None for UTF-8, or what a file says of itself."""

    @property
    def csv_separator(self) -> str | None:
        """What separates cells; None to find out."""

    @property
    def csv_quoting(self) -> Literal["minimal", "none"] | None:
        """Whether cells may be in quotation marks; None for what the format has."""

    @property
    def csv_header(self) -> bool | None:
        """Whether the first row names the columns; None to find out."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """The way in which documents of one kind are found and read. Functions may be given as ``"module:function"``.

    Args:
        name: what people call it, "audio".
        suffixes: of the files that are taken from folders, such as ``".wav"``.
        files: (paths, data settings) to the rows of data files, the name of their column if it is known, and
            whether each row is a document.
        items: (items, name) to the rows of a list that Python handed over under that name.
        select: (rows, name of a column or None, source) to the rows with nothing but the column of the documents,
            and the path of it.
        filled: (rows, column, source) to whether each row holds a document, bool [rows]. Looks at every row, so
            that what cannot be read is refused before a run begins.
        duplicates: (train, evaluation) to how many rows of the evaluation split are in the training split, too.

    Raises:
        ValueError: a name or a suffix of the wrong shape.
    """

    name: str
    suffixes: Sequence[str]
    files: Callable[[Sequence[Any], ReadSettings], tuple[datasets.Dataset, str | None, bool]] | Reference
    items: Callable[[Sequence[Any], str], datasets.Dataset] | Reference
    select: Callable[[datasets.Dataset, str | None, str], tuple[datasets.Dataset, tuple[str, ...]]] | Reference
    filled: Callable[[datasets.Dataset, tuple[str, ...], str], npt.NDArray[np.bool_]] | Reference
    duplicates: Callable[[Documents, Documents], int] | Reference

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]+", self.name):
            raise ValueError(f"name of a medium {self.name!r} must be one word in lower case")
        for suffix in self.suffixes:
            if not re.fullmatch(r"(\.[a-z0-9]+)+", suffix):
                raise ValueError(f"medium '{self.name}': suffix {suffix!r} must look like '.wav'")
        defer(self, f"medium '{self.name}'", "files", "items", "select", "filled", "duplicates")


class Examples(Protocol):
    """One split as numbered examples: what :class:`lmtasks.data.text.packing.Packed` is to text."""

    @property
    def unit(self) -> str:
        """The unit of its size, and of the speed of training: "tokens"."""

    @property
    def total(self) -> float:
        """The number of these in all."""

    @property
    def per_example(self) -> float:
        """The number of these that the model gets with an example, on average."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change with what the examples hold."""

    def __len__(self) -> int:
        """The number of examples."""

    def example(self, index: int) -> dict[str, Any]:
        """The example as the collator gets it, without the seed."""

    def longest_first(self) -> Iterator[int]:
        """The numbers of the examples, by length."""

    def head(self, examples: int | None) -> Self:
        """The first so many examples; all when None."""

    def sizes(self) -> dict[str, Any]:
        """For plan, record and card: ``rows``, ``unit`` (of rows), ``fingerprint``, and counts by what they count."""

    def notes(self, name: str) -> Iterator[str]:
        """Remarks for a person before training on it, under the name of the split, "training"."""


class Layout(Protocol):
    """The way from documents to examples: what :class:`lmtasks.Blocks` is to text."""

    def examples(self, name: str, split: Documents, processor: Any, config: PretrainedConfig) -> Examples:
        """The examples of a split.

        Args:
            name: what to call the split, "training".
            config: of the model.

        Raises:
            InputError: there are none.
        """
