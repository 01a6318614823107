"""The graph as jobs, with a queue of our own for Slurm: what is submitted, followed, cancelled, taken up again."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.console import said
from lightning_r1.config.errors import ConfigError
from lightning_r1.pipeline import jobs
from lightning_r1.pipeline.graph import Node
from lightning_r1.pipeline.jobs import follow, options_of, results_of, submit
from lightning_r1.pipeline.runners import Command
from lightning_r1.pipeline.slurm import Job

CLUSTER: dict[str, Any] = {
    "partition": None, "account": None, "time": None, "nodes": 1, "gpus_per_node": None, "options": [], "verbs": {},
}  # fmt: skip


class Queue:
    """Slurm as :mod:`lightning_r1.pipeline.jobs` sees it; the test says what happens to jobs."""

    def __init__(self) -> None:
        self.queue: dict[str, Job] = {}
        self.submitted: list[tuple[str, list[str], list[str]]] = []
        self.cancelled: list[str] = []

    def submit(self, command: Command, *, name: str, options: Sequence[str], log: Path, after: Iterable[str]) -> str:
        number = str(101 + len(self.submitted))
        self.submitted.append((name, list(options), list(after)))
        assert log.parent.is_dir()
        self.queue[number] = Job(number, name, "PENDING", "Priority")
        return number

    def jobs(self) -> dict[str, Job]:
        return dict(self.queue)

    def cancel(self, numbers: Sequence[str]) -> None:
        self.cancelled += numbers
        for number in numbers:
            self.becomes(number, "CANCELLED")

    def becomes(self, number: str, state: str, reason: str = "") -> None:
        self.queue[number] = replace(self.queue[number], state=state, reason=reason, seconds=61)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def nodes(tmp_path: Path) -> list[Node]:
    """base; rl behind it; scores behind rl; other behind base alone."""
    return chain(tmp_path)


def chain(folder: Path, key: str = "k") -> list[Node]:
    parents = {
        "base": {},
        "rl": {"model.path": "base"},
        "scores": {"model.path": "rl"},
        "other": {"model.path": "base"},
    }
    return [
        Node(
            name,
            Command("evaluate" if name == "scores" else "train", (f"name={name}",)),
            {"paths": {"run_dir": str(folder / "small" / name)}},
            needs,
            {path: f"{key}-{parent}" for path, parent in needs.items()},
            f"{key}-{name}",
        )
        for name, needs in parents.items()
    ]


def test_a_controller_that_is_busy_is_asked_again(
    queue: Queue, nodes: list[Node], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = submit(nodes[:1], spec_of(nodes[:1]), CLUSTER, queue)
    answers, busy = queue.jobs, ["first", "second"]

    def jobs() -> dict[str, Job]:
        if busy:
            busy.pop()
            raise RuntimeError("squeue: slurm_load_jobs error: Socket timed out on send/recv operation")
        return answers()

    monkeypatch.setattr(queue, "jobs", jobs)
    follow(graph, queue, poll_s=1, sleep=events(lambda: None, lambda: finish(queue, "101", nodes[0])))
    assert graph.status == {"base": "done"}
    assert said(capsys).count("Socket timed out on send/recv operation); it is asked again") == 1


def spec_of(nodes: Sequence[Node], **resources: Any) -> dict[str, Any]:
    return {"nodes": {node.name: {"resources": resources.get(node.name)} for node in nodes}}


def finish(queue: Queue, number: str, node: Node) -> None:
    """As a job that did its work."""
    (node.folder / "summary.json").write_text(json.dumps({"after": {"eval/a/pass@1": 0.5}}))
    queue.becomes(number, "COMPLETED")


def events(*happenings: Callable[[], None]) -> Callable[[float], None]:
    """In the place of sleep: at each look at the queue the next thing has happened."""
    waiting = iter(happenings)

    def sleep(seconds: float) -> None:
        next(waiting)()

    return sleep


def statuses(nodes: Sequence[Node]) -> list[str]:
    return [node.manifest["status"] for node in nodes]


def test_all_are_submitted_at_once_each_behind_what_it_needs(queue: Queue, nodes: list[Node]) -> None:
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert graph.job == {"base": "101", "rl": "102", "scores": "103", "other": "104"}
    assert [after for _, _, after in queue.submitted] == [[], ["101"], ["102"], ["101"]]
    assert [name for name, _, _ in queue.submitted] == [f"small.{node.name}.k-{node.name}" for node in nodes]
    assert statuses(nodes) == ["submitted"] * 4
    assert nodes[1].manifest["job"] == "102"


def test_followed_to_a_good_end(queue: Queue, nodes: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    happenings = [
        lambda: queue.becomes("101", "RUNNING", "n1"),
        lambda: queue.becomes("101", "PENDING", "BeginTime"),  # requeued: those behind it wait
        lambda: finish(queue, "101", nodes[0]),
        lambda: (finish(queue, "102", nodes[1]), finish(queue, "104", nodes[3])),
        lambda: (finish(queue, "103", nodes[2]), queue.queue.pop("103")),  # forgotten before we looked
    ]
    follow(graph, queue, poll_s=1, sleep=events(*happenings))
    told = said(capsys)
    assert statuses(nodes) == ["done"] * 4
    assert queue.cancelled == []
    results = results_of(graph)
    assert list(results) == ["base", "rl", "scores", "other"]
    assert results["rl"] == {
        "key": "k-rl", "status": "done", "seconds": 61, "path": str(nodes[1].folder), "eval": {"eval/a/pass@1": 0.5},
    }  # fmt: skip
    assert "job 101 running n1" in told
    # there now, nothing is submitted again
    again = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert again.job == {}
    assert set(again.status.values()) == {"cached"}
    assert len(queue.submitted) == 4


def test_a_failure_cancels_what_needs_it_and_nothing_else(
    queue: Queue, nodes: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    happenings = [
        lambda: finish(queue, "101", nodes[0]),
        lambda: queue.becomes("102", "TIMEOUT"),
        lambda: finish(queue, "104", nodes[3]),
    ]
    follow(graph, queue, poll_s=1, sleep=events(*happenings))
    told = said(capsys)
    assert queue.cancelled == ["103"]
    assert list(results_of(graph)) == ["base", "other"]
    log = nodes[1].folder / "slurm" / "job-102.out"
    assert graph.status["rl"] == f"failed: job 102 is TIMEOUT; see {log}"
    assert graph.status["scores"] == "cancelled: job 103 needs rl, which failed"
    for words in graph.status.values():
        assert words in told
    assert statuses(nodes) == ["done", "failed", "cancelled", "done"]

    again = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert again.status == {"base": "cached", "other": "cached"}
    assert again.job == {"rl": "105", "scores": "106"}
    assert [after for _, _, after in queue.submitted[4:]] == [[], ["105"]]


def test_an_end_without_a_summary_is_a_failure(
    queue: Queue, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_APPEARS_S", 0.0)
    graph = submit(nodes[:1], spec_of(nodes), CLUSTER, queue)
    queue.becomes("101", "COMPLETED")
    follow(graph, queue, poll_s=1)
    assert "is COMPLETED, and left no summary" in graph.status["base"]
    graph = submit(nodes[:1], spec_of(nodes), CLUSTER, queue)
    del queue.queue["102"]
    follow(graph, queue, poll_s=1)
    assert "is no longer known to Slurm" in graph.status["base"]


def test_jobs_on_their_way_are_taken_up(queue: Queue, nodes: list[Node]) -> None:
    first = submit(nodes, spec_of(nodes), CLUSTER, queue)
    queue.becomes("101", "RUNNING", "n1")
    assert submit(nodes, spec_of(nodes), CLUSTER, queue).job == first.job
    # one that ended while nobody looked
    finish(queue, "101", nodes[0])
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert (graph.status, len(queue.submitted)) == ({"base": "done"}, 4)
    assert nodes[0].manifest["status"] == "done"
    # one that failed: what waits for it in vain makes room
    queue.becomes("102", "NODE_FAIL")
    queue.becomes("103", "PENDING", "(DependencyNeverSatisfied)")
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert graph.job == {"rl": "105", "scores": "106", "other": "104"}


def test_a_job_that_waits_for_another_than_its_parents_is_replaced(queue: Queue, nodes: list[Node]) -> None:
    submit(nodes, spec_of(nodes), CLUSTER, queue)
    queue.becomes("101", "CANCELLED")
    graph = submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert queue.cancelled == ["102", "103", "104"]
    assert graph.job == {"base": "105", "rl": "106", "scores": "107", "other": "108"}


def test_a_number_that_another_job_has_now_is_no_job_of_ours(queue: Queue, nodes: list[Node]) -> None:
    submit(nodes[:1], spec_of(nodes), CLUSTER, queue)
    queue.queue["101"] = Job("101", "something.else", "RUNNING")
    assert submit(nodes[:1], spec_of(nodes), CLUSTER, queue).job == {"base": "102"}


def test_a_folder_in_which_a_job_is_at_work_is_not_taken_away(queue: Queue, nodes: list[Node], tmp_path: Path) -> None:
    submit(nodes, spec_of(nodes), CLUSTER, queue)
    changed = chain(tmp_path, key="other")
    with pytest.raises(ConfigError, match=r"nodes\.base: job 101 is still at work in .*scancel 101"):
        submit(changed, spec_of(changed), CLUSTER, queue)
    for number in ("101", "102", "103", "104"):
        queue.becomes(number, "CANCELLED")
    assert len(submit(changed, spec_of(changed), CLUSTER, queue).job) == 4
    assert (tmp_path / "small" / "base.k-base").is_dir()  # kept aside


def test_the_node_says_more_than_its_verb_and_its_verb_more_than_the_cluster(nodes: list[Node]) -> None:
    cluster = {
        **CLUSTER, "partition": "gpu", "time": "24:00:00", "options": ["--qos=long"],
        "verbs": {"train": {"nodes": 4, "gpus_per_node": 8}, "evaluate": {"time": "1:00:00"}},
    }  # fmt: skip
    spec = spec_of(nodes, rl={"nodes": 8, "options": ["--exclusive"]})
    assert options_of(nodes[0], spec, cluster) == [
        "--partition=gpu", "--time=24:00:00", "--nodes=4", "--gpus-per-node=8", "--qos=long",
    ]  # fmt: skip
    assert options_of(nodes[1], spec, cluster) == [
        "--partition=gpu", "--time=24:00:00", "--nodes=8", "--gpus-per-node=8", "--qos=long", "--exclusive",
    ]  # fmt: skip
    assert options_of(nodes[2], spec, cluster) == ["--partition=gpu", "--time=1:00:00", "--nodes=1", "--qos=long"]


@pytest.mark.parametrize(
    ("spec", "cluster", "message"),
    [
        (
            {"base": {"gpus": 8}},
            {},
            r"pipeline\.nodes\.base\.resources\.gpus: there is no such resource; choose from par",
        ),
        ({}, {"verbs": {"train": {"hours": 8}}}, r"cluster\.verbs\.train\.hours: there is no such resource"),
    ],
)
def test_a_resource_that_is_none(
    spec: dict[str, Any], cluster: dict[str, Any], message: str, queue: Queue, nodes: list[Node]
) -> None:
    with pytest.raises(ConfigError, match=message):
        submit(nodes, spec_of(nodes, **spec), {**CLUSTER, **cluster}, queue)
    assert queue.submitted == []


def test_two_do_not_submit_at_once(queue: Queue, nodes: list[Node], tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    with (tmp_path / "small" / ".submit.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is submitting into"):
            submit(nodes, spec_of(nodes), CLUSTER, queue)
    assert queue.submitted == []
