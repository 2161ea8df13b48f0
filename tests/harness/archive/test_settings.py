"""Settings are read without running the script, and wrong ones are caught before anything starts."""

import re

import pytest

from harness.archive.settings import as_arguments, parse_assignments, read_settings
from harness.errors import UserError

SCRIPT = '''
raise SystemExit("this script was run")

class Settings:
    """Numbers."""
    data_dir: str = "data"
    num_iterations: int = 2 * 1024
    tokens: int = 10_485_760
    learning_rate: float = 0.1 / 4
    fp8: bool = True
    windows: tuple = (3, 7)
    computed: int = len("abc")
    bare: str
'''


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    return read_settings(tmp_path / "train.py")


def test_defaults_are_read_from_the_source(settings):
    defaults = {name: setting.default for name, setting in settings.items()}
    assert defaults == {
        "data_dir": "data",
        "num_iterations": 2048,
        "tokens": 10485760,
        "learning_rate": 0.025,
        "fp8": True,
        "windows": (3, 7),
        "computed": None,
        "bare": None,
    }


def test_assignments(settings):
    given = parse_assignments(("num-iterations=5", "fp8=false", "windows=(1, 2)", "bare=a=b"), settings)
    assert given == {"num_iterations": "5", "fp8": "false", "windows": "(1, 2)", "bare": "a=b"}
    assert parse_assignments(("anything=1",), None) == {"anything": "1"}


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("num_iteration=5", "no setting 'num_iteration'; did you mean num_iterations?"),
        ("zzz=5", "no setting 'zzz'; there are data_dir"),
        ("num_iterations", "write it as name=value"),
        ("data_dir=books", "use --data-dir"),
        ("=3", "write it as name=value"),
        ("num_iterations=many", "num_iterations is of type int: 'many' is not"),
        ("fp8=maybe", "fp8 is true or false"),
        ("windows=(1", "windows is of type tuple"),
        ("windows=3", "windows is of type tuple, which is written as (3, 7) or (3,): '3' is not"),
    ],
)
def test_wrong_assignments_are_one_line(settings, assignment, words):
    with pytest.raises(UserError, match=re.escape(words)):
        parse_assignments((assignment,), settings)


def test_values_are_written_as_the_scripts_read_them():
    overrides = {"fp8": False, "windows": [[1, 2], [3]], "model_dim": 64, "rate": 1e-3}
    assert as_arguments(overrides) == [
        *("--fp8", "false"),
        *("--windows", "((1, 2), (3,))"),
        *("--model_dim", "64"),
        *("--rate", "0.001"),
    ]


@pytest.mark.parametrize("text, words", [("def (", "is not a Python script"), ("x" + "+x" * 100000, "")])
def test_hostile_scripts_end_in_one_line(tmp_path, text, words):
    (tmp_path / "train.py").write_text(text)
    try:
        assert read_settings(tmp_path / "train.py") is None
    except UserError as error:
        assert words in str(error) and "\n" not in str(error)


def test_a_script_without_settings(tmp_path):
    (tmp_path / "train.py").write_text("print(1)")
    assert read_settings(tmp_path / "train.py") is None
    with pytest.raises(UserError, match="No such file"):
        read_settings(tmp_path / "none.py")
