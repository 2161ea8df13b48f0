"""The table of the chain: how far a script is from its parent's, and what its runs here have shown."""

import shutil

import pytest

from harness.archive.find import resolve
from harness.history.chain import chain_table

HEAD = "number,run,gpus,machine,median_ms,alone_steps,difference,compared"


@pytest.fixture
def row_of(tmp_path):
    """The cells of record 40's row, in an archive of 39 and 40 whose `shown.csv` has these lines."""
    for number in ("39", "40"):
        folder = resolve(number).folder
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("logs"))

    def read(*lines: str) -> list[str]:
        (tmp_path / "shown.csv").write_text("\n".join((HEAD, *lines)) + "\n")
        (line,) = (line for line in chain_table(tmp_path).splitlines() if line.startswith("| [40]"))
        return [cell.strip() for cell in line.strip("|").split("|")]

    return read


def test_a_row_says_what_the_shown_run_has_shown(row_of):
    record = resolve("40")
    cells = row_of(f"40,{record.shown.run},2,NVIDIA H100 80GB HBM3,238,2330,+0.0012,9")
    assert cells[1:] == ["+12 −10", record.shown.text, "238", "242", "+0.0012"]  # 60.38 ms x 8, on two cards
    assert row_of()[3:] == ["", "", ""]


def test_a_run_that_was_not_compared_leaves_the_difference_to_the_last_that_was(row_of):
    shown = f"40,{resolve('40').shown.run},2,NVIDIA H100 80GB HBM3,238,2330,,"
    others = ("40,a,1,NVIDIA H200,,,+0.0100,5", "40,b,1,NVIDIA H200,,,-0.0200,5", "39,c,1,NVIDIA H200,,,+0.0300,5")
    assert row_of(shown, *others)[5] == "-0.0200"
    assert row_of(shown)[5] == ""
