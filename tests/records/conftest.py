"""The archive's train scripts as the tests see them: their definitions, without launching anything."""

import os
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

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
    script defines all of these."""
    if "folder" not in metafunc.fixturenames:
        return
    folders = record_folders()
    for mark in metafunc.definition.iter_markers("defines"):
        patterns = [re.compile(rf"^ *(def|class) {name}\b", re.M) for name in mark.args]
        scripts = {folder: (folder / "train.py").read_text(encoding="utf-8") for folder in folders}
        folders = [folder for folder, text in scripts.items() if all(p.search(text) for p in patterns)]
    metafunc.parametrize("folder", folders, ids=[folder.name for folder in folders], scope="module")


def definitions(folder: Path) -> types.ModuleType:
    """Everything a train script defines before its Setup section, as a module: nothing is launched or read."""
    script = folder / "train.py"
    source = script.read_text(encoding="utf-8")
    head, banner, _ = source.partition(f"# {'-' * 98}\n# Setup\n")
    assert banner, f"{script} has no Setup section"
    module = types.ModuleType(f"record_{folder.name.replace('-', '_')}")
    module.__file__ = str(script)
    sys.modules[module.__name__] = module  # dataclasses and Triton look their module up
    exec(compile(head, str(script), "exec"), module.__dict__)
    module.settings = module.Settings()
    return module


@pytest.fixture(scope="session")
def folder_of():
    """The folder of a record, by its number."""
    folders = {}
    for folder in sorted(script.parent for script in (ROOT / "records").glob("*/train.py")):
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
