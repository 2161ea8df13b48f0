"""A finished run becomes part of its record: copied whole, told, counted; anything else is refused in one line."""

import dataclasses
import hashlib
import itertools
import json
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner

from harness.archive.evidence import comparable, paragraph, read_evidence, stage_medians
from harness.archive.find import ROOT, resolve
from harness.archive.keep import keep
from harness.archive.published import read_table
from harness.archive.record import load
from harness.cli import main
from harness.errors import UserError
from timing.log import read_log


@pytest.fixture
def kept():
    """A run folder of record 13 that the archive holds: of the published script's steps on this corpus, alone."""
    return resolve("13").logs / "20261126-013432-024125"


@pytest.fixture
def root(tmp_path, kept):
    """An archive of record 13 alone, before any run of it was kept."""
    record = resolve("13")
    place = tmp_path / "records"
    shutil.copytree(record.folder, place / record.folder.name, ignore=shutil.ignore_patterns("logs"))
    shutil.copy(ROOT / "standin.csv", place)
    rows = [line for line in (ROOT / "shown.csv").read_text().splitlines() if kept.name not in line]
    (place / "shown.csv").write_text("\n".join(rows) + "\n")
    return place


def changed(folder, place, **facts):
    """The run folder again, with other facts."""
    shutil.copytree(folder, place)
    known = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(known | facts))
    return place


def test_a_run_is_kept_whole_told_and_counted(kept, root):
    folder = root / resolve("13").folder.name
    assert keep(kept, root=root).endswith(": record 13, 60 steps on 1x H200, torch 2.11.0+cu130")
    for path in kept.iterdir():
        assert (folder / "logs" / kept.name / path.name).read_bytes() == path.read_bytes()
    assert load(folder).shown.run == kept.name
    rows = read_table("shown.csv", root).set_index("run")
    assert len(rows) == len(read_table("shown.csv"))
    assert (rows.difference[kept.name], rows.compared[kept.name]) == (0.0048, 5)
    told = (folder / "logs" / "README.md").read_text()
    assert told.startswith("# Our runs of record 13\n\n**`2026") and "| 36 | 4.7652 | 4.7604 |" in told
    assert "(at most 1,287: 160.89 ms x 8)" in " ".join(told.split())
    with pytest.raises(UserError, match="is kept already"):
        keep(kept, root=root)


@pytest.mark.parametrize(
    "facts",
    [
        *({"run_id": name} for name in ("../../../../evil", "/tmp/evil", "20261126-013432-024125\n", "a`b", 5)),
        *({"machine": []}, {"machine": {"gpu": "\x1b[31m"}}, {"gpus": "many"}, {"gpus": True}, {"witness": 5}),
        *({"script_sha256": []}, {"slug": None}, {"overrides": {"a`b": 1}}, {"versions": {}}, {"manifest": "books"}),
    ],
    ids=str,
)
def test_a_run_json_of_a_strangers_is_refused_whole(kept, root, tmp_path, facts):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"is not as a run leaves it: {next(iter(facts))}") as caught:
        keep(changed(kept, tmp_path / "stranger" / "run", **facts), root=root)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"records", "stranger"}


def test_what_a_run_would_have_cleared_away_is_not_kept(kept, root, tmp_path):
    early = changed(kept, tmp_path / "early")
    (early / "ranks" / "0").mkdir(parents=True)
    (early / ".reserve").write_bytes(bytes(1 << 18))
    keep(early, root=root)
    taken = root / resolve("13").folder.name / "logs" / kept.name
    assert {path.name for path in taken.iterdir()} == {path.name for path in kept.iterdir()}


def test_a_script_whose_words_alone_have_changed_is_the_one_that_ran(kept, root):
    folder = root / resolve("13").folder.name
    script, facts = folder / "train.py", folder / "record.toml"
    text = script.read_text() + "\n# Another word.\n"
    script.write_text(text)
    before, now = resolve("13").sha256, hashlib.sha256(text.encode()).hexdigest()
    facts.write_text(
        facts.read_text().replace(f'sha256 = "{before}"', f'sha256 = "{now}"\nearlier = [["{before}", "x"]]')
    )
    keep(kept, root=root)
    assert "of the script as frozen but for its words" in (folder / "logs" / "README.md").read_text()
    assert load(folder).shown.run == kept.name


def test_times_from_a_shared_card_are_not_told(kept, root):
    keep(kept, shared=True, root=root)
    assert "its times say nothing" in (root / resolve("13").folder.name / "logs" / "README.md").read_text()
    assert pd.isna(read_table("shown.csv", root).set_index("run").median_ms[kept.name])


def test_a_run_whose_data_had_no_manifest_is_vouched_for(kept, root, tmp_path):
    lost = changed(kept, tmp_path / kept.name, manifest=None)
    assert read_evidence(lost, json.loads((lost / "run.json").read_text())).difference is None
    keep(lost, corpus="books", root=root)
    told = " ".join((root / resolve("13").folder.name / "logs" / "README.md").read_text().split())
    assert "corpus books, whose manifest was not there; seed 1." in told and "| 36 | 4.7652 | 4.7604 |" in told
    with pytest.raises(UserError, match="trained on books, by the manifest of its data, not on fineweb10B"):
        read_evidence(kept, json.loads((kept / "run.json").read_text()), corpus="fineweb10B")


def test_what_a_full_disk_broke_off_is_taken_up_again(kept, root, monkeypatch):
    def full(folder, place):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("harness.archive.keep._copy", full)
        keep(kept, root=root)
    keep(kept, root=root)
    told = (root / resolve("13").folder.name / "logs" / "README.md").read_text()
    assert told.count(kept.name) == 1 and list(read_table("shown.csv", root).run).count(kept.name) == 1


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"outcome": "crashed"}, "did not finish"),
        ({"fidelity": "smoke"}, "not at real size"),
        ({"script_sha256": "0" * 64}, "was never frozen as"),
        ({"slug": "../elsewhere"}, "no record of the archive"),
    ],
)
def test_what_shows_nothing_is_not_kept(kept, root, tmp_path, facts, said):
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=said):
        keep(changed(kept, tmp_path / "run", **facts), root=root)
    assert sorted(root.rglob("*")) == before


def test_the_pace_passes_over_a_clock_set_back_and_two_kinds_of_steps(tmp_path):
    times = [1000, 2000, 100, 400, 500, 800, 900, 1200]
    lines = [f"step:{step}/8 train_time:{time}ms step_avg:1.00ms" for step, time in enumerate(times, 1)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    assert read_log(tmp_path / "log.txt").median_step_ms == 200


def test_a_batch_that_grows_has_a_pace_for_each_stage(tmp_path):
    steps = [9000] + [200] * 5 + [900] + [400] * 5 + [2000] + [600] * 5 + [5000] * 2  # the last two: its extension
    times = itertools.accumulate(steps)
    lines = [f"step:{step}/20 train_time:{time}ms step_avg:1.00ms" for step, time in enumerate(times, 1)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    run, facts = read_log(tmp_path / "log.txt"), {"overrides": {"extension_iterations": "2"}}
    assert stage_medians(run, facts, 3) == [200, 400, 600]
    assert stage_medians(run, facts, 1) == [run.median_step_ms]
    assert stage_medians(run, facts, 9) == [], "two steps a stage are too few"


def test_the_stages_are_told_beside_the_published():
    record = resolve("61")
    folder = record.logs / "20261126-101730-569941"
    evidence = read_evidence(folder, json.loads((folder / "run.json").read_text()), stages=3)
    said = "Median steps of its stages: 255, 486, 802 ms (at most 258, 469, 676: 32.2, 58.6, 84.5 ms x 8)."
    assert said in " ".join(paragraph(evidence, record).split())
    assert evidence.pace_ms == pytest.approx(sum(evidence.stages_ms) / 3)
    untimed = dataclasses.replace(evidence, stages_ms=[])
    assert "Its steps are too few for a pace." in " ".join(paragraph(untimed, record).split())


def test_losses_are_compared_only_under_one_schedule(kept):
    reference = read_table("standin.csv")
    facts = json.loads((kept / "run.json").read_text())
    given = facts["overrides"]
    assert len(comparable(reference, facts, "books")) == 6
    assert len(comparable(reference, facts | {"overrides": given | {"num_iterations": 60}}, "books")) == 6
    for other in ({"num_iterations": "36"}, {"val_tokens": "1048576"}):
        assert comparable(reference, facts | {"overrides": given | other}, "books").empty
    assert comparable(reference, facts, "fineweb10B").empty and comparable(reference, facts, "").empty
    begun = facts | {"record": "24", "overrides": {"num_iterations": "60", "val_tokens": "1048576"}}
    assert comparable(reference, begun, "books").empty
    begun["overrides"]["cooldown_fraction"] = "0.4"
    assert comparable(reference, begun, "books").empty
    begun["overrides"]["cooldown_fraction"] = "0.001"
    assert len(comparable(reference, begun, "books")) == 5
    assert read_evidence(kept, facts, shared=False).difference == (pytest.approx(0.0048), 5)


def test_the_command(kept, tmp_path):
    said = CliRunner().invoke(main, ["keep", str(changed(kept, tmp_path / "run", outcome="stalled"))])
    assert said.exit_code == 2 and "only whole runs are kept" in said.output
    (tmp_path / "run" / "run.json").unlink()
    said = CliRunner().invoke(main, ["keep", str(tmp_path / "run")])
    assert said.exit_code == 2 and said.output.endswith("run is no run folder: it has no run.json\n")
