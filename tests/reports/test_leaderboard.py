"""The leaderboard in its three forms, and the pages that carry it."""

import csv
import io
import json

import pytest

from harness.history.report import PAGES, REPOSITORY, renewed_pages, write_pages
from reports import leaderboard


def test_the_three_forms_agree_on_record_40(table):
    shown = table[table.number == "40"]
    row = json.loads(leaderboard.to_json(shown))[0]
    flat = next(csv.DictReader(io.StringIO(leaderboard.to_csv(shown))))
    assert row["listed_minutes"] == float(flat["listed_minutes"]) == 2.358
    assert row["logged_minutes"] == float(flat["logged_minutes"]) == pytest.approx(140.697 / 60, abs=1e-4)
    assert row["mean_loss"] == float(flat["mean_loss"]) == pytest.approx(3.27802)
    assert row["p"] == pytest.approx(0.0070, abs=5e-5)
    assert (row["steps"], row["tokens_per_step"], row["tokens"]) == (2330, 262144, 610795520)
    assert "2.345 ± 0.001 (5) | 3.2780 ± 0.0011 (5) | 0.0070 | 2,330 | 60.38" in leaderboard.to_markdown(shown)
    assert "2.345" in flat["disagrees"]


def test_unknown_is_empty_and_null_not_nan(table):
    row = json.loads(leaderboard.to_json(table[table.number == "66"]))[0]
    assert row["steps"] is None and row["p"] is None and row["mean_loss"] is None
    everything = leaderboard.to_markdown(table) + leaderboard.to_csv(table) + leaderboard.to_json(table)
    assert "nan" not in everything.lower().replace("nano", "").replace("nanbound", "")


def test_every_markdown_line_has_the_same_cells(table, hostile):
    bad = table.assign(title="a | b\n<img src=x onerror=alert(1)> `code` [x](javascript:1)", credit=hostile)
    for compact in (True, False):
        lines = leaderboard.to_markdown(bad, compact).splitlines()
        cells = {line.replace("\\|", "").count("|") for line in lines}
        assert len(lines) == len(table) + 2 and len(cells) == 1
        assert not any("<" in line for line in lines)


def test_only_web_addresses_and_own_paths_become_links():
    assert leaderboard.link_to("x", "https://github.com/a/b/pull/1") == "[x](https://github.com/a/b/pull/1)"
    assert leaderboard.link_to("x", "records/a/train.py") == "[x](records/a/train.py)"
    for target in ("javascript:alert(1)", "https://a b", 'https://a")<b>', ""):
        assert leaderboard.link_to("x", target) == "x"


def test_splice_replaces_just_what_is_between_the_markers():
    page = f"before\n{leaderboard.START}\nold\n{leaderboard.END}\nafter\n"
    fresh = leaderboard.splice(page, "new\n")
    assert fresh == f"before\n{leaderboard.START}\nnew\n{leaderboard.END}\nafter\n"
    assert leaderboard.splice(fresh, "new\n") == fresh


@pytest.mark.parametrize(
    "page", ["none", leaderboard.START, leaderboard.END + leaderboard.START, 2 * (leaderboard.START + leaderboard.END)]
)
def test_a_page_without_its_pair_of_markers_is_refused(page):
    with pytest.raises(leaderboard.NoMarkers):
        leaderboard.splice(page, "new")


def test_the_generated_tables_are_fresh():
    fresh = renewed_pages()
    assert REPOSITORY / "records" / "README.md" in fresh
    for path, text in fresh.items():
        assert path.read_text() == text, f"{path.name} is stale: run `harness leaderboard --write`"


def test_write_renews_a_stale_page_once(tmp_path):
    (tmp_path / "records").mkdir()
    for name in ("leaderboard.csv", "runs.csv", "curves.csv"):
        (tmp_path / "records" / name).write_bytes((REPOSITORY / "records" / name).read_bytes())
    for name in PAGES:
        (tmp_path / name).write_text(f"x\n{leaderboard.START}\nstale\n{leaderboard.END}\ny\n")
    assert "README.md" in write_pages(tmp_path)
    assert "| 89 | 2026-07-17 |" in (tmp_path / "records" / "README.md").read_text()
    assert write_pages(tmp_path) == "every table was up to date"
