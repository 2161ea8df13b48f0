"""Alignment and moves: exact whatever the texts are, and cut where a reader would cut."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.archive.outline import chunks, lines_of
from harness.diff.align import align, pairs
from harness.diff.diff import compare, find_moves

TEXTS = st.lists(st.sampled_from(["def f():", "    a = 1", "    b = 2", "", ")", "x", "class C:", "# c"]), max_size=25)

MEETING = (  # the first of two insertions slides to where the second begins
    ["def f():", "    a = 1", "def f():", "class C:"],
    ["def f():", "def f():", "    a = 1", "def f():", "def f():", "x", "class C:"],
)


def test_chunks_are_definitions_with_what_stands_right_above_them():
    lines = lines_of("import a\n\n# on f\n@deco\ndef f(\n    x,\n):\n    pass\n\nX = 1\n\nclass C:\n    pass")
    found = [(chunk.key, lines[chunk.start]) for chunk in chunks(lines)]
    assert found == [
        ("after begin", "import a"),
        ("def f", "# on f"),
        ("after def f", "X = 1"),
        ("class C", "class C:"),
    ]


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_alignment_pairs_equal_lines_in_order(old, new):
    partners = align(old, new)
    matched = [(i, j) for j, i in enumerate(partners) if i is not None]
    assert all(old[i] == new[j] for i, j in matched)
    assert matched == sorted(matched) and len({i for i, _ in matched}) == len(matched)
    assert [i for i, _ in matched] == sorted(i for i, _ in matched)


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
@example(MEETING[0], MEETING[1])
def test_a_diff_contains_both_scripts_exactly(old, new):
    parts = compare("\n".join(old), "\n".join(new))
    lines = [line for part in parts for line in part.lines]
    assert [line.text for line in lines if line.kind != "come"] == lines_of("\n".join(old))
    assert [line.text for line in lines if line.kind != "gone"] == lines_of("\n".join(new))
    for line in lines:
        assert (line.old is None) == (line.kind == "come") and (line.new is None) == (line.kind == "gone")


def test_equal_texts_align_whole():
    lines = ["a", "", "b", "", "a"]
    assert align(lines, lines) == [0, 1, 2, 3, 4] and pairs("abc", "abc") == [(0, 0), (1, 1), (2, 2)]


def test_an_inserted_function_is_shown_from_its_first_line():
    old = lines_of("def a():\n    return 1\n\n\ndef c():\n    return 1")
    new = lines_of("def a():\n    return 1\n\n\ndef b():\n    return 1\n\n\ndef c():\n    return 1")
    inserted = [new[j] for j, i in enumerate(align(old, new)) if i is None]
    assert inserted == ["def b():", "    return 1", "", ""]


def test_functions_of_different_names_are_not_mixed():
    old = "def adam(p, g):\n    m = ema(g)\n    p.sub_(m)\n    return None"
    new = "def sort(values):\n    for v in values:\n        yield v\n    return None"
    assert all(line.kind != "same" for part in compare(old, new) for line in part.lines)


def test_short_or_reindented_blocks_are_no_moves():
    assert find_moves({1: "return x"}, {9: "return x"}) == []
    block = ["for a_long_name in several_long_names:", "    a_long_name.do_it()", "    another_long_name.do_it_too()"]
    straight = dict(enumerate(block, 1)), dict(enumerate(block, 50))
    assert find_moves(*straight) == [(1, 50, 3)]
    crooked = {51: block[1].strip(), 50: block[0], 52: block[2]}
    assert find_moves(straight[0], crooked) == []


def test_no_line_moves_twice():
    block = {k: f"a_rather_long_line_of_code = number_{k} + something_else" for k in range(5)}
    come = {10 + k: text for k, text in block.items()} | {20 + k: text for k, text in block.items()}
    assert find_moves(block, come) == [(0, 10, 5)]


def test_an_inserted_method_takes_its_decorator_with_it():
    method = lines_of("    @property\n    def c(self):\n        return 1")
    old = ["class C:", *method]
    new = ["class C:", "    @property", "    def b(self):", "        return 2", "", *method]
    inserted = ["    @property", "    def b(self):", "        return 2", ""]
    assert [new[j] for j, i in enumerate(align(old, new)) if i is None] == inserted
    kept = {i for i in align(new, old) if i is not None}
    assert [line for i, line in enumerate(new) if i not in kept] == inserted


def test_a_bracket_amid_rewritten_code_is_not_called_unchanged():
    old = lines_of("def f():\n    alpha(\n    )\n    beta()")
    new = lines_of("def f():\n    gamma(\n    )\n    delta()")
    assert align(old, new) == [0, None, None, None]


def test_a_blank_line_beside_two_versions_of_a_line_keeps_the_paragraphs_apart():
    old = lines_of("def f():\n    a = 1\n    rate = 0.10\n\n    one_thing(2)\n    b = 2")
    new = lines_of("def f():\n    a = 1\n    rate = 0.25\n\n    quite_another()\n    b = 2")
    assert align(old, new) == [0, 1, None, 3, None, 5]
    new[2] = "    nothing_of_the_kind()"
    assert align(old, new) == [0, 1, None, None, None, 5]
