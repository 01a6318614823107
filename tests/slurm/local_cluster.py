"""A real Slurm on this machine alone: munged, slurmctld and a slurmd for each pretended node, all on 127.0.0.1.

Everything lies in one folder and ends with the block, however the block ends. Nodes claim processors and GPUs that
are not there: Slurm's own accounting of them, signals, requeues and preemption are real.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NODES, GPUS = 2, 2
FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"})
# any character device passes for a GPU
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")

_CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits for its old credential to expire: 120 s if not said
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true

# what needs neither root's cgroups nor a database
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PriorityType=priority/basic

# a job in "urgent" takes the place of those in "main": they get their own --signal, then GraceTime, and are requeued
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=30
MinJobAge=3600

GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} CPUs=32 RealMemory=1000000 \
Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def install() -> None:
    """See that Slurm is here; where apt-get can, install it.

    Raises:
        RuntimeError: says what a person has to do.
    """
    if not missing():
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "slurm-wlm", "munge"]):
        try:
            done = subprocess.run(
                [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *command],
                capture_output=True,
                text=True,
                timeout=300,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(_cannot(str(error))) from error
        if done.returncode and command[0] == "install":
            raise RuntimeError(_cannot((done.stderr or done.stdout).strip()[-500:]))
    if missing():
        raise RuntimeError(_cannot(f"{', '.join(missing())} still missing"))


def missing() -> list[str]:
    """Programs of Slurm that are not on this machine."""
    return [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]


def _cannot(why: str) -> str:
    return f"make test-slurm needs Slurm and munge (apt-get install slurm-wlm munge, as root), and cannot: {why}"


@dataclass(frozen=True)
class Job:
    """What Slurm says of a job."""

    id: str
    state: str
    reason: str
    exit_code: str
    restarts: int


class Cluster:
    """A running cluster: how its commands are called.

    Args:
        folder: of configuration, state and logs.
        environment: of commands, and so of jobs.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)

    def call(self, *command: str, cwd: Path | None = None, seconds: float = 60, **environment: str) -> str:
        """Run a command to its end and return what it printed; it must succeed."""
        done = self.run(*command, cwd=cwd, seconds=seconds, **environment)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def run(
        self, *command: str, cwd: Path | None = None, seconds: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )

    def job(self, number: str) -> Job:
        """Now."""
        said = self.call("scontrol", "show", "job", "--oneliner", number).splitlines()[0]
        fields = dict(re.findall(r"(\w+)=(\S*)", said))
        return Job(number, fields["JobState"], fields["Reason"], fields["ExitCode"], int(fields["Restarts"]))

    def wait(self, number: str, *, states: Collection[str] = FINISHED, seconds: float = 180) -> Job:
        """Until the job is in one of the states."""
        return until(
            lambda: job if (job := self.job(number)).state in states else None,
            seconds=seconds,
            what=lambda: f"job {number} is {self.job(number)}, not in {sorted(states)}",
        )

    def wait_until_gone(self, number: str, *, seconds: float = 60) -> None:
        """Until nothing of a job that has ended runs any more."""
        command = ["squeue", "--noheader", f"--jobs={number}", "--format=%T"]
        until(lambda: self.call(*command) == "", seconds=seconds, what=lambda: f"{number} is {self.call(*command)}")

    def cancel_all(self) -> None:
        """End every job and wait until it is gone."""
        self.run("scancel", "--user", self.environment["USER"])
        with suppress(AssertionError):
            until(lambda: self.call("squeue", "--noheader") == "", seconds=40, what=lambda: "jobs that do not end")


def until(found: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> object:
    """Ask again until there is an answer that is true, and return it.

    Raises:
        AssertionError: after so many seconds, with what was waited for.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"after {seconds:.0f} s: {what()}")


@contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Start one; it ends with the block.

    Args:
        environment: of the commands.
    """
    # short: the path of a socket has 108 characters at most
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    user = pwd.getpwuid(os.geteuid()).pw_name
    one = Cluster(folder, {**environment, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), "USER": user})
    with ExitStack() as daemons:
        daemons.callback(shutil.rmtree, folder, ignore_errors=True)
        _configure(folder, user)
        start = _Starter(one, daemons)
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        start("munged", "--foreground", *(f"--{name}={folder}/munge.{end}" for name, end in files.items()))
        until((folder / "munge.sock").exists, seconds=30, what=start.logs)
        start("slurmctld", "-D")
        for number in range(1, NODES + 1):
            start("slurmd", "-D", "-N", f"n{number}")
        until(lambda: _idle(one) == NODES, seconds=60, what=start.logs)
        daemons.callback(one.cancel_all)
        yield one


def _configure(folder: Path, user: str) -> None:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "state").mkdir()
    ports = _free_ports(1 + NODES)
    for number in range(1, NODES + 1):
        (folder / f"spool-n{number}").mkdir()
    gpus = [f"NodeName=n[1-{NODES}] Name=gpu Flags=nvidia_gpu_env File={device}\n" for device in _DEVICES[:GPUS]]
    (folder / "gres.conf").write_text("".join(gpus))
    (folder / "slurm.conf").write_text(
        _CONF.format(
            host=socket.gethostname().split(".")[0], user=user, folder=folder, ports=ports, nodes=NODES, gpus=GPUS,
            node_ports=f"[{ports[1]}-{ports[-1]}]",
        )
    )  # fmt: skip


def _free_ports(count: int) -> range:
    """So many in a row: above those of jobs, below those that the system gives to whoever asks for any."""
    for first in range(32_000, 32_700, count):
        with ExitStack() as sockets, suppress(OSError):
            for port in range(first, first + count):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return range(first, first + count)
    raise AssertionError("no free ports")


class _Starter:
    """Starts daemons and keeps what they print; each ends with the stack, or with this process."""

    def __init__(self, one: Cluster, daemons: ExitStack) -> None:
        self.one, self.daemons = one, daemons

    def __call__(self, *command: str) -> None:
        name = "-".join(word for word in command if word[0] not in "-/")  # slurmd-n1
        log = self.daemons.enter_context((self.one.folder / f"{name}.out").open("w"))
        process = subprocess.Popen(
            command,
            env=self.one.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which end the jobs first
            preexec_fn=_end_with_parent,
        )
        self.daemons.callback(_end, process)

    def logs(self) -> str:
        """The end of each."""
        return "the cluster is not up\n" + logs(self.one.folder, ".log", ".out")


def logs(folder: Path, *endings: str, lines: int = 12) -> str:
    """The end of every log of a folder."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (endings or (".log",)))
    return "\n".join(
        f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) for file in files
    )


def _end_with_parent() -> None:
    """A killed test run leaves no daemons behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _idle(one: Cluster) -> int:
    done = one.run("sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D")
    return int(done.stdout.strip() or 0) if done.returncode == 0 else 0


def main() -> int:
    """Whether a Slurm can be had and started here: 0, or 1 with the reason."""
    try:
        install()
        with cluster(os.environ):
            return 0
    except (AssertionError, OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
