"""The kinds of data files that everybody has."""

from __future__ import annotations

from lmtasks import Format, hookimpl

_TEXT = (
    "txt text raw md rst org adoc tex log srt vtt"
    " py pyi js mjs ts jsx tsx java kt scala c h cc cpp hpp cxx cs rs go rb php pl lua r jl hs ml swift m mm"
    " sh bash sql html htm xml css scss yaml yml toml ini cfg diff patch"
)
"""Ends of the names of files that are text: prose, logs, subtitles, source code."""

_HERE = "lmtasks.data.corpus.formats"

FORMATS = [
    Format(name="text", suffixes=[f".{end}" for end in _TEXT.split()], read=f"{_HERE}.text:read", characters=True),
    Format(name="json", suffixes=(".json", ".jsonl", ".ndjson"), read=f"{_HERE}.json:read", characters=True),
    Format(name="csv", suffixes=(".csv",), read=f"{_HERE}.csv:read_csv", characters=True),
    Format(name="tsv", suffixes=(".tsv", ".tab"), read=f"{_HERE}.csv:read_tsv", characters=True),
    Format(name="parquet", suffixes=(".parquet", ".pq"), read=f"{_HERE}.tables:read_parquet"),
    Format(name="arrow", suffixes=(".arrow", ".feather", ".ipc"), read=f"{_HERE}.tables:read_arrow"),
    # Its headers may be in any encoding, so it reads bytes.
    Format(name="fasta", suffixes=(".fasta", ".fa", ".faa"), read=f"{_HERE}.fasta:read"),
]


@hookimpl
def lmtasks_formats() -> list[Format]:
    """The formats of this module."""
    return FORMATS
