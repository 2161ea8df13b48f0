"""Long lines are broken at blanks, colours kept, and only on a terminal."""

import click
import pytest

from harness.history.reflow import reflow
from harness.terminal import broken, fitted


@pytest.mark.parametrize("style", [{}, {"fg": "red", "bold": True}])
def test_what_follows_hangs_under_its_own_beginning(style):
    line = f"{click.style('PASS    ', **style)} target  " + "evidence " * 12
    parts = broken(line.rstrip(), 60, 17)
    assert len(parts) > 1 and all(len(click.unstyle(part)) <= 60 for part in parts)
    assert all(part.startswith(" " * 17 + "evidence") for part in parts[1:])
    assert " ".join(click.unstyle(" ".join(parts)).split()) == " ".join(click.unstyle(line).split())


def test_a_line_of_one_colour_keeps_it_on_every_part():
    parts = broken(click.style("words " * 20, fg="green"), 40, 4)
    assert all(part.startswith("\x1b[32m") and part.endswith("\x1b[0m") for part in parts)


def test_piped_text_stays_as_it_is():
    assert fitted("word " * 100, 4) == "word " * 100


def test_prose_that_fits_is_left_alone_and_other_prose_is_set_anew():
    text = "New        one two three\n           four five\n\n  - an item that\n    goes on\nplain words"
    assert reflow(text, 80) == text.splitlines()
    assert reflow(text, 23) == [
        *("New        one two", "           three four", "           five", "", "  - an item that goes", "    on"),
        "plain words",
    ]


def test_a_table_stays_a_table_when_prose_is_set_anew():
    text = "New        one two three four\n           five:\n             a   1\n             bc  2\n           six"
    assert reflow(text, 27) == [
        *("New        one two three", "           four five:"),
        *("             a   1", "             bc  2", "           six"),
    ]
    aside = "Run        start --all     with all\n" + " " * 27 + "of them\n           start"
    assert reflow(aside, 33) == [
        *("Run        start --all     with", "           all", "           of them", "           start"),
    ]
