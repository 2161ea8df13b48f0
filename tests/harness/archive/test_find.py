"""What a person types leads to the right record, and a broken record.toml is named key by key."""

import re

import pytest

from harness.archive import find as archive_module
from harness.errors import UserError


def freeze(folder, digest="f" * 64):
    """Write a hash into the facts of a record."""
    path = folder / "record.toml"
    path.write_text(path.read_text().replace('sha256 = ""', f'sha256 = "{digest}"'))


@pytest.fixture
def archive(archive):
    """The small archive, every record of it frozen."""
    for folder in archive.iterdir():
        freeze(folder)
    return archive


def test_discover_sorts_by_date_then_number(archive):
    numbers = [record.number for record in archive_module.discover(archive)]
    assert numbers == ["01", "21", "21c", "22", "39", "40"]


@pytest.mark.parametrize(
    "name, number",
    [
        ("40", "40"),
        ("1", "01"),
        ("01", "01"),
        ("21C", "21c"),
        ("2025-10-04-backout", "40"),
        ("backout", "40"),
        ("2025-10-15", "40"),
        ("2025-10-03", "39"),
        ("2025-09-30", "39"),
        ("2025-05-24", "22"),
    ],
)
def test_names_resolve(archive, name, number):
    assert archive_module.resolve(name, archive).number == number


def test_an_empty_name_is_no_folder(archive):
    with pytest.raises(UserError, match=r"^which record\?"):
        archive_module.resolve(" ", archive)


def test_paths_resolve(archive):
    folder = archive / "2025-10-04-backout"
    assert archive_module.resolve(str(folder), archive).number == "40"
    assert archive_module.resolve(str(folder / "train.py"), archive).number == "40"


def test_a_lone_script_is_a_record_without_facts(tmp_path):
    (tmp_path / "mine.py").write_text("print(1)")
    record = archive_module.resolve(str(tmp_path / "mine.py"))
    assert (record.number, record.slug, record.script) == ("", "mine", tmp_path / "mine.py")


def test_a_date_is_explained(archive):
    assert archive_module.find("2025-10-15", archive).note == "2025-10-15 is record 40, set on 2025-10-04"
    assert archive_module.find("2025-10-04", archive).note == "2025-10-04 is record 40, set that day"
    assert archive_module.find("40", archive).note == ""


@pytest.mark.parametrize(
    "number, old, new",
    [
        ("41", 'sha256 = "' + "f" * 64, 'sha256 = "'),
        ("0", "", ""),
        ("41", "minutes = 2.358\n", ""),
    ],
    ids=["not frozen", "not numbered", "not listed"],
)
def test_a_draft_never_stood(archive, add, number, old, new):
    folder = add(number, "2025-10-09", "my-idea")
    freeze(folder)
    assert archive_module.resolve("2025-10-15", archive).number == ("41" if number == "41" else "40")
    path = folder / "record.toml"
    path.write_text(path.read_text().replace(old, new))
    assert archive_module.find("2025-10-15", archive).note == "2025-10-15 is record 40, set on 2025-10-04"
    assert archive_module.resolve("my-idea", archive).folder == folder


def test_where_all_are_drafts_it_is_said(tmp_path, add):
    add("41", "2025-10-09", "my-idea")
    with pytest.raises(UserError, match=r"no record stood on 2025-10-15; 1 of that time or before are drafts"):
        archive_module.resolve("2025-10-15", tmp_path / "records")


@pytest.mark.parametrize(
    "name, words",
    [
        ("bakout", "near it: 40 (2025-10-04-backout)"),
        ("batch", "21 (2025-01-26-reduced-batch-size)"),
        ("xyzzy", "01 (2024-05-28-llmc-baseline) to 40 (2025-10-04-backout)"),
        ("2023-01-01", "no record stood on 2023-01-01; the first is record 01 of 2024-05-28"),
        ("2025-02-30", "no day of the calendar"),
        ("nowhere/train.py", "no such script or record folder"),
    ],
)
def test_an_unknown_name_suggests(archive, name, words):
    with pytest.raises(UserError, match=re.escape(words)):
        archive_module.resolve(name, archive)


def edit(archive, old, new):
    """Replace one line of record 40's facts and load it."""
    path = archive / "2025-10-04-backout" / "record.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return archive_module.load(path.parent)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('parent = ""', "", "missing key parent"),
        ("shards = 8", "shard = 8", "missing key needs.shards; unknown key needs.shard"),
        ("minutes = 2.358", 'minutes = "two"', "listed.minutes must be a number, not 'two'"),
        ("date = 2025-10-04", 'date = "2025-10-04"', "date must be a date"),
        ('kind = "ml"', 'kind = "magic"', 'rules.kind must be "ml" or "systems"'),
        ("[[0, 10.8], [10, 4]]", "[[0.5, 10.8]]", "reference.curve must be a list of [step, loss]"),
        (
            "[frozen]",
            '[frozen]\nearlier = [["abc", "x"]]',
            "frozen.earlier must be a list of [SHA-256, what has changed since]",
        ),
        ("[listed]", "listed = 3\n[listedx]", "listed must be a table"),
        ("steps = 10\n", "steps = 10\nstages_ms = [33, true]\n", "listed.stages_ms must be a list of milliseconds"),
        ('credit = ["@someone"]', "credit = [1]", "credit must be a list of strings"),
        ("[frozen]", "[frozen", "line "),
        ("minutes = 2.358", "minutes = nan", "listed.minutes is no figure: nan"),
        ("minutes = 2.358", "minutes = -3", "listed.minutes is no figure: -3"),
        ('title = "backout"', 'title = "\\u001b[31mred"', "title holds control characters"),
        ('credit = ["@someone"]', 'credit = ["\\u202e"]', "credit holds control characters"),
    ],
)
def test_a_broken_record_is_named_in_one_line(archive, old, new, words):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        edit(archive, old, new)
    assert "record.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["40", "2025-10-15", "2025-10-04-backout", "backout"])
def test_a_record_whose_facts_cannot_be_read_at_all_is_named(archive, name):
    """Not only where a line still says its number: the leaderboard knows its day."""
    header = "number,date,title,listed_minutes,steps,tokens_per_step,log_step_avg_ms,log_val_loss,runs,mean_val_loss,"
    row = "40,2025-10-04,Backout,2.358,2330,,,,,,,,,@li,140"
    (archive / "leaderboard.csv").write_text(f"{header}torch,gpus,gpu,credit,pull_request\n{row}\n")
    (archive / "2025-10-04-backout" / "record.toml").write_text("garbage [")
    with pytest.raises(UserError, match=r"2025-10-04-backout/record\.toml: "):
        archive_module.lookup(name, archive)


def test_facts_are_read(archive):
    record = archive_module.load(archive / "2025-10-04-backout")
    assert record.listed.minutes == 2.358
    assert record.listed.val_loss is None
    assert record.smoke == {"num_iterations": 4}
    assert (record.smoke_margin, record.smoke_gpus) == (0.1, 2)
    assert record.curve == ((0, 10.8), (10, 4.0))
    assert record.techniques == ("backout",)
