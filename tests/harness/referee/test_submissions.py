"""One synthetic submission of each kind gets the verdict that is right for it; `tests/bench_referee.py` judges 200."""

import pytest

from harness.referee.verify import verdict_line, verify
from tests.harness.referee.submissions import EXPECTED, KINDS, write


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_on_a_synthetic_submission(tmp_path, kind):
    verdict = verify([write(tmp_path / "logs", kind, seed=7)])
    assert verdict.verdict in EXPECTED[kind], verdict_line(verdict)
