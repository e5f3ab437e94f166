"""Documents from files, the Hub, memory or the built-in sample, as splits."""

from lmtasks.data.corpus.duplicates import count_duplicates
from lmtasks.data.corpus.load import Corpus, Render, load_corpus
from lmtasks.data.corpus.medium import TEXT
from lmtasks.data.corpus.mix import load_sources
from lmtasks.data.corpus.split import Split

__all__ = ["TEXT", "Corpus", "Render", "Split", "count_duplicates", "load_corpus", "load_sources"]
