"""Decimal numbers out of a byte buffer, many at a time.

Eight digits are read as one 64-bit word and folded pairwise by multiplication ("SIMD within a register"), so a column
of numbers costs a dozen vector operations and no Python object a number. A number of at most 15 digits is an exact
integer below 2**53 divided by an exact power of ten: the quotient is the correctly rounded double, the same that
`float()` gives.
"""

import numpy as np

LONGEST = 15  # digits that a double holds exactly
_POWERS = 10.0 ** np.arange(2 * LONGEST)
_INT_POWERS = 10 ** np.arange(LONGEST + 4, dtype=np.int64)


def _word(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


_ZERO, _LOW7, _TO_HIGH, _HIGH = _word(0x30), _word(0x7F), _word(0x76), _word(0x80)
_ONE, _THREE, _EIGHT, _SIXTEEN, _THIRTY_TWO, _SIXTY_FOUR = (np.uint64(n) for n in (1, 3, 8, 16, 32, 64))
_PAIRS, _QUADS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_TENS, _HUNDREDS = np.uint64(10 * (1 << 8) + 1), np.uint64(100 * (1 << 16) + 1)
_MYRIADS = np.uint64(10_000 * (1 << 32) + 1)


def overlapping_words(buffer: np.ndarray) -> np.ndarray:
    """A view of a uint8 `buffer` whose entry i is the little-endian 64-bit word of bytes i to i + 7."""
    return np.ndarray(len(buffer) - 7, "<u8", buffer.data, strides=(1,))


def read_integers(words: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and count of the digits that start at each position in `at` (int64); a count above 15 voids the value."""
    value, count = _up_to_eight(words[at])
    full = np.flatnonzero(count == 8)
    if len(full):
        more, further = _up_to_eight(words[at[full] + 8])
        value[full] = value[full] * _INT_POWERS[further] + more
        count[full] += further
    return value, count


def read_decimals(buffer: np.ndarray, words: np.ndarray, at: np.ndarray):
    """(mantissa, decimals, end, good): the number at each position is mantissa / 10**decimals and stops before `end`.

    Only plain numbers are good: digits, or digits, a point and digits, 15 of them at most.
    """
    mantissa, count = read_integers(words, at)
    end = at + count
    good = count > 0
    decimals = np.zeros(len(at), np.int64)
    pointed = np.flatnonzero(buffer[end] == ord("."))
    if len(pointed):
        fraction, places = read_integers(words, end[pointed] + 1)
        good[pointed] &= places > 0
        decimals[pointed] = np.minimum(places, LONGEST)
        mantissa[pointed] = mantissa[pointed] * _INT_POWERS[decimals[pointed]] + fraction
        end[pointed] += 1 + places
        count[pointed] += places
    good &= count <= LONGEST
    return mantissa, decimals, end, good


def scaled(mantissa: np.ndarray, decimals: np.ndarray, shift: np.ndarray | int = 0) -> np.ndarray:
    """mantissa * 10**(shift - decimals), correctly rounded, as float64."""
    power = shift - decimals
    return np.where(power > 0, mantissa * _POWERS[np.maximum(power, 0)], mantissa / _POWERS[np.maximum(-power, 0)])


def _up_to_eight(word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and count of the leading digits in each word, the count 8 at most."""
    digits = word ^ _ZERO
    other = (((digits & _LOW7) + _TO_HIGH) | digits) & _HIGH  # a byte's high bit where it is no digit
    count = np.bitwise_count((other & (~other + _ONE)) - _ONE) >> 3
    digits <<= _SIXTY_FOUR - _EIGHT * count
    digits *= _TENS
    digits >>= _EIGHT
    digits &= _PAIRS
    digits *= _HUNDREDS
    digits >>= _SIXTEEN
    digits &= _QUADS
    digits *= _MYRIADS
    digits >>= _THIRTY_TWO
    return digits.view(np.int64), count.astype(np.int64)
