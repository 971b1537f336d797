"""A sweep on a real SLURM of one node, where its daemons are installed and may be started."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from command_line import TRAIN, pg, status, sweeps

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2048 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
DAEMONS = ("munged", "slurmctld", "slurmd")


@pytest.fixture
def cluster():
    """SLURM_CONF of a cluster that is up."""
    if os.name != "posix" or os.geteuid() != 0 or not all(map(shutil.which, DAEMONS)):
        pytest.skip("needs root, slurm-wlm and munge")
    place = Path("/tmp") / f"pg-slurm-{os.getpid()}"  # munge refuses a group-writable parent
    (place / "state").mkdir(parents=True)
    (place / "spool").mkdir()
    (place / "munge.key").write_bytes(os.urandom(1024))
    (place / "munge.key").chmod(0o600)
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), place=place))
    env = {**os.environ, "SLURM_CONF": str(conf)}
    flags = [f"--{what}-file={place}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    try:
        subprocess.run(["munged", *flags, f"--socket={place}/munge.socket"], check=True)
        subprocess.run(["slurmctld"], env=env, check=True)
        subprocess.run(["slurmd"], env=env, check=True)
        for _ in range(100):
            shown = subprocess.run(["sinfo", "-h"], env=env, capture_output=True, text=True)
            if " idle " in shown.stdout:
                break
            time.sleep(0.2)
        else:
            pytest.skip(f"SLURM does not start: {shown.stdout}{shown.stderr}")
        yield {"SLURM_CONF": str(conf)}
    finally:
        subprocess.run(["scontrol", "shutdown"], env=env, capture_output=True)
        time.sleep(1)
        if (pid := place / "munge.pid").exists():
            os.kill(int(pid.read_text()), 15)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
def test_a_sweep_on_slurm(cluster, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    where = ["partition=debug", "timeout_min=5", "mem_gb=1", "cpus_per_task=1"]
    line = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{x}" for x in where)]
    done = pg("train", "-m", *line, "seed=0,1", *TRAIN, cwd=tmp_path, env=cluster)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs finished" in done.stdout
    (sweep,) = sweeps(tmp_path)
    assert [status(sweep / f"seed@{s}") for s in (0, 1)] == ["finished"] * 2
