"""Documents from files, the Hub, memory or the built-in sample, as splits."""

from lmtasks.data.corpus.load import TEXT, Corpus, Split, count_duplicates, load_corpus

__all__ = ["TEXT", "Corpus", "Split", "count_duplicates", "load_corpus"]
