"""A filter of documents that are nearly those before."""

from __future__ import annotations

from datasketch import MinHash, MinHashLSH

LENGTH = 5
"""Characters of a stretch."""

THRESHOLD = 0.8
"""Share of stretches in common from which on two documents are nearly the same."""

PERMUTATIONS = 128


class Unlike:
    """Whether a document is unlike all that it was asked about before."""

    def __init__(self) -> None:
        self._seen = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        self._hashes: dict[str, MinHash] = {}

    def __call__(self, text: str) -> bool:
        """Whether the text is new; if it is, it is remembered."""
        found = MinHash(num_perm=PERMUTATIONS)
        found.update_batch(sorted(stretches(text)))
        # The index gives candidates; their own hashes say how alike they are.
        if any(self._hashes[key].jaccard(found) >= THRESHOLD for key in self._seen.query(found)):
            return False
        key = str(len(self._hashes))
        self._hashes[key] = found
        self._seen.insert(key, found)
        return True


def stretches(text: str) -> set[bytes]:
    """All stretches of so many characters of a text in small letters, with one space for white space."""
    plain = " ".join(text.lower().split())
    return {plain[at : at + LENGTH].encode() for at in range(max(1, len(plain) - LENGTH + 1))}
