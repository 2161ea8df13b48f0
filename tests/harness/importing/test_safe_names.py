"""Names from a stranger's log become names that stay inside a folder."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.importing.safe_names import file_name, is_safe, place_all


@given(st.lists(st.text(min_size=1, max_size=20), max_size=8))
def test_placed_names_are_safe_and_distinct(names):
    placed = place_all(names, {"train.py"})
    assert all(is_safe(name) and not os.path.isabs(name) and ".." not in Path(name).parts for name in placed)
    assert len({name.casefold() for name in [*placed, "train.py"]}) == len(names) + 1


@given(st.text(max_size=200))
def test_a_log_gets_a_safe_file_name(text):
    assert is_safe(file_name(text)) and "/" not in file_name(text)
