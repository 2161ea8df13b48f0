"""Prose that was written for one width, set anew for another."""

import re
import textwrap

_START = re.compile(r"(?P<indent> *)(?P<head>[A-Z]\w+ {2,}|[-*] )?(?P<text>\S.*)")


def reflow(text: str, width: int) -> list[str]:
    """The lines of `text`, none longer than `width` where blanks allow it; as they are if all of them fit.

    Paragraphs are set anew as wholes. A keyed line (`New      ...`) or an item (`- ...`) keeps its hanging indentation.
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
        elif words and not match["head"] and len(match["indent"]) == hang:
            words.append(match["text"].strip())
        else:
            finish()
            prefix, hang = line[: match.start("text")], match.start("text")
            words.append(match["text"].strip())
    finish()
    return done
