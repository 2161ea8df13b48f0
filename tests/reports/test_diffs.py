"""What changed, highlighted: every line there, every character escaped."""

import re
from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st

from reports import diffs
from reports.diffs import Row

BEFORE = 'x = 1\n"""two\nlines"""\n\n\ndef step(a):\n    return a  # old\n'
AFTER = BEFORE.replace("a  # old", "a + 1  # new")


def plain(markup):
    return unescape(re.sub(r"<[^>]+>", "", str(markup)))


def test_each_row_has_its_element():
    rows = (
        Row("section", "Model"),
        Row("note", "4 lines unchanged"),
        Row("scope", "def step"),
        Row("same", line=6),
        Row("gone", line=7),
        Row("come", line=7),
        Row("moved", line=1),
    )
    html = str(diffs.diff(BEFORE, AFTER, rows).html)
    assert html.startswith("<b>Model</b><small>4 lines unchanged</small><em>def step</em><span>")
    assert plain(re.search(r"<span>.*?</span>", html)[0]) == "def step(a):"
    (gone,), (come,), (moved,) = (
        re.findall(rf"<{tag}>(.*?)</{tag.split()[0]}>", html) for tag in ("del", "ins", 'ins class="moved"')
    )
    assert plain(gone) == "    return a  # old" and plain(come) == "    return a + 1  # new" and plain(moved) == "x = 1"
    assert '<i class="k">return</i>' in come and '<i class="c"># new</i>' in come


def test_changed_words_are_marked_within_and_across_pieces_of_syntax():
    line = AFTER.split("\n")[6]
    words = ((line.index("a"), line.index("a") + 1), (line.index("+"), line.index("# n") + 3))
    come = str(diffs.diff(BEFORE, AFTER, [Row("come", line=7, words=words)]).html)
    assert plain(come) == line
    assert "".join(plain(mark) for mark in re.findall(r"<mark>(.*?)</mark>", come)) == "a+ 1  # n"


def test_a_string_over_several_lines_keeps_its_colour_on_each():
    lines = diffs.highlighted(BEFORE)
    assert lines[1] == [("s", '"""two')] and lines[2] == [("s", 'lines"""')]


def test_nothing_in_a_source_or_a_remark_becomes_markup(hostile):
    source = f"# {hostile}\nb = '{hostile}'\n"
    rows = [Row("come", line=1), Row("come", line=2, words=((3, 40),)), Row("section", hostile), Row("note", hostile)]
    shown = diffs.diff("", source, rows)
    assert "<script" not in shown.html and "<img" not in shown.html
    assert plain(shown.html).count("{{7*7}}") == 4


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=120))
def test_highlighting_keeps_every_line_of_any_text(text):
    assert ["".join(part for _, part in line) for line in diffs.highlighted(text)] == text.split("\n")


def test_a_diff_without_end_is_cut_between_lines_and_says_so():
    rows = [Row("come", line=number) for number in range(1, 51)]
    source = "".join(f"a{i} = {i}\n" for i in range(50))
    shown = diffs.diff("", source, rows, most_bytes=1000)
    assert shown.cut and not diffs.diff("", source, rows).cut
    assert 900 < len(shown.html) <= 1000
    assert shown.html.endswith("</ins>")


def test_equal_sources_have_nothing_to_show():
    assert diffs.diff(BEFORE, BEFORE, ()) == diffs.Diff(html=diffs.Markup(""), cut=False)
