"""The diff of two records: exact, in the right words, with moves seen as moves, and safe to show."""

import textwrap

import pytest

from harness.archive.outline import OPENING, claim, lines_of, scopes, sections
from harness.diff.diff import compare
from harness.diff.hunks import Arrival, Fold, Heading, rows, side_by_side
from harness.diff.report import stat
from harness.diff.view import Options, View

RULE = "# " + "-" * 98


def banner(title):
    return f"{RULE}\n# {title}\n{RULE}\n\n"


SCRIPT = (
    '"""Record 1 · a start\n\nClaim      45 minutes.\n           On 8 GPUs.\nNew        The first one\n'
    '           of all.\nParent     none\n"""\n\nimport torch\n\n'
    + banner("Settings")
    + "class Settings:\n    steps: int = 10  # of the record\n    dim: int = 64\n    rate: float = 0.1\n\n\n"
    + banner("Model")
    + textwrap.dedent("""\
        def norm(x):
            scale = x.square().mean(-1, keepdim=True)
            scale = scale.add(1e-6).rsqrt()
            return (x * scale).to(x.dtype)


        class Block:
            def __init__(self):
                self.first = make_a_layer(1)

            # why it is so
            @property
            def width(self):
                return self.first.width
        """)
)


def changes(parts, kind, moved=False):
    return [line.text for part in parts for line in part.lines if line.kind == kind and line.moved == moved]


# --- outline


def test_sections_scopes_and_claim():
    assert [part.title for part in sections(SCRIPT)] == [OPENING, "Settings", "Model"]
    assert sections(SCRIPT)[-1].last == len(lines_of(SCRIPT))
    where = dict(zip(lines_of(SCRIPT), scopes(SCRIPT)))
    assert where["    dim: int = 64"] == "class Settings"
    assert where["    @property"] == where["    # why it is so"] == "class Block › def width"
    assert where["    return (x * scale).to(x.dtype)"] == "def norm"
    assert claim(SCRIPT) == {"Claim": "45 minutes. On 8 GPUs.", "New": "The first one of all.", "Parent": "none"}
    table = SCRIPT.replace("of all.\n", "of all:\n           one  3.3\n           two  3.2\n           An end.\n")
    assert claim(table)["New"] == "The first one of all:\none  3.3\ntwo  3.2\nAn end."


def test_outline_of_what_is_no_python():
    assert claim("(") == {} and scopes("(") == [""] and [part.title for part in sections("(")] == [OPENING]


def test_a_renamed_function_keeps_its_lines():
    renamed = SCRIPT.replace("def norm", "def rms_norm")
    assert changes(compare(SCRIPT, renamed), "come") == ["def rms_norm(x):"]


NORM = SCRIPT[SCRIPT.index("def norm") : SCRIPT.index("class Block")]


def test_a_function_moved_to_another_section_is_a_move():
    moved = SCRIPT.replace(NORM, "").replace("class Settings", NORM + "class Settings")
    parts = compare(SCRIPT, moved)
    assert changes(parts, "come") == changes(parts, "gone") == []
    assert changes(parts, "come", moved=True) == changes(parts, "gone", moved=True) == lines_of(NORM)


def test_a_move_into_a_class_with_more_indentation():
    moved = SCRIPT.replace(NORM, "") + textwrap.indent(NORM.rstrip(), "    ") + "\n"
    assert len(changes(compare(SCRIPT, moved), "come", moved=True)) == 4


def test_changed_words_of_a_changed_line_are_marked():
    parts = compare(SCRIPT, SCRIPT.replace("steps: int = 10 ", "steps: int = 2330 "))
    gone, come = (line for part in parts for line in part.lines if line.kind != "same")
    assert gone.peer == come.new and come.peer == gone.old
    assert [gone.text[a:b] for a, b in gone.words] == ["10"] and [come.text[a:b] for a, b in come.words] == ["2330"]


# --- folding and drawing


def test_rows_fold_what_is_not_near_a_change_and_name_the_definition():
    parts = compare(SCRIPT, SCRIPT.replace("self.first.width", "self.first.height"))
    drawn = rows(parts[-1], context=1)
    assert isinstance(drawn[0], Fold) and drawn[0].reason == "same" and len(drawn[0].lines) == 12
    assert drawn[1].text == "    def width(self):"
    assert [row.kind for row in drawn[1:]] == ["same", "gone", "come"]
    heads = [row.text for row in rows(parts[-1], context=0) if isinstance(row, Heading)]
    assert heads == ["class Block › def width"]


def test_a_fold_of_two_lines_is_not_worth_its_own():
    old = "\n".join(f"line_{k}" for k in range(30))
    for apart, folds in ((8, 2), (9, 2), (10, 3)):
        new = old.replace("line_9\n", "line_nine\n").replace(f"line_{9 + apart}\n", "changed\n")
        drawn = rows(compare(old, new)[0])
        assert sum(isinstance(row, Fold) for row in drawn) == folds


def test_rows_fold_the_claim_and_the_place_a_block_left():
    moved = (
        SCRIPT.replace(NORM, "").replace("class Settings", NORM + "class Settings").replace("45 minutes", "30 minutes")
    )
    parts = compare(SCRIPT, moved)
    assert {row.reason for row in rows(parts[0]) if isinstance(row, Fold)} == {"claim", "same"}
    [arrival] = [row for row in rows(parts[1]) if isinstance(row, Arrival)]
    assert arrival.count == 6 and lines_of(SCRIPT)[arrival.origin - 1] == "def norm(x):"
    assert "away" in {row.reason for row in rows(parts[2]) if isinstance(row, Fold)}
    assert all(row.reason == "same" for part in parts for row in rows(part, whole=True) if isinstance(row, Fold))


def test_two_moves_side_by_side_are_told_apart():
    first, second, keep, more = (
        [f"{name}_{k} = a_longer_line_of_code({k}) + {name}" for k in range(length)]
        for name, length in (("alpha", 4), ("beta", 5), ("keep", 8), ("more", 8))
    )
    parts = compare("\n".join([*first, *keep, *second, *more]), "\n".join([*keep, *more, *second, *first]))
    arrivals = [(row.origin, row.count) for row in rows(parts[0]) if isinstance(row, Arrival)]
    assert arrivals == [(13, 5), (1, 4)]


def test_a_line_is_no_version_of_one_that_moved_in_from_elsewhere():
    block = [f"first_matrix_{k} = orthogonalise(gradient_{k}, steps={k})" for k in range(4)]
    old = [
        "class A:",
        "    pass",
        "first_matrix_0 = orthogonalise(gradient_0, steps=7)",
        "class B:",
        "    pass",
        *block,
    ]
    new = ["class A:", "    pass", *block, "class B:", "    pass"]
    lines = compare("\n".join(old), "\n".join(new))[0].lines
    [deleted] = [line for line in lines if line.kind == "gone" and not line.moved]
    assert deleted.old == 3 and deleted.peer is None and deleted.words == ()


def test_side_by_side_rows_face_their_versions():
    parts = compare("a = 1\nold_only()\nbb = 22\n", "a = 1\nbb = 23\nnew_one()\n")
    facing = [(left and left.text, right and right.text) for left, right in side_by_side(list(parts[0].lines))]
    assert facing == [("a = 1", "a = 1"), ("old_only()", None), ("bb = 22", "bb = 23"), (None, "new_one()")]


@pytest.mark.parametrize("side", [False, True])
def test_without_colour_nothing_but_text_is_drawn(side):
    new = SCRIPT.replace("dim: int = 64", "dim: int = 768")
    view = View(SCRIPT, new, Options(side_by_side=side, colour=False, width=100))
    for part in compare(SCRIPT, new):
        view.section(part)
    text = view.text()
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 100
    assert "-     dim: int = 64" in text and "+     dim: int = 768" in text
    assert "━━ Settings ━" in text and "── Model · unchanged" in text


def test_colour_marks_changed_lines_only():
    new = SCRIPT.replace("dim: int = 64", "dim: int = 768")
    view = View(SCRIPT, new, Options(width=100))
    view.section(compare(SCRIPT, new)[1])
    grounds = [line for line in view.text().splitlines() if ";48;2;" in line]
    assert len(grounds) == 2 and all("dim" in line for line in grounds)


def test_stat_counts_lines_by_section():
    parts = compare(SCRIPT, SCRIPT.replace("    dim: int = 64\n", ""))
    assert stat(parts) == [
        (OPENING, "11", "11", "0", "0", "0"),
        ("Settings", "10", "9", "0", "1", "0"),
        ("Model", "18", "18", "0", "0", "0"),
        ("all", "39", "38", "0", "1", "0"),
    ]
