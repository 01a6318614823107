"""One local Slurm for all tests here; when one fails, the ends of its logs are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.quick import random_base
from slurm.jobs import ROOT, Jobs
from slurm.local_cluster import Cluster, cluster, install, logs


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """The cluster. Where Slurm cannot be had, every test fails and says why."""
    try:
        install()
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "HYDRA"))}
    environment = {
        **inherited,
        "VENV": sys.prefix,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        # the names of pretended nodes do not resolve
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "SBATCH_GPUS_PER_NODE": "1",
    }
    with cluster(environment) as one:
        yield one


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def jobs(slurm: Cluster, base: Path, tmp_path: Path) -> Iterator[Jobs]:
    """Jobs in a folder of the test's own; whatever it leaves behind is cancelled."""
    yield Jobs(slurm, base, tmp_path)
    slurm.cancel_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failed test says what its jobs and the daemons said."""
    report = yield
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed and "jobs" in arguments:
        jobs: Jobs = arguments["jobs"]
        report.sections.append(("jobs", jobs.said()))
        report.sections.append(("daemons", logs(jobs.slurm.folder)))
    return report
