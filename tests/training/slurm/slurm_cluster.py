"""A real Slurm on the loopback: munged, one controller and one node, with ports and folders of their own.

All three daemons run in the foreground as children that the kernel ends with the test process, so that
nothing is left behind even when the tests are killed.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "sinfo", "srun")
CORES, MEMORY = 4, 4000

CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has run out: 120 s unless told otherwise, 5 at the least.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
# More cores than the machine may have: members of a test run side by side.
SlurmdParameters=config_overrides
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
ReturnToService=2
MpiDefault=none
JobRequeue=1
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# GPUs of which there is only the name.
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:4 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=grace Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=gpu-a100 Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
"""


def why_not() -> str | None:
    """The reason why no Slurm can be started here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no Slurm here: {', '.join(missing)} not installed (apt-get install slurm-wlm munge)"
    if os.getuid() != 0:
        return "no Slurm here: its daemons are started as root"
    return None


class Cluster:
    """One controller and one node of four cores, and of four GPUs by name.

    Partitions: debug, gpu-a100, grace (20 s of grace), and urgent, which preempts the others.
    """

    def __init__(self) -> None:
        # A short path: a socket's name has room for 107 letters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.conf = self.folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self, seconds: float = 20.0) -> None:
        """Start the daemons and wait until the node is idle.

        Raises:
            RuntimeError: a daemon ended, or the node is not idle in time; with the end of its log.
        """
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.conf.write_text(
            CONF.format(host=host, folder=self.folder, ports=_free_ports(2), cores=CORES, memory=MEMORY)
        )
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-3]\n")
        for number in range(4):
            (self.folder / f"gpu{number}").touch()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.folder.chmod(0o755)
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
            f"--pid-file={self.folder}/munged.pid", f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/munged.log",
        )  # fmt: skip
        self._wait(lambda: (self.folder / "munge.socket").exists(), seconds)
        self._daemon("slurmctld", "-D", "-f", str(self.conf))
        self._daemon("slurmd", "-D", "-f", str(self.conf))
        self._wait(lambda: self.run("sinfo", "--noheader", "--format=%T") == "idle", seconds)

    def stop(self) -> None:
        """Cancel every job, end the daemons by their ids, and remove the folder."""
        with contextlib.suppress(Exception):
            self.run("scancel", "--full", "--user=root")
            self._wait(lambda: not self.run("squeue", "-h"), 10.0)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Environment variables with which Slurm's programs find this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": _path()}

    def run(self, *command: str, seconds: float = 15.0) -> str:
        """What one of Slurm's programs prints; its errors too."""
        done = subprocess.run(
            command, env=self.environment(), timeout=seconds, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout.strip()

    def field(self, job: str, name: str) -> str:
        """One field of `scontrol show job`, such as `JobState`."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), "")

    def _daemon(self, *command: str) -> None:
        log = open(self.folder / f"{command[0]}.out", "wb")  # noqa: SIM115
        daemon = subprocess.Popen(
            command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        self.daemons.append(daemon)
        log.close()

    def _wait(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            ended = [daemon for daemon in self.daemons if daemon.poll() is not None]
            if ended or time.monotonic() > end:
                logs = [
                    path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.out"))
                ]
                what = f"{ended[0].args[0]} ended" if ended else "it took too long"  # type: ignore[index]
                raise RuntimeError(f"Slurm did not start: {what}\n" + "\n".join(logs))
            time.sleep(0.05)


def _die_with_parent() -> None:
    """The kernel sends TERM to this process when its parent is gone (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
