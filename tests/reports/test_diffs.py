"""What changed, highlighted: every line there, every character escaped."""

import re
from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st

from reports import diffs

BEFORE = 'x = 1\n"""two\nlines"""\n\n\ndef step(a):\n    return a  # old\n'
AFTER = BEFORE.replace("a  # old", "a + 1  # new")


def plain(markup):
    return unescape(re.sub(r"<[^>]+>", "", str(markup)))


def test_only_the_changed_lines_are_marked_and_counted():
    shown = diffs.diff(BEFORE, AFTER)
    assert (shown.added, shown.removed, shown.cut) == (1, 1, False)
    (came,) = re.findall(r"<ins>(.*?)</ins>", str(shown.html))
    (went,) = re.findall(r"<del>(.*?)</del>", str(shown.html))
    assert plain(came) == "    return a + 1  # new"
    assert plain(went) == "    return a  # old"
    assert '<i class="k">return</i>' in came and '<i class="c"># new</i>' in came
    assert "x = 1" not in plain(shown.html), "lines far from a change are left out"


def test_a_string_over_several_lines_keeps_its_colour_on_each():
    lines = diffs.highlighted(BEFORE)
    assert str(lines[1]).startswith('<i class="s">') and str(lines[2]).startswith('<i class="s">')


def test_nothing_in_a_source_becomes_markup(hostile):
    shown = diffs.diff("a = 1\n", f"a = 1\n# {hostile}\nb = '{hostile}'\n")
    assert "<script" not in shown.html and "<img" not in shown.html
    assert "{{7*7}}" in plain(shown.html)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=120))
def test_highlighting_keeps_every_line_of_any_text(text):
    assert [plain(line) for line in diffs.highlighted(text)] == text.splitlines()


def test_a_diff_without_end_is_cut_between_lines_and_says_so():
    shown = diffs.diff("", "".join(f"a{i} = {i}\n" for i in range(50)), most_bytes=1000)
    assert shown.cut and shown.added == 50
    assert 900 < len(shown.html) <= 1000
    assert shown.html.endswith("</ins>")


def test_equal_sources_have_nothing_to_show():
    assert diffs.diff(BEFORE, BEFORE) == diffs.Diff(html=diffs.Markup(""), added=0, removed=0, cut=False)
