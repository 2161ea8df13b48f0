"""deploy/: each file held against its own tool where that is installed, and run with stand-ins for the cluster."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from harness.cli import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BATCH, RENT, TASK = DEPLOY / "replay.sbatch", DEPLOY / "rent", DEPLOY / "skypilot.yaml"
# One line of H100s is all of SkyPilot's catalogue that the task asks about; it is fetched from the network otherwise.
CATALOGUE = "AcceleratorName,AcceleratorMemory,Clouds\nH100,80GB,Lambda\n"
VALIDATE = "import sys, sky; t = sky.Task.from_yaml(sys.argv[1]); t.validate(); print(t.resources, sorted(t.envs))"


def run(script, *arguments, env, cwd):
    return subprocess.run(["bash", str(script), *arguments], env=env, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("script", [BATCH, RENT], ids=lambda path: path.name)
def test_the_scripts_are_sound(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "Job 1 to start"),
        (["--nodes=2", "--gpus-per-node=4"], "on nodes h100-[1-2]"),
        (["--gpus-per-node=16"], "Requested node configuration is not available"),
    ],
)
def test_slurm_would_start_it(slurm, options, words):
    command = ["sbatch", "--test-only", *options, str(BATCH), "2025-10-15"]
    said = subprocess.run(command, env=slurm, capture_output=True, text=True)
    assert re.sub(r"Job \d+", "Job 1", said.stderr).find(words) >= 0, said.stderr
    assert (said.returncode == 0) == ("not available" not in words)


SRUN = 'if [[ $1 == bash ]]; then SLURM_NODEID=0 "$@"; SLURM_NODEID=1 "$@"; else "$@"; fi'


@pytest.fixture
def clone(tmp_path):
    """A clone whose harness only notes how it was called."""
    harness = tmp_path / "clone" / ".venv" / "bin" / "harness"
    harness.parent.mkdir(parents=True)
    harness.write_text('#!/bin/bash\nprintf "%s\\n" "harness $*" >> "$calls"\n')
    harness.chmod(0o755)
    return tmp_path / "clone"


def test_the_batch_script_on_one_node(stand_ins, clone, tmp_path):
    env = stand_ins(make="", srun=SRUN) | {"SLURM_SUBMIT_DIR": str(clone), "SLURM_NNODES": "1"}
    assert run(BATCH, "40", "--runs", "5", "--set", "a=b c", env=env, cwd=tmp_path).returncode == 0
    made, _, harness = (tmp_path / "calls").read_text().splitlines()
    assert made == "make venv"
    assert harness == "harness replay 40 --runs-dir runs --data-dir data/fineweb10B --runs 5 --set a=b c"
    assert "which record?" in run(BATCH, env=env, cwd=tmp_path).stderr


def test_the_batch_script_on_two_nodes(stand_ins, clone, tmp_path):
    env = stand_ins(make="", srun=SRUN, scontrol="printf 'h100-1\\nh100-2\\n'") | {
        "SLURM_SUBMIT_DIR": str(clone),
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "h100-[1-2]",
        "SLURM_GPUS_PER_NODE": "h100:4",
        "DATA_DIR": "/shared/fineweb",
    }
    assert run(BATCH, "40", "--watch", env=env, cwd=tmp_path).returncode == 0
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("harness")]
    common = "harness replay 40 --runs-dir runs --data-dir /shared/fineweb --watch --gpus 4 --nnodes 2"
    assert calls == [f"{common} --node-rank {rank} --rdzv-endpoint h100-1:29500" for rank in (0, 1)]


def test_slurms_sigterm_reaches_the_harness(stand_ins, clone, tmp_path):
    waits = 'trap "echo ended >> $calls; exit 143" TERM; echo up >> "$calls"; while :; do sleep 0.1; done'
    (clone / ".venv/bin/harness").write_text(f"#!/bin/bash\n{waits}\n")
    env = stand_ins(make="", srun='exec "$@"') | {"SLURM_SUBMIT_DIR": str(clone), "SLURM_NNODES": "1"}
    job = subprocess.Popen(["bash", str(BATCH), "40"], env=env, cwd=tmp_path)
    calls, deadline = tmp_path / "calls", time.monotonic() + 60
    while not (calls.exists() and "up" in calls.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143 and calls.read_text().endswith("ended\n")


def test_the_harness_knows_every_option_that_the_scripts_use():
    used = set(
        re.findall(r"(?<= )--(?:runs-dir|data-dir|nnodes|node-rank|rdzv-endpoint|gpus|watch|runs)\b", BATCH.read_text())
    )
    text = CliRunner().invoke(main, ["replay", "--help"]).output
    assert len(used) == 8 and all(option in text for option in used)


@pytest.mark.parametrize("fails", [False, True])
def test_a_rented_node_always_goes_back_after_its_runs_came_home(stand_ins, tmp_path, fails):
    env = stand_ins(sky=f"[[ $1 != launch ]] || exit {int(fails)}", rsync="")
    done = run(RENT, "40", "--runs", "5", env=env, cwd=tmp_path)
    launch, fetch, down = (tmp_path / "calls").read_text().splitlines()
    assert launch.startswith("sky launch") and "--env RECORD=40 --env ARGS=--runs 5 deploy/skypilot.yaml" in launch
    assert "--idle-minutes-to-autostop 15 --down" in launch
    assert fetch == "rsync -az speedrun:sky_workdir/runs/ runs/" and down == "sky down --yes speedrun"
    assert done.returncode == int(fails)


def test_the_task_rents_what_a_record_takes():
    task = yaml.safe_load(TASK.read_text())
    assert task["resources"]["accelerators"] == "H100:8" and task["workdir"] == "."
    assert 'make replay RECORD="$RECORD" ARGS="$ARGS"' in task["run"] and set(task["envs"]) == {"RECORD", "ARGS"}
    for script in (task["setup"], task["run"]):
        assert script.startswith("set -e\n") and subprocess.run(["bash", "-n", "-c", script]).returncode == 0


def test_skypilot_takes_the_task(tmp_path):
    """By SkyPilot's own validation; `deploy/check` installs it in an environment of its own and names its Python."""
    python = os.environ.get("SKYPILOT_PYTHON")
    if not python:
        pytest.skip("SKYPILOT_PYTHON names no Python that has SkyPilot: deploy/check makes one")
    catalogue = tmp_path / ".sky" / "catalogs" / "v8" / "common" / "accelerators.csv"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_text(CATALOGUE)
    env = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    env.pop("PYTHONPATH", None)

    def validate(path):
        return subprocess.run(
            [python, "-P", "-c", VALIDATE, str(path)], env=env, cwd=ROOT, capture_output=True, text=True
        )

    good = validate(TASK)
    assert good.returncode == 0, good.stderr[-2000:]
    assert "'H100': 8" in good.stdout and "['ARGS', 'RECORD']" in good.stdout
    (tmp_path / "bad.yaml").write_text(TASK.read_text().replace("num_nodes", "number_of_nodes"))
    assert validate(tmp_path / "bad.yaml").returncode != 0
