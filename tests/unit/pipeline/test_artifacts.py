"""A node's key: everything that its result is made from, and nothing else."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.pipeline import artifacts
from lightning_r1.pipeline.artifacts import content_key

CONFIG: dict[str, Any] = {
    "name": "mini/r1_zero",
    "seed": 0,
    "resume": "auto",
    "threads": 1,
    "paths": {"output_dir": "outputs", "run_dir": "outputs/mini/r1_zero"},
    "callbacks": {"checkpoint": {"every_n_steps": 50}},
    "logger": {"wandb": None},
    "model": {"path": "outputs/mini/base/model", "dtype": "float32"},
    "optim": {"_target_": "lightning_r1.optim.adamw.adamw", "lr": 1e-3, "betas": [0.9, 0.99]},
    "phase": {"kind": "rl", "module": {"_target_": "lightning_r1.modules.grpo.GRPO"}},
    "reward": {"rewards": {"format": {"_target_": "lightning_r1.rewards.format.Format"}}},
    "trainer": {"_target_": "lightning.pytorch.Trainer", "max_steps": 250},
}
BASE = {"model.path": "0123456789ab"}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    return config


def test_a_key_is_twelve_hex_digits_and_the_same_every_time() -> None:
    key = content_key(CONFIG, BASE)
    assert re.fullmatch(r"[0-9a-f]{12}", key)
    assert content_key(copy.deepcopy(CONFIG), dict(BASE)) == key
    # in whatever order a config was composed
    assert content_key(dict(reversed(CONFIG.items())), BASE) == key


def test_ranks_are_not_what_a_node_is_made_from() -> None:
    """Whoever asks for a pipeline, on a login node or on one with GPUs, means the same nodes."""
    ranks = {**CONFIG["trainer"], "devices": 8, "num_nodes": 2}
    sharded = {"strategy": "fsdp", "replicas": 1, "mixed_precision": None, "cpu_offload": False, "timeout_minutes": 30}
    for parallel in ({"strategy": "auto"}, sharded):
        assert content_key({**CONFIG, "trainer": ranks, "parallel": parallel}, BASE) == content_key(CONFIG, BASE)
    in_bf16 = {**CONFIG, "parallel": {**sharded, "mixed_precision": "bf16"}}
    assert content_key(in_bf16, BASE) != content_key(CONFIG, BASE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("optim.lr", 2e-3),
        ("optim.betas", [0.99, 0.9]),
        ("model.dtype", "bfloat16"),
        ("trainer.max_steps", 251),
        ("reward.rewards.accuracy", {"_target_": "lightning_r1.rewards.accuracy.Accuracy"}),
        ("reward.rewards", {}),
        ("new", None),
    ],
)
def test_a_changed_config_is_another_key(path: str, value: Any) -> None:
    assert content_key(changed(path, value), BASE) != content_key(CONFIG, BASE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other/r1_zero"),
        ("paths", {"output_dir": "/scratch", "run_dir": "/scratch/mini/r1_zero"}),
        ("callbacks.checkpoint.every_n_steps", 1),
        ("logger.wandb", {"project": "mine"}),
        ("resume", "never"),
        ("threads", 8),
        ("debug", None),
        ("trainer.devices", 8),
        ("trainer.num_nodes", 4),
        ("model.path", "/scratch/mini/base/model"),  # an input: what it was made from counts, not where it lies
    ],
)
def test_what_changes_no_number_changes_no_key(path: str, value: Any) -> None:
    assert content_key(changed(path, value), BASE) == content_key(CONFIG, BASE)


def test_a_changed_input_is_another_key() -> None:
    keys = {
        content_key(CONFIG, BASE),
        content_key(CONFIG, {"model.path": "ba9876543210"}),
        content_key(CONFIG, {**BASE, "judge.path": "0123456789ab"}),
        content_key(CONFIG, {**BASE, "judge.path": "ba9876543210"}),
        content_key(CONFIG, {"model.path": "ba9876543210", "judge.path": "0123456789ab"}),
    }
    assert len(keys) == 5


def test_a_path_that_is_no_input_counts() -> None:
    assert content_key(changed("model.path", "org/other"), {}) != content_key(CONFIG, {})


def test_the_order_of_inputs_does_not_matter() -> None:
    inputs = {"model.path": "0123456789ab", "judge.path": "ba9876543210"}
    assert content_key(CONFIG, inputs) == content_key(CONFIG, dict(reversed(inputs.items())))


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``edit(file, text)`` appends to a file of a copy of the package; ``edit.key(config, verb)`` is a key under it."""
    package = tmp_path / artifacts._PACKAGE.name
    shutil.copytree(artifacts._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return editor(package, monkeypatch)


def editor(package: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(artifacts, "_PACKAGE", package)

    def edit(file: str, text: str) -> None:
        path = package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as source:
            source.write(text)

    def key(config: dict[str, Any], verb: str = "train") -> str:
        artifacts.code_hash.cache_clear()  # it is read once a process
        try:
            return content_key(config, {}, verb=verb)
        finally:
            artifacts.code_hash.cache_clear()

    edit.key = key  # type: ignore[attr-defined]
    return edit


@pytest.mark.parametrize(
    "file",
    [
        "modules/grpo.py",  # named by the config
        "optim/adamw.py",
        "rewards/format.py",
        "modules/phase.py",  # imported by one that is named
        "functional/policy_loss.py",
        "functional/__init__.py",
        "text/tags.py",
        "types.py",
        "models/load.py",  # named by nothing, and every model comes from it
        "models/tokenizer.py",
        "train.py",  # the verb
    ],
)
def test_changed_code_that_the_node_runs_is_another_key(file: str, edit: Any) -> None:
    before = edit.key(CONFIG)
    edit(file, "\nCHANGED = 1\n")
    assert edit.key(CONFIG) != before


@pytest.mark.parametrize(
    "file",
    [
        "report/page.py",
        "benchmarks/grpo_step_vs_trl.py",
        "pipeline/graph.py",
        "callbacks/console.py",  # imported by the verb, and decides no number
        "callbacks/evaluation.py",
        "config/build.py",
        "config/compose.py",
        "sample.py",  # of another verb
        "teach.py",
        "modules/supervised.py",  # of another phase
        "data/countdown.py",
        "a_new_file.py",
    ],
)
def test_code_that_the_node_does_not_run_changes_no_key(file: str, edit: Any) -> None:
    before = edit.key(CONFIG)
    edit(file, "\n# a comment\n")
    assert edit.key(CONFIG) == before


def test_another_verb_is_another_key() -> None:
    keys = {content_key(CONFIG, BASE, verb=verb) for verb in ("train", "sample", "teach", "no_such_verb")}
    assert len(keys) == 4
    assert content_key(CONFIG, BASE) == content_key(CONFIG, BASE, verb="train")


@pytest.mark.parametrize("verb", ["train", "sample", "teach"])
def test_a_key_follows_the_code_of_its_verb_alone(verb: str, edit: Any) -> None:
    verbs = ("train", "sample", "teach")
    before = {name: edit.key(CONFIG, name) for name in verbs}
    edit(f"{verb}.py", "\nCHANGED = 1\n")
    assert [name for name in verbs if edit.key(CONFIG, name) != before[name]] == [verb]


def test_what_a_verb_imports_counts_but_not_how_it_is_shown_or_configured(sources: Any) -> None:
    sources("train.py", "from lightning_r1.callbacks.bar import bar\nfrom lightning_r1.config.read import read\n")
    sources("train.py", "from lightning_r1.report import draw\nfrom lightning_r1.steps import steps\n")
    sources("config/read.py", "from lightning_r1.deep import x\n")
    for file in ("callbacks/bar.py", "report/page.py", "deep.py", "steps.py"):
        sources(file, "")
    before = sources.key({})
    for file in ("callbacks/bar.py", "config/read.py", "report/page.py", "deep.py"):
        sources(file, "changed = 1\n")
    assert sources.key({}) == before
    sources("steps.py", "changed = 1\n")
    assert sources.key({}) != before


def test_another_node_follows_its_own_code(edit: Any) -> None:
    pretrain = changed("phase.module", {"_target_": "lightning_r1.modules.supervised.Pretrain"})
    del pretrain["reward"]
    before, of_rl = edit.key(pretrain), edit.key(CONFIG)
    edit("modules/grpo.py", "\nCHANGED = 1\n")
    assert edit.key(pretrain) == before
    assert edit.key(CONFIG) != of_rl


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of our own, empty at first; see :func:`edit`."""
    return editor(tmp_path / artifacts._PACKAGE.name, monkeypatch)


def test_every_way_to_import_is_followed(sources: Any) -> None:
    sources(
        "start.py",
        "from lightning_r1.name import thing\nfrom lightning_r1 import module\nfrom lightning_r1.part import inner\n"
        "import lightning_r1.plain\nimport torch, json\n"
        "def later():\n    from lightning_r1.late import x\n",
    )
    files = ("name.py", "module.py", "part/__init__.py", "part/inner.py", "plain.py", "late.py")
    for file in files:
        sources(file, "")
    config = {"node": {"_target_": "lightning_r1.start.Thing"}}
    seen = [sources.key(config)]
    for file in files:
        sources(file, "changed = 1\n")
        seen.append(sources.key(config))
    assert len(set(seen)) == 1 + len(files)


def test_imports_in_a_circle_come_to_an_end(sources: Any) -> None:
    sources("a.py", "from lightning_r1.b import x\n")
    sources("b.py", "from lightning_r1.c import x\n")
    sources("c.py", "from lightning_r1.a import x\n")
    config = {"node": {"_target_": "lightning_r1.a.x"}}
    before = sources.key(config)
    sources("c.py", "changed = 1\n")
    assert sources.key(config) != before


@pytest.mark.parametrize(
    "config",
    [
        {"node": {"_target_": "lightning_r1.thing.Class"}},
        {"node": {"_target_": "lightning_r1.thing.Class.method"}},
        {"nodes": [{"_target_": "lightning_r1.thing.make"}]},
        {"deep": {"deeper": [[{"deepest": {"_target_": "lightning_r1.thing.make"}}]]}},
    ],
)
def test_targets_are_found_wherever_they_stand(config: dict[str, Any], sources: Any) -> None:
    sources("thing.py", "")
    before = sources.key(config)
    sources("thing.py", "changed = 1\n")
    assert sources.key(config) != before


def test_moved_code_is_another_key(sources: Any) -> None:
    # the same bytes in another file may import other things, and be found by others
    sources("one.py", "from lightning_r1.a import x\n")
    sources("a.py", "x = 1\n")
    before = sources.key({"node": {"_target_": "lightning_r1.one.x"}})
    sources("a/__init__.py", "x = 1\n")
    (artifacts._PACKAGE / "a.py").unlink()
    assert sources.key({"node": {"_target_": "lightning_r1.one.x"}}) != before


@pytest.mark.parametrize("target", ["lightning.pytorch.Trainer", "nowhere.at.all", "lightning_r1.gone.Class", "bare"])
def test_targets_without_source_here_are_no_error(target: str) -> None:
    assert content_key({"node": {"_target_": target}}, {}) != content_key({"node": {"_target_": "other"}}, {})


def test_the_contents_of_a_file_that_a_config_names_count(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    config = {"data": {"rows": {"path": str(file)}}, "template": {"prompt": "x" * 5000}}
    absent = content_key(config, {})
    file.write_text("one")
    one = content_key(config, {})
    file.write_text("two")
    two = content_key(config, {})
    file.write_text("one")
    assert len({absent, one, two}) == 3
    assert content_key(config, {}) == one
    # what another node made is known by that node's key
    assert content_key(config, {"data.rows.path": "abc"}) == content_key(
        {**config, "data": {"rows": {"path": "y"}}}, {"data.rows.path": "abc"}
    )
