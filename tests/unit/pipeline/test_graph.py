"""The graph: what is there is not made again, what was interrupted goes on, what was made otherwise stays aside."""

from __future__ import annotations

import json
import os
import re
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from helpers.console import said
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.pipeline import graph
from lightning_r1.pipeline.graph import Node, plan, run, show
from lightning_r1.pipeline.runners import Command

SECONDS = 30.0  # until a test that waits for what never comes gives up


class Runner:
    """Leaves what a training run leaves, and remembers whom it ran; ``fails`` stops in the middle of a node."""

    def __init__(self, *, fails: str = "", error: type[BaseException] = KeyboardInterrupt) -> None:
        self.ran: list[str] = []
        self.fails, self.error = fails, error

    def __call__(self, name: str, command: Command, lock: int) -> None:
        folder = folder_of(command)
        assert folder.name == name
        self.ran.append(name)
        (folder / "checkpoint").write_text(f"of the {len(self.ran)}th run of this runner")
        if name == self.fails:
            raise self.error
        (folder / "summary.json").write_text(json.dumps({"after": {"eval/a/pass@1": 0.5}}))


def folder_of(command: Command) -> Path:
    """Where a command is told to write."""
    said = dict(override.split("=", 1) for override in command.overrides)
    return Path(said["paths.output_dir"]) / said["name"]


def node(folder: Path, name: str, key: str, **parents: str) -> Node:
    command = Command("train", (f"paths.output_dir={folder}", f"name={name}"))
    parent_keys = {path: f"key of {parent}" for path, parent in parents.items()}
    return Node(name, command, {"paths": {"run_dir": str(folder / name)}}, parents, parent_keys, key)


def visible(folder: Path) -> list[str]:
    """Names of what a person sees there; a node's lock stays beside it."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_a_node_leaves_what_it_was_made_from(tmp_path: Path) -> None:
    nodes = [node(tmp_path, "base", "aaa"), node(tmp_path, "rl", "bbb", **{"model.path": "base"})]
    results = run(nodes, Runner())
    left = manifest(tmp_path / "rl")
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", left.pop("commit"))
    assert left.pop("versions")["torch"] == version("torch")
    assert left.pop("seconds") == results["rl"]["seconds"] >= 0
    # a node that is there already says how long it took to make
    file = tmp_path / "rl" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 123.4}))
    assert run(nodes, Runner())["rl"] == {**results["rl"], "status": "cached", "seconds": 123.4}
    assert left == {
        "node": "rl",
        "key": "bbb",
        "status": "done",
        "parents": {"model.path": {"node": "base", "key": "key of base"}},
        "command": f"python recipes/train.py paths.output_dir={tmp_path} name=rl",
        "template_fingerprint": None,
    }
    assert results.keys() == {"base", "rl"}
    seconds = results["rl"].pop("seconds")
    assert seconds >= 0
    assert results["rl"] == {
        "key": "bbb",
        "status": "done",
        "path": str(tmp_path / "rl"),
        "eval": {"eval/a/pass@1": 0.5},
    }
    assert not list(tmp_path.rglob("*.partial"))


def test_a_manifest_names_the_template_of_the_model_that_was_left(tmp_path: Path) -> None:
    def runner(name: str, command: Command, lock: int) -> None:
        assert manifest(tmp_path / "base")["template_fingerprint"] is None  # not before there is a model
        (tmp_path / "base" / "model").mkdir()
        (tmp_path / "base" / "model" / "lightning_r1.json").write_text('{"template_fingerprint": "abc"}')
        (tmp_path / "base" / "summary.json").write_text("{}")

    run([node(tmp_path, "base", "aaa")], runner)
    assert manifest(tmp_path / "base")["template_fingerprint"] == "abc"


def test_nodes_run_in_order(tmp_path: Path) -> None:
    runner = Runner()
    run([node(tmp_path, name, name) for name in ("c", "a", "b")], runner)
    assert runner.ran == ["c", "a", "b"]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    nodes = [node(tmp_path, "base", "aaa"), node(tmp_path, "rl", "bbb")]
    first = run(nodes, Runner())
    before = contents(tmp_path)
    again = Runner()
    results = run(nodes, again)
    assert again.ran == []
    assert contents(tmp_path) == before
    assert [result["status"] for result in results.values()] == ["cached", "cached"]
    assert [result["eval"] for result in results.values()] == [result["eval"] for result in first.values()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_node_goes_on_in_its_folder(error: type[BaseException], tmp_path: Path) -> None:
    nodes = [node(tmp_path, name, name * 3) for name in "abc"]
    with pytest.raises(error):
        run(nodes, Runner(fails="b", error=error))
    assert manifest(tmp_path / "b")["status"] == "running"
    assert not (tmp_path / "c").exists()

    class Resuming(Runner):
        def __call__(self, name: str, command: Command, lock: int) -> None:
            found.extend(path.read_text() for path in folder_of(command).glob("checkpoint"))
            super().__call__(name, command, lock)

    found: list[str] = []
    resuming = Resuming()
    results = run(nodes, resuming)
    assert resuming.ran == ["b", "c"]
    assert found == ["of the 2th run of this runner"]
    assert [result["status"] for result in results.values()] == ["cached", "done", "done"]
    assert visible(tmp_path) == ["a", "b", "c"]


def test_a_node_that_stopped_before_its_end_is_not_done(tmp_path: Path) -> None:
    # a time limit ends a training without an error, and without a summary
    nodes = [node(tmp_path, "base", "aaa"), node(tmp_path, "rl", "bbb")]
    with pytest.raises(RuntimeError, match=r"base .*again"):
        run(nodes, lambda name, command, lock: None)
    assert manifest(tmp_path / "base")["status"] == "running"
    assert not (tmp_path / "rl").exists()
    runner = Runner()
    run(nodes, runner)
    assert runner.ran == ["base", "rl"]


def test_a_node_whose_summary_is_gone_is_made_whole_again(tmp_path: Path) -> None:
    nodes = [node(tmp_path, "base", "aaa")]
    run(nodes, Runner())
    (tmp_path / "base" / "summary.json").unlink()
    runner = Runner()
    assert run(nodes, runner)["base"]["status"] == "done"
    assert runner.ran == ["base"]


def test_a_folder_of_another_key_is_moved_aside_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run([node(tmp_path, "base", "aaa")], Runner())
    before = contents(tmp_path / "base")
    capsys.readouterr()
    run([node(tmp_path, "base", "bbb")], Runner())
    assert contents(tmp_path / "base.aaa") == before
    assert manifest(tmp_path / "base")["key"] == "bbb"
    assert f"{tmp_path / 'base'} was made from something else and is moved to {tmp_path / 'base.aaa'}" in said(capsys)


def test_folders_moved_aside_do_not_replace_each_other(tmp_path: Path) -> None:
    for key in ("aaa", "bbb", "aaa", "bbb", "aaa"):
        run([node(tmp_path, "base", key)], Runner())
    names = {name: manifest(tmp_path / name)["key"] for name in visible(tmp_path)}
    assert names == {"base": "aaa", "base.aaa": "aaa", "base.bbb": "bbb", "base.aaa+": "aaa", "base.bbb+": "bbb"}


def test_a_folder_that_no_pipeline_made_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.txt").write_text("made by hand")
    run([node(tmp_path, "base", "aaa")], Runner())
    (aside,) = tmp_path.glob("base.*")
    assert re.fullmatch(r"base\.\d{8}-\d{6}", aside.name)
    assert (aside / "mine.txt").read_text() == "made by hand"
    assert not (tmp_path / "base" / "mine.txt").exists()


def test_a_kill_between_a_node_and_its_manifest_is_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, replace = [node(tmp_path, "base", "aaa")], os.replace

    def die_when_done(path: Path, target: Path) -> None:
        if '"done"' in path.read_text():
            raise KeyboardInterrupt
        replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die_when_done)
        with pytest.raises(KeyboardInterrupt):
            run(nodes, Runner())
    assert manifest(tmp_path / "base")["status"] == "running"
    runner = Runner()
    assert run(nodes, runner)["base"]["status"] == "done"
    assert runner.ran == ["base"]


def test_the_plan_says_what_is_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [node(tmp_path, "base", "aaa"), node(tmp_path, "rl", "bbb", **{"model.path": "base"})]
    run(nodes[:1], Runner())
    capsys.readouterr()
    show(nodes)
    rows = [[cell.strip() for cell in line.split("│")[1:6]] for line in capsys.readouterr().out.splitlines()]
    assert ["base", "train", "-", "cached", ""] in rows
    assert ["rl", "train", "base", "to run", ""] in rows


class Together:
    """Nodes of ``meet`` go on only when all of them run; who ran, and how many at once at most."""

    def __init__(self, needs: dict[str, set[str]], *meet: str) -> None:
        self.needs, self.meet, self.barrier = needs, meet, threading.Barrier(max(1, len(meet)))
        self.ended: set[str] = set()
        self.running = self.most = 0
        self.counting = threading.Lock()

    def __call__(self, name: str, command: Command, lock: int) -> None:
        with self.counting:
            self.running += 1
            self.most = max(self.most, self.running)
            assert self.needs.get(name, set()) <= self.ended, f"{name} before what it needs"
        if name in self.meet:
            self.barrier.wait(SECONDS)
        with self.counting:
            self.running -= 1
            self.ended.add(name)
        (folder_of(command) / "summary.json").write_text("{}")


def diamond(folder: Path) -> list[Node]:
    return [
        node(folder, "base", "aaa"),
        node(folder, "left", "bbb", model="base"),
        node(folder, "right", "ccc", model="base"),
        node(folder, "last", "ddd", model="left", judge="right"),
    ]


def test_nodes_run_at_once_where_their_needs_allow_it(tmp_path: Path) -> None:
    needs = {"left": {"base"}, "right": {"base"}, "last": {"left", "right"}}
    runner = Together(needs, "left", "right")
    results = run(diamond(tmp_path), runner, workers=4)
    assert runner.ended == {"base", "left", "right", "last"}
    assert runner.most == 2
    assert list(results) == ["base", "left", "right", "last"]  # in whatever order they ended
    assert [result["status"] for result in results.values()] == ["done"] * 4


def test_no_more_nodes_than_workers_run_at_once(tmp_path: Path) -> None:
    runner = Together({}, "a", "b")
    run([node(tmp_path, name, name) for name in "abcdef"], runner, workers=2)
    assert (runner.most, runner.ended) == (2, set("abcdef"))


def test_one_worker_is_the_thread_that_calls(tmp_path: Path) -> None:
    # signals, and with them Ctrl-C, reach only the main thread
    threads: list[threading.Thread] = []

    class Watching(Runner):
        def __call__(self, name: str, command: Command, lock: int) -> None:
            threads.append(threading.current_thread())
            super().__call__(name, command, lock)

    run([node(tmp_path, name, name) for name in "ab"], Watching())
    assert threads == [threading.current_thread()] * 2


def test_a_failure_lets_what_runs_end_and_starts_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node(tmp_path, "bad", "aaa"),
        node(tmp_path, "slow", "bbb"),
        node(tmp_path, "of_bad", "ccc", model="bad"),
        node(tmp_path, "of_slow", "ddd", model="slow"),
        node(tmp_path, "other", "eee"),
    ]
    slow_began, failure_seen, wait = threading.Event(), threading.Event(), graph.wait

    def watched_wait(futures: Any, **how: Any) -> Any:
        if len(list(futures)) == 1:  # the bad one was taken away from the two
            failure_seen.set()
        return wait(futures, **how)

    class Failing(Runner):
        def __call__(self, name: str, command: Command, lock: int) -> None:
            if name == "slow":
                slow_began.set()
                assert failure_seen.wait(SECONDS)
            elif name == "bad":
                assert slow_began.wait(SECONDS)
            super().__call__(name, command, lock)

    monkeypatch.setattr(graph, "wait", watched_wait)
    runner = Failing(fails="bad", error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        run(nodes, runner, workers=2)
    assert runner.ran == ["bad", "slow"]
    assert visible(tmp_path) == ["bad", "slow"]
    assert [manifest(tmp_path / name)["status"] for name in ("bad", "slow")] == ["running", "done"]

    # what ended is kept
    again = Runner()
    statuses = {name: result["status"] for name, result in run(nodes, again).items()}
    assert again.ran == ["bad", "of_bad", "of_slow", "other"]
    assert [name for name, status in statuses.items() if status == "cached"] == ["slow"]


def test_two_pipelines_at_once_run_each_node_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, waits = threading.Event(), threading.Event()
    ran: list[str] = []
    results: dict[str, Any] = {}

    def runner(name: str, command: Command, lock: int) -> None:
        ran.append(name)
        began.set()
        if ran.count(name) > 1:  # it is seen at the end
            waits.set()
        assert waits.wait(SECONDS), "nobody waited for this node"
        (folder_of(command) / "summary.json").write_text("{}")

    def told(*message: Any, **how: Any) -> None:
        if "base is being run by another process" in str(message[0]):
            waits.set()

    def start(name: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.update({name: run(diamond(tmp_path), runner)}))
        thread.start()
        return thread

    monkeypatch.setattr(graph.console, "print", told)
    first = start("first")
    assert began.wait(SECONDS)
    second = start("second")
    for thread in (first, second):
        thread.join(SECONDS)
    assert sorted(ran) == ["base", "last", "left", "right"]
    assert (results["first"]["base"]["status"], results["second"]["base"]["status"]) == ("done", "cached")
    for name in ("left", "right", "last"):
        assert {results[pipeline][name]["status"] for pipeline in results} == {"done", "cached"}


# a diamond: both branches start from the base, and the last takes from both
DIAMOND: dict[str, Any] = {
    "base": {"overrides": ["steps=1"]},
    "left": {"overrides": ["steps=2"], "inputs": {"model": "base/model"}},
    "right": {"overrides": ["steps=3"], "inputs": {"model": "base/model"}},
    "last": {"overrides": ["steps=2"], "inputs": {"model": "left/model", "judge": "right/model"}},
}


@pytest.fixture
def tiny_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's config is what its overrides say."""

    def compose(config_name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
        said = dict(override.split("=", 1) for override in overrides)
        output, name = said.pop("paths.output_dir"), said.pop("name")
        return {
            "seed": 0,
            "logger": "",
            "threads": 1,
            **said,
            "name": name,
            "paths": {"output_dir": output, "run_dir": f"{output}/{name}"},
        }

    monkeypatch.setattr(graph, "compose_config", compose)


def planned(output: Path, *extra: str, **overrides: str) -> list[Node]:
    """Plan the diamond; ``overrides`` adds one to a node."""
    nodes = {
        name: {**spec, "overrides": [*spec["overrides"], *([overrides[name]] if name in overrides else [])]}
        for name, spec in DIAMOND.items()
    }
    return plan({"name": "test", "nodes": nodes}, output_dir=str(output), extra=list(extra))


def keys(nodes: list[Node]) -> dict[str, str]:
    return {node.name: node.key for node in nodes}


@pytest.mark.usefixtures("tiny_configs")
def test_a_node_runs_the_verb_that_it_names(tmp_path: Path) -> None:
    spec = {"a": {"overrides": ["steps=1"]}, "b": {"verb": "sample", "overrides": ["steps=1"]}}
    a, b = plan({"name": "test", "nodes": spec}, output_dir=str(tmp_path), extra=["seed=1"])
    assert a.key != b.key
    assert b.command == Command("sample", ("steps=1", "seed=1", f"paths.output_dir={tmp_path}", "name=test/b"))


@pytest.mark.usefixtures("tiny_configs")
def test_a_plan_fills_inputs_and_names_folders(tmp_path: Path) -> None:
    nodes = {node.name: node for node in planned(tmp_path)}
    assert list(nodes) == ["base", "left", "right", "last"]
    last = nodes["last"]
    assert last.parents == {"model": "left", "judge": "right"}
    assert last.parent_keys == {"model": nodes["left"].key, "judge": nodes["right"].key}
    assert last.command.verb == "train"
    assert last.folder == tmp_path / "test" / "last"
    assert last.config["model"] == f"{tmp_path}/test/left/model"
    assert last.config["judge"] == f"{tmp_path}/test/right/model"
    assert nodes["base"].parents == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny_configs")
def test_every_node_has_a_key_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first = keys(planned(tmp_path / "here"))
    assert len(set(first.values())) == 4
    assert keys(planned(tmp_path / "there")) == first


@pytest.mark.usefixtures("tiny_configs")
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("base", ["base", "left", "right", "last"]),
        ("left", ["left", "last"]),
        ("right", ["right", "last"]),
        ("last", ["last"]),
    ],
)
def test_a_changed_node_runs_again_with_its_descendants_alone(
    changed: str, expected: list[str], tmp_path: Path
) -> None:
    before, runner = planned(tmp_path), Runner()
    run(before, Runner())
    results = run(planned(tmp_path, **{changed: "lr=0.25"}), runner)
    assert runner.ran == expected
    assert [name for name, result in results.items() if result["status"] == "done"] == expected
    aside = [name for name in visible(tmp_path / "test") if "." in name]
    assert aside == sorted(f"{name}.{keys(before)[name]}" for name in expected)


@pytest.mark.usefixtures("tiny_configs")
def test_overrides_for_every_node(tmp_path: Path) -> None:
    nodes = planned(tmp_path, "seed=7", "logger=csv", left="seed=1")
    assert [(node.config["seed"], node.config["logger"]) for node in nodes] == [("7", "csv")] * 4
    assert keys(nodes).items().isdisjoint(keys(planned(tmp_path)).items())
    # what only looks on makes nothing anew
    assert keys(planned(tmp_path, "logger=csv", "threads=2")) == keys(planned(tmp_path))


def test_the_miniature_is_planned_from_its_real_configs(tmp_path: Path) -> None:
    pipeline = compose_config("pipeline", ["pipeline=mini"])["pipeline"]
    nodes = plan(pipeline, output_dir=str(tmp_path), extra=["logger=csv", "seed=7"])
    base, r1_zero = nodes[:2]
    assert (base.name, r1_zero.name) == ("base", "r1_zero")
    assert r1_zero.parents == {"model.path": "base"}
    assert r1_zero.config["model"]["path"] == f"{base.folder}/model" == f"{tmp_path}/mini/base/model"
    # each takes the overrides that its verb knows: lessons have no randomness
    taken = {node.command.verb: set(node.command.overrides) & {"logger=csv", "seed=7"} for node in nodes}
    assert taken == {"train": {"logger=csv", "seed=7"}, "sample": {"logger=csv", "seed=7"}, "teach": {"logger=csv"}}
    for node in nodes:
        assert node.config.get("logger") == {"wandb": None}, node.name
        assert node.config.get("seed") == (7 if node.command.verb != "teach" else None), node.name


def test_an_override_for_no_node_is_refused(tmp_path: Path) -> None:
    spec = {"name": "test", "nodes": {"base": {"overrides": ["experiment=mini_base"]}}}
    with pytest.raises(ConfigError, match=r"overrides=sed=1: no node has such a key"):
        plan(spec, output_dir=str(tmp_path), extra=["logger=csv", "sed=1"])
    with pytest.raises(ConfigError, match=r"pipeline\.nodes\.base: optim\.l: there is no such key"):
        plan(spec, output_dir=str(tmp_path), extra=["optim.l=1"])


def test_every_phase_of_the_miniature_begins_with_the_model_of_the_paper(tmp_path: Path) -> None:
    pipeline = compose_config("pipeline", ["pipeline=mini"])["pipeline"]
    nodes = {node.name: node for node in plan(pipeline, output_dir=str(tmp_path), extra=[])}
    begins = {name: node.parents["model.path"] for name, node in nodes.items() if "model.path" in node.parents}
    assert begins.items() >= {
        "r1_zero": "base",
        "cold_start": "base",
        "reasoning_rl": "cold_start",
        "no_language_reward": "cold_start",
        "rejection_sft": "base",  # from the base again, not from the RL checkpoint whose traces it learns
        "all_scenarios_rl": "rejection_sft",
        "helpful": "base",
        "harmless": "base",
        "student_sft": "student_base",
        "student_kd": "student_base",
        "student_rl": "student_base",
    }.items()  # fmt: skip
    for name, node in nodes.items():
        assert node.parent_keys == {path: nodes[parent].key for path, parent in node.parents.items()}, name
    assert (nodes["rejection_traces"].command.verb, nodes["lessons"].command.verb) == ("sample", "teach")

    # and its manifest proves it
    graph.write_manifest(nodes["rejection_sft"], status="running")
    assert manifest(nodes["rejection_sft"].folder)["parents"] == {
        "model.path": {"node": "base", "key": nodes["base"].key},
        "data.sources.traces.path": {"node": "rejection_traces", "key": nodes["rejection_traces"].key},
    }


BASE: dict[str, Any] = {"overrides": ["experiment=mini_base"]}
RL: dict[str, Any] = {"overrides": ["experiment=mini_r1_zero"]}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            {"rl": {**RL, "inputs": {"model.path": "base/model"}}},
            r"pipeline\.nodes\.rl\.inputs\.model\.path: 'base' is no node before 'rl'",
        ),
        # whichever comes first in a circle needs one that does not come before it
        (
            {"a": {**RL, "inputs": {"model.path": "b/model"}}, "b": {**RL, "inputs": {"model.path": "a/model"}}},
            r"pipeline\.nodes\.a\.inputs\.model\.path: 'b' is no node before 'a'",
        ),
        (
            {"a": {**RL, "inputs": {"model.path": "a/model"}}},
            r"pipeline\.nodes\.a\.inputs\.model\.path: 'a' is no node before 'a'",
        ),
        (
            {"a": {"verb": "sample", "overrides": ["sample=nope"]}},
            r"pipeline\.nodes\.a: sample=nope: there is no such choice",
        ),
        ({"a": {"overrides": ["experiment=nope"]}}, r"pipeline\.nodes\.a: experiment=nope: there is no such choice"),
        (
            {"base": BASE, "a": {**RL, "inputs": {"model.pth": "base/model"}}},
            r"pipeline\.nodes\.a: model\.pth: there is no such key; did you mean model\.path\?",
        ),
        (
            {"base": BASE, "a": {"overrides": [*RL["overrides"], "optim.lr=fast"]}},
            r"pipeline\.nodes\.a: optim\.lr='fast': expected a number",
        ),
    ],
    ids=[
        "no such node",
        "a circle",
        "itself",
        "no such choice of a verb",
        "no such choice",
        "no such input",
        "a wrong value in a later node",
    ],
)
def test_what_cannot_run_is_refused_by_name_before_anything_runs(
    nodes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan({"name": "test", "nodes": nodes}, output_dir=str(tmp_path), extra=[])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
