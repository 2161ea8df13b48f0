"""Dates choose the rules, so they have to be possible."""

import pytest

from harness.referee.verify import verify


def test_backdated_log_is_caught_and_judged_by_the_rules_of_its_software(forge, status, evidence):
    verdict = verify([forge.submission(torch="2.10.0.dev20250926+cu126", date="Fri Oct 11 06:00:33 2024")])
    assert (verdict.verdict, status(verdict, "date")) == ("fails", "fail")
    assert verdict.judged.edition == "2025-02-01"
    assert "2024-10-11 lies before its software was there: PyTorch 2.10.0.dev20250926" in evidence(verdict, "date")


@pytest.mark.parametrize(
    ("torch", "date", "expected"),
    [
        ("2.9.0+cu128", "Wed Oct  1 06:00:33 2025", "pass"),  # a release candidate
        ("2.9.0+cu128", "Wed Jan  1 06:00:33 2025", "fail"),
        ("2.7.0a0+79aa17489c.nv25.04", "Fri May 30 06:00:33 2025", "pass"),
        ("2.7.0a0+79aa17489c.nv25.04", "Mon Dec 30 06:00:33 2024", "fail"),
        ("2.10.0.dev20251345", "Sat Oct  4 06:00:33 2025", "pass"),  # no date at all
        ("2.99.0", "Sat Oct  4 06:00:33 2025", "fail"),  # younger than the youngest that is known
    ],
)
def test_software_has_a_date(forge, status, torch, date, expected):
    assert status(verify([forge.log(torch=torch, date=date)]), "date") == expected


def test_python_tells_when_it_was_built(forge, status, evidence):
    log = forge.log(date="Sat Oct  4 06:00:33 2025")
    log.write_text(log.read_text().replace("Python 3.12.7", "Python 3.12.7 (main, Jan 22 2026, 20:57:42) [GCC 13.3.0]"))
    verdict = verify([log])
    assert status(verdict, "date") == "fail" and "Python built on 2026-01-22" in evidence(verdict, "date")


def test_no_run_is_of_the_future(forge, evidence):
    assert "2999-01-01 lies in the future" in evidence(verify([forge.log(date="Tue Jan  1 06:00:33 2999")]), "date")


def test_a_log_without_a_date_is_judged_by_todays_rules(forge, status):
    verdict = verify([forge.log(date="")])
    assert status(verdict, "date") == "unknown" and verdict.today is None
