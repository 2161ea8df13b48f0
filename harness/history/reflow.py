"""Prose that was written for one width, set anew for another."""

import re
import textwrap

from harness.archive.outline import in_columns

_START = re.compile(r"(?P<indent> *)(?P<head>[A-Z]\w+ {2,}|[-*] )?(?P<text>\S.*)")


def reflow(text: str, width: int) -> list[str]:
    """The lines of `text`, none longer than `width` where blanks allow it; as they are if all of them fit.

    Paragraphs are set anew as wholes. A keyed line (`New      ...`) or an item (`- ...`) keeps its hanging indentation,
    and a line in columns stands by itself; what stands in the right half of the page moves under the line before it.
    """
    lines = text.splitlines()
    if all(len(line) <= width for line in lines):
        return lines
    done: list[str] = []
    prefix, hang, words = "", 0, []

    def finish() -> None:
        if words:
            setting = {"initial_indent": prefix, "subsequent_indent": " " * hang, "break_on_hyphens": False}
            done.extend(textwrap.wrap(" ".join(words), width, break_long_words=False, **setting))
        words.clear()

    for line in lines:
        match = _START.match(line)
        if match is None:
            finish()
            done.append("")
            continue
        aside = len(match["indent"]) > width // 2
        alone = aside or in_columns(match["text"])
        if alone or not words or match["head"] or len(match["indent"]) != hang:
            finish()
            hang = hang if aside else match.start("text")
            prefix = line[: match.start("text")][:hang]
        words.append(match["text"].strip())
        if alone:
            finish()
    finish()
    return done
