"""The public tables: whole, consistent, joined with the archive, arms kept apart."""

import shutil

import pytest

from harness.archive.find import ROOT
from harness.archive.published import arms, history, published_curves, read_table
from harness.errors import UserError

TABLES = ("leaderboard.csv", "runs.csv", "curves.csv")


@pytest.fixture
def root(tmp_path):
    """An archive of the three tables and no record."""
    for name in TABLES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def add_record(root, number, date, slug, **listed):
    folder = root / f"{date}-{slug}"
    folder.mkdir()
    figures = "\n".join(f"{name} = {value!r}" for name, value in listed.items())
    (folder / "train.py").write_text('"""It is fast."""\n')
    (folder / "record.toml").write_text(
        f'number = "{number}"\ndate = {date}\ntitle = "Ours"\ntechniques = ["a", "b"]\nparent = "39"\n'
        'credit = ["@me"]\n'
        f'source = "https://example.org/x"\n[listed]\n{figures}\n[rules]\nedition = "2025-02-01"\nkind = "systems"\n'
        '[needs]\nshards = 8\ngpu_memory_gib = 45\ncompute_capability = "9.0"\n'
        '[reference]\ncurve = [[0, 10.8], [10, 4.0]]\n[smoke]\nmargin = 0.1\n[frozen]\nsha256 = ""\n'
    )
    return folder


def test_all_91_rows_and_a_source_for_each(root):
    table = history(root)
    assert len(table) == 91 and table.number.is_unique
    assert table.source.str.startswith("https://github.com/KellerJordan/modded-nanogpt").all()
    assert table.set_index("number").source["40"].endswith("/pull/140")
    assert not table.archived.any()
    assert table.set_index("number").parent["22"] == "21c" and table.parent.iloc[0] == ""


def test_a_retiming_credits_nobody(root):
    assert history(root).set_index("number").credit["21b"] == ""


def test_a_record_of_the_archive_speaks_for_itself_and_keeps_what_it_does_not_say(root):
    add_record(root, "40", "2025-10-04", "ours", minutes=2.5, steps=2000)
    row = history(root).set_index("number").loc["40"]
    assert (row.title, row.minutes, row.steps, row.credit) == ("Ours", 2.5, 2000, "@me")
    assert (row.tokens_per_step, row.torch, row.landmark) == (262144, "2.10.0.dev20250926+cu126", "Backout")
    assert row.archived and row.slug == "2025-10-04-ours" and row.kind == "systems" and row.techniques == "a, b"


def test_a_record_beyond_the_public_list_is_added_in_its_place(root):
    add_record(root, "90", "2026-08-02", "new", minutes=1.2)
    table = history(root)
    assert len(table) == 92 and table.number.iloc[-1] == "90"
    assert not table.retiming.iloc[-1]
    assert published_curves(root).query("number == '90'").val_loss.tolist() == [10.8, 4.0]


def test_arms_hold_one_code_and_one_number_of_steps(root):
    chosen = arms(root)
    per_record = chosen.groupby("number")[["code", "steps", "gpus"]].nunique()
    assert (per_record == 1).all(axis=None)
    sizes = chosen.groupby("number").size()
    assert (sizes["40"], sizes["26"], sizes["72"], sizes["09"]) == (5, 1, 15, 1)
    others = chosen.groupby("number").others.first()
    assert (others["40"], others["26"], others["72"], others["85"]) == (0, 20, 0, 42)
    assert len(chosen) + others.sum() == len(read_table("runs.csv", root))


def test_where_no_arms_were_mixed_the_tables_agree_with_themselves(root):
    told, chosen = read_table("leaderboard.csv", root).set_index("number"), arms(root)
    means = chosen.groupby("number").agg(
        n=("log", "size"), loss=("final_val_loss", "mean"), ms=("final_train_time_ms", "mean")
    )
    same = means[means.n == told.runs.reindex(means.index)]
    assert len(same) > 65
    assert same.loss.to_numpy() == pytest.approx(told.mean_val_loss[same.index].to_numpy(), abs=6e-5)
    assert same.ms.to_numpy() / 1000 == pytest.approx(told.mean_train_time_s[same.index].to_numpy(), abs=6e-4)


def test_curves_end_where_the_linked_log_ends(root):
    told = read_table("leaderboard.csv", root).set_index("number")
    last = published_curves(root).groupby("number").last()
    known = told.log_val_loss.dropna()
    assert (last.val_loss[known.index] == known).all()
    assert (last.step[known.index] == told.steps[known.index]).all()


def test_a_missing_or_broken_table_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"leaderboard\.csv is missing"):
        history(tmp_path)
    (tmp_path / "leaderboard.csv").write_text('a,b\n1,2,3\n"')
    with pytest.raises(UserError, match="is not a table"):
        history(tmp_path)
