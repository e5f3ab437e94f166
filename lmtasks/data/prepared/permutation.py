"""A permutation that a key chooses, of which any place is computed alone: no list, however many places there are."""

from __future__ import annotations

import hashlib
import struct

_WORD = (1 << 64) - 1
_ROUNDS = 3
"""Times that either half of a number is changed by the other."""


class Permutation:
    """The numbers below a size in another order, in constant memory.

    A Feistel network permutes the numbers of just enough bits, whatever its round functions are. Where it leads out
    of the range it is followed on until it is back (cycle walking): less than twice on average, since less than half
    of the numbers are outside.

    Args:
        size: at least 1.
        key: numbers and words; each key has an order of its own, alike on every machine.
    """

    def __init__(self, size: int, *key: int | str) -> None:
        self.size = size
        bits = max(2, (size - 1).bit_length())
        self._low = bits // 2
        self._shifts = 64 - (bits - self._low), 64 - self._low
        digest = hashlib.shake_256(repr(key).encode()).digest(32 * _ROUNDS)
        words = struct.unpack(f"<{4 * _ROUNDS}Q", digest)
        self._keys = tuple(words[4 * number : 4 * number + 4] for number in range(_ROUNDS))

    def __call__(self, place: int) -> int:
        """The number at a place, both from 0."""
        low, mask, (to_high, to_low) = self._low, (1 << self._low) - 1, self._shifts
        while True:
            high_bits, low_bits = place >> low, place & mask
            for times, plus, other_times, other_plus in self._keys:  # multiply-shift hashes of one half onto the other
                high_bits ^= ((low_bits * times + plus) & _WORD) >> to_high
                low_bits ^= ((high_bits * other_times + other_plus) & _WORD) >> to_low
            place = high_bits << low | low_bits
            if place < self.size:
                return place
