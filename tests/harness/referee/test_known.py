"""Published scripts and runs, by the table of the public logs."""

import hashlib

import pytest

from harness.referee import known
from harness.referee.known import Published
from harness.referee.verify import verify
from timing.log import read_log

FINALS = (3.2781, 3.2792, 3.2769, 3.2771, 3.2784)


@pytest.fixture
def published(monkeypatch):
    """published(digits, number, linked=True, runs=()) puts rows into the table; `runs` are logs that stand in it."""

    def put(digits, number, linked=True, runs=(), code=None):
        figures = [(run.steps, run.final_val_loss, run.final_train_time_ms) for run in map(read_log, runs)]
        rows = [Published(number, digits, code or digits, linked, *each) for each in figures or [(600, 3.0, 1.0)]]
        monkeypatch.setattr(known, "table", lambda: tuple(rows))

    return put


def digits(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize("form", [str, str.rstrip], ids=["as printed", "bare"])
def test_the_published_script_of_a_record_however_it_was_hashed(
    forge, draft, script, published, status, evidence, form
):
    published(digits(form(script)), "99")
    verdict = verify([forge.submission()], record=draft("print('a re-implementation')\n"))
    assert status(verdict, "source") == "pass"
    assert status(verdict, "arms") == "pass"


def test_a_script_with_helpers_hashed_without_them(forge, draft, script, published, status, evidence):
    published(digits(script), "99")
    logs = forge.runs(FINALS, helpers={"triton_kernels.py": "import torch\n"})
    verdict = verify(logs, record=draft("print('a re-implementation')\n"))
    assert status(verdict, "source") == "pass"
    assert "the published script of record 99, by eight digits" in evidence(verdict, "source")


def test_published_runs_hold_though_their_loader_is_not_the_archives(forge, draft, script, published, status):
    logs = forge.runs(FINALS)
    published(digits(script), "99", runs=logs)
    verdict = verify(logs, record=draft("print('a re-implementation')\n"))
    assert (status(verdict, "token-stream"), verdict.verdict) == ("unknown", "holds")


def test_eight_digits_alone_excuse_nothing(forge, draft, script, published, status):
    """Whoever wants eight digits can find them: they name a script, and stand for nobody's having read it."""
    published(digits(script), "99")
    verdict = verify(forge.runs(FINALS), record=draft("print('a re-implementation')\n"))
    assert (status(verdict, "source"), verdict.verdict) == ("pass", "inconclusive")


def test_a_script_published_beside_the_record(forge, draft, script, published, status, evidence):
    published(digits(script), "99", linked=False)
    verdict = verify(forge.runs(FINALS), record=draft("print('a re-implementation')\n"))
    assert status(verdict, "source") == "unknown" and "published beside record 99" in evidence(verdict, "source")


def test_without_a_record_a_known_script_is_named(forge, script, published, evidence):
    published(digits(script), "72")
    assert "the published script of record 72, by eight digits" in evidence(verify(forge.runs(FINALS)), "source")


def test_the_linked_arm_of_a_folder_is_judged(forge, draft, script, published, status):
    baseline = script + "baseline = True\n"
    published(digits(script), "99")
    logs = forge.runs([3.2830] * 3, "base", 40, source=baseline) + forge.runs(FINALS[:2])
    verdict = verify(logs, record=draft("print('a re-implementation')\n"))
    assert len(verdict.judged.runs) == 2 and status(verdict, "arms") == "pass"


def test_the_table_knows_what_is_one_code():
    rows = [row for row in known.table() if row.number == "72"]
    assert (len(rows), len({row.source for row in rows}), len({row.code for row in rows})) == (15, 5, 1)
    assert all(row.linked for row in rows)
    assert {row.linked for row in known.table() if row.number == "80"} == {True, False}


def test_a_guessed_arm_fails_nobody(forge, script, evidence):
    baseline = forge.runs([3.2821, 3.2825, 3.2819, 3.2823, 3.2822, 3.2824], "baseline", 40, source=script + "b = 1\n")
    verdict = verify([*baseline, *forge.runs(FINALS)])
    assert verdict.judged.verdict == "fails" and (verdict.verdict, verdict.exit_code) == ("inconclusive", 3)
    assert "to say which is meant, give its logs alone, or name its record by --record" in evidence(verdict, "arms")
    assert "the others: source" in evidence(verdict, "arms") and "n = 5" in evidence(verdict, "arms")


def test_if_every_arm_fails_so_does_the_guess(forge, script):
    logs = forge.runs([3.2921] * 3, "baseline", 40, source=script + "b = 1\n") + forge.runs([3.2931] * 2)
    assert verify(logs).verdict == "fails"
