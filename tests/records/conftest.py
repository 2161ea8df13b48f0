"""The archive's train scripts as the tests see them: their definitions, without launching anything."""

import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import compiling
import interpreting
import kernels
import pytest
import torch
import torch.distributed as dist
from scripts import definitions, texts_of

from harness.tokens import synthetic

ROOT = Path(__file__).parents[2]
RECORDS = Path(os.environ.get("RECORDS_DIR", ROOT / "records"))


def record_folders() -> list[Path]:
    """Every record folder, or the one that CONTRACT_RECORD names."""
    if os.environ.get("CONTRACT_RECORD"):
        return [Path(os.environ["CONTRACT_RECORD"])]
    return sorted(script.parent for script in RECORDS.glob("*/train.py"))


def pytest_generate_tests(metafunc):
    """A test that asks for `folder` runs once for every record; marked `defines(name, ...)`, for every record whose
    script defines all of these; marked `same_kernels(name, ...)`, for one of those whose kernels and whose functions of
    these names have the same text."""
    if "folder" not in metafunc.fixturenames:
        return
    scripts = {folder: (folder / "train.py").read_text(encoding="utf-8") for folder in record_folders()}
    for mark in metafunc.definition.iter_markers("defines"):
        patterns = [re.compile(rf"^( *(def|class) {name}\b|{name} = )", re.M) for name in mark.args]
        scripts = {folder: text for folder, text in scripts.items() if all(p.search(text) for p in patterns)}
    for mark in metafunc.definition.iter_markers("same_kernels"):
        first = {texts_of(text, mark.args): folder for folder, text in reversed(scripts.items())}
        scripts = {folder: text for folder, text in scripts.items() if folder in first.values()}
    folders = list(scripts)
    metafunc.parametrize("folder", folders, ids=[folder.name for folder in folders], scope="module")


@pytest.fixture(autouse=True)
def seeded():
    """Random inputs are the same in every run: rounding may put one draw in a hundred beyond a tolerance."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def folder_of():
    """The folder of a record, by its number."""
    folders = {}
    for folder in sorted(script.parent for script in RECORDS.glob("*/train.py")):
        folders[tomllib.loads((folder / "record.toml").read_text())["number"]] = folder
    return folders.__getitem__


@pytest.fixture(scope="session")
def definitions_in():
    """The definitions of a record, by its folder."""
    return definitions


@pytest.fixture(scope="session")
def definitions_of(folder_of):
    """The definitions of a record, by its number."""
    return lambda number: definitions(folder_of(number))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The synthetic shards, and their manifest."""
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, synthetic.ensure_synthetic(folder)


@pytest.fixture
def one_rank(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The CPU's definitions, or the fast paths on a GPU. Not both: beside a GPU the scripts would compile for the CPU
    too, which takes minutes and tests what no replay runs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device: the same check runs there")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def triton():
    """For tests that need Triton: skips them where it is not installed."""
    if find_spec("triton") is None:
        pytest.skip("Triton, which comes with PyTorch's CUDA builds, is not installed")


@pytest.fixture(scope="module")
def interpreted(triton):
    """Calls a function in a process whose kernels Triton interprets, on the CPU."""
    with kernels.process(interpreting.begin) as call:
        yield call


@pytest.fixture(scope="module")
def compiled(triton, tmp_path_factory):
    """Calls a function in a process whose kernels are compiled for an H100 and not run."""
    with kernels.process(compiling.begin, tmp_path_factory.mktemp("triton")) as call:
        yield call
