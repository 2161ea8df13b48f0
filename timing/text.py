"""Text from a stranger's file, made fit for a terminal, a table or a page."""

import unicodedata

_KEPT = "\n\t"
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, limit: int | None = None) -> str:
    """`text` without control characters, escape sequences' starts, bidirectional overrides and lone surrogates.

    Newlines and tabs stay. With `limit`, they become blanks too and at most `limit` characters remain: what a field in
    a table or a one-line message needs. HTML is not escaped: that is the page's own duty.
    """
    if limit is not None:
        text = " ".join(text[: 4 * limit].split())
    if not text.isascii() or not text.isprintable():
        text = "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in _UNSAFE)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return text
