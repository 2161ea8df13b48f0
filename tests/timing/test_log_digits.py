"""The vectorised number reader against Python's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timing.digits import LONGEST, overlapping_words, read_decimals, read_integers, scaled

plain = st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,18})?", fullmatch=True)
numbers = st.lists(
    st.tuples(plain, st.sampled_from([" ", "ms", "\n", "/", "x", ".", "e5", ""])), min_size=1, max_size=20
)


def lay_out(texts):
    """Buffer, words and positions of `texts`, a stop byte between them."""
    joined = b"".join(text.encode() + b"\0" for text in texts)
    buffer = np.frombuffer(joined + bytes(64), np.uint8)
    starts = np.cumsum([0] + [len(text) + 1 for text in texts[:-1]])
    return buffer, overlapping_words(buffer), starts


@given(numbers)
def test_decimals_are_the_doubles_that_float_gives(pairs):
    texts = [number + stop for number, stop in pairs]
    mantissa, decimals, end, good = read_decimals(*lay_out(texts))
    values, starts = scaled(mantissa, decimals), lay_out(texts)[2]
    for row, (number, stop) in enumerate(pairs):
        digits = len(number.replace(".", ""))
        again = stop == "." and "." not in number
        assert good[row] == (digits <= LONGEST and not again)
        if good[row]:
            assert values[row] == float(number)
            assert end[row] == starts[row] + len(number)


@given(numbers)
def test_a_shift_is_rounded_once(pairs):
    texts = [number for number, _ in pairs if len(number) <= LONGEST]
    if texts:
        mantissa, decimals, _, _ = read_decimals(*lay_out(texts))
        assert scaled(mantissa, decimals, 3).tolist() == [float(f"{text}e3") for text in texts]


@given(st.lists(st.integers(0, 10**LONGEST - 1), min_size=1, max_size=20))
def test_integers_are_exact(integers):
    value, count = read_integers(*lay_out([str(number) for number in integers])[1:])
    assert value.tolist() == integers
    assert count.tolist() == [len(str(number)) for number in integers]


@given(st.binary(min_size=1, max_size=40))
def test_whatever_the_bytes_only_leading_digits_count(content):
    buffer = np.frombuffer(content + bytes(64), np.uint8)
    value, count = read_integers(overlapping_words(buffer), np.array([0]))
    digits = len(content) - len(content.lstrip(b"0123456789"))
    assert count[0] == min(digits, 16)
    if 0 < digits <= LONGEST:
        assert value[0] == int(content[:digits])
