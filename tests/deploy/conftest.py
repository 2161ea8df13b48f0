"""Stand-ins for the programs of a cluster, and a Slurm controller that knows two nodes which do not exist."""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM = ("sbatch", "sinfo", "slurmctld", "munged")
CONFIG = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=300
NodeName=h100-[1-2] CPUs=64 RealMemory=500000 Gres=gpu:h100:8 State=CLOUD
PartitionName=gpu Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


@pytest.fixture
def stand_ins(tmp_path):
    """Writes programs of these names that note how they were called and run a line of shell; returns an environment.

    `calls` in it is the file of notes.
    """

    def put(**programs):
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for name, body in programs.items():
            path = folder / name
            path.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> "$calls"\n{body}\n')
            path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "calls": str(tmp_path / "calls")}

    return put


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """The environment of a Slurm controller with two nodes of 8 H100s that are said to be asleep."""
    if missing := [name for name in SLURM if not shutil.which(name)]:
        pytest.skip(f"needs Debian's slurm-client, slurmctld and munge: no {', '.join(missing)}")
    if os.geteuid():
        pytest.skip("munged has to be root's here")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents[:3]):  # munge trusts no socket below a folder that it cannot look into
        parent.chmod(parent.stat().st_mode | 0o055)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "slurm.conf").write_text(CONFIG.format(host=socket.gethostname().split(".")[0], folder=folder, port=port))
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    munge = subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={key}", *options], stderr=-3)
    controller = subprocess.Popen(["slurmctld", "-D"], env=env, stdout=-3, stderr=-3)
    deadline = time.monotonic() + 60
    while subprocess.run(["sinfo", "-h"], env=env, capture_output=True).returncode:
        assert time.monotonic() < deadline and controller.poll() is None, (folder / "slurmctld.log").read_text()
        time.sleep(0.2)
    yield env
    for process in (controller, munge):
        process.terminate()
        process.wait(30)
