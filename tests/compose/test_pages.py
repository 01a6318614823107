"""What the pages say is so: commands compose, links lead somewhere, names exist, examples run.

A failure names page and line. A new program goes into ``PROGRAMS``; a Python example that needs more than this
machine has says so behind its fence's language (``NEEDS``) and is only compiled.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import yaml

from helpers import known
from helpers.pages import PAGES, ROOT, Command, Fence, Place, anchors, commands, fences, files, links, spans, text_of
from lightning_r1.config import conf_dir
from lightning_r1.config.checks import RULES
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures

PROGRAMS = {
    "setting up": {"git", "cd", "pip", "hf", "module", "export", "mkdir", "cp", "ls", "cat", "head", "curl", "apt-get"},
    "Slurm": {"sinfo", "sacctmgr", "scontrol", "srun", "squeue", "scancel", "sacct", "sbatch", "df", "ip"},
    "reading": {"tensorboard", "wandb", "tail", "less", "open"},
    "using a model": {"vllm", "lm_eval", "lighteval", "ollama", "llama-cli", "llama-server"},
}
NEEDS = {"server", "gpu", "hub", "cluster"}
"""What a Python example may need beyond this machine; it is compiled then, and not run."""
RECIPES = {file.stem for file in (ROOT / "recipes").glob("*.py")}
# a job script runs a recipe: what it is called, and what the script adds
SCRIPTS = {
    "train.sbatch": ("train", []),
    "train_with_vllm.sbatch": ("train", ["rollout=vllm_servers", "rollout.base_urls=[http://n3:20001]"]),
    "evaluate.sbatch": ("evaluate", ["eval=aime24"]),
    "pipeline.sh": ("pipeline", ["cluster=slurm"]),
}
# `...` on a page stands for a run of the reader's own
ANY_RUN = {
    "train": ["phase=r1_zero", "model=qwen2_5_1_5b", "data=countdown"],
    "doctor": ["phase=r1_zero", "model=qwen2_5_1_5b", "data=countdown"],
    "evaluate": ["model=qwen2_5_1_5b", "eval=aime24"],
    "sample": ["model=qwen2_5_1_5b", "data=countdown"],
}
ON_DISK = ("model_path_exists", "reward_models_exist")
"""Rules about what earlier commands of the page make."""
COMMANDS = [command for page in PAGES for command in commands(page)]
RUNS = [command for command in COMMANDS if command.words]


def recipe_of(command: Command) -> tuple[str, list[str]] | None:
    """The recipe that a command runs, here or as a job, and its overrides."""
    words = list(command.words)
    while words and words[0] in ("bash", "sbatch"):
        words = words[1:]
        while words and words[0].startswith("--"):
            words = words[1:]
        if words and words[0].startswith("sbatch/"):
            verb, added = SCRIPTS[words[0].removeprefix("sbatch/")]
            said = dict(variable.split("=", 1) for variable in command.environment)
            return said.get("VERB", verb), [*added, *words[1:]]
    if words and words[0] in ("python", "lightning-r1"):
        words = words[1:]
    elif not (words and words[0].startswith("recipes/")):
        return None
    if words[:2] == ["-m", "lightning_r1"]:
        words = words[2:]
    if words and words[0].removeprefix("recipes/").removesuffix(".py") in RECIPES:
        return words[0].removeprefix("recipes/").removesuffix(".py"), words[1:]
    return None


def composed(verb: str, words: list[str], *, said: bool = False) -> dict[str, Any]:
    """The config of a command; of one in running text what it leaves out is filled in."""
    overrides: list[str] = []
    for word in words:
        if word == "...":
            overrides = [*ANY_RUN[verb], *overrides]
        elif not word.startswith("-") and not re.match(r"\+?hydra[./]", word):
            word = re.sub(r"=[SN]$", "=1", word)
            # a sweep is looked at in its first point
            overrides.append(re.sub(r"(=[\w.-]+)(,[\w.-]+)+$", r"\1", word) if "--multirun" in words else word)
    while True:
        try:
            return compose_config(verb, overrides)
        except ConfigError as error:
            key, mark, _ = str(error).partition(" is not set; add ")
            if not mark or not said:
                raise
            overrides.append(f"{key}={10 if key.endswith('steps') else 'there'}")


def test_there_are_commands_of_every_kind() -> None:
    verbs = {found[0] for command in COMMANDS if (found := recipe_of(command))}
    assert verbs == RECIPES, f"no page shows how to use recipes/{RECIPES - verbs}"
    assert len(COMMANDS) > 60


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder for each page, with the files that its reader writes, and ``conf`` if it adds to it."""
    folders = {}
    for page in PAGES:
        folders[page] = folder = tmp_path_factory.mktemp(page.replace("/", "_").replace(".", "_"))
        if any(file.name and file.name.startswith("conf/") for file in files(page)):
            shutil.copytree(ROOT / "conf", folder / "conf")
        for file in files(page):
            assert file.name is not None
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.name).write_text(file.text + "\n", encoding="utf-8")
    return folders


@pytest.fixture
def at(folder_of: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Go to the folder of a page, as its reader does."""
    before = set(sys.modules)

    def go(page: str) -> Path:
        folder = folder_of[page]
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        if (folder / "conf").is_dir():
            monkeypatch.setattr(conf_dir, "CONF", folder / "conf")
        return folder

    yield go
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(tuple(map(str, folder_of.values()))):
            del sys.modules[name]


@pytest.mark.parametrize("command", RUNS, ids=str)
def test_a_command_composes(command: Command, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a recipe whose config composes, fits and breaks no rule; or a program that is known."""
    at(command.place.page)
    found = recipe_of(command)
    if found is None:
        fault = program_fault(command)
        assert not fault, f"{command.place}: {fault}"
        return
    verb, words = found
    if not words or "--help" in words:
        return  # the name of a recipe, not a run of it
    config = composed(verb, words, said=command.said)
    check_signatures(config)
    if verb in ("train", "doctor"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin="somewhere"))  # extras
        for rule in RULES:
            if rule.__name__ not in ON_DISK:
                rule(config)


def program_fault(command: Command) -> str:
    """What is wrong with a command that is no recipe; empty if nothing is."""
    program, *rest = command.words
    if "..." in rest or (command.said and not rest):
        return ""
    if program == "make":
        targets = re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE)
        wrong = [word for word in rest if "=" not in word and word not in targets]
        return f"make {wrong[0]}: there is no such target in the Makefile" if wrong else ""
    if program == "python" and rest[:1] == ["-m"]:
        return module_fault(rest[1], rest[2:])
    if program in ("bash", "sbatch") and (script := next((word for word in rest if not word.startswith("-")), "")):
        return "" if (ROOT / script).is_file() else f"{script}: there is no such script"
    if program in ("python", "bash") or program.startswith("recipes/"):
        script = rest[0] if rest and not program.startswith("recipes/") else program
        written = {file.name for file in files(command.place.page)}
        return "" if script in written or (ROOT / script).is_file() else f"{script}: there is no such script"
    if program == "eval":  # of what a shell completes
        known = [f"$(lightning-r1 --shell-completion install={shell})" for shell in ("bash", "zsh")]
        return "" if rest in ([one] for one in known) else f'eval {" ".join(rest)}: write eval "{known[0]}"'
    if any(program in names for names in PROGRAMS.values()):
        return ""
    return f"{program} is no program that the pages use; correct it, or add it to PROGRAMS in {Path(__file__).name}"


def module_fault(module: str, words: list[str]) -> str:
    """A module of ours knows the options that it is given."""
    if module.partition(".")[0] != "lightning_r1":
        return "" if importlib.util.find_spec(module.partition(".")[0]) else f"python -m {module}: not installed"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return f"python -m {module}: there is no such module"
    source = Path(spec.origin).read_text(encoding="utf-8")
    unknown = [word for word in words if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source]
    return f"python -m {module}: it has no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    faults = []
    for place, target in links(page):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        if not there.exists():
            faults.append(f"{place}: ({target}) leads nowhere; paths are relative to {Path(page).parent}/")
        elif anchor and there.suffix == ".md":
            name = str(there.resolve().relative_to(ROOT))
            if anchor not in anchors(name):
                faults.append(f"{place}: {name} has no heading #{anchor}; {known.nearest(anchor, anchors(name))}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_in_code_exists(page: str) -> None:
    written = {file.name for file in files(page) if file.name}
    faults = [f"{span.place}: {fault}" for span in spans(page) for fault in known.faults(span.text, written)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("algo.kl_coeff=0", r"algo\.kl_coeff: there is no such key in conf/; did you mean algo\.kl_coef\?"),
        ("model=qwen3 algo=dappo", r"algo=dappo: there is no conf/algo/dappo\.yaml; did you mean dapo\?"),
        ("reward=rules|rulez", r"reward=rulez: there is no conf/reward/rulez\.yaml"),
        ("src/lightning_r1/trian.py", r"did you mean src/lightning_r1/train\.py\?"),
        ("rollout/think_length_men", "nothing is logged under this name"),
        ("lightning_r1.rewards.length.Cosine", "no such name in the package"),
    ],
)
def test_what_does_not_exist_is_told_with_the_nearest_that_does(text: str, fault: str) -> None:
    assert re.search(fault, " ".join(known.faults(text, set())))


def test_what_is_a_readers_own_is_left_alone() -> None:
    for text in ("reward.rewards.short._target_", "+algo.new=1", "completion.text", "data.jsonl", "model=MINE"):
        assert not list(known.faults(text, set()))
    assert not list(known.faults("model=mine conf/model/mine.yaml", {"conf/model/mine.yaml"}))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("make demoo", "make demoo: there is no such target"),
        ("trian --fast", "trian is no program that the pages use"),
        ("python -m lightning_r1.rollout.serve_vllm RUN/model --porto 1", "it has no option --porto"),
        ("python -m lightning_r1.nothing x", "there is no such module"),
        ("bash sbatch/pipelines.sh x", "sbatch/pipelines.sh: there is no such script"),
    ],
)
def test_a_program_that_is_not_known_is_told(line: str, fault: str) -> None:
    assert fault in program_fault(Command(Place("README.md", 1), (), tuple(line.split()), said=False))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_fill_in(page: str) -> None:
    assert "@@" not in text_of(page)


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page: str, at: Any) -> None:
    """Every example, in the order of the page, in one namespace."""
    at(page)
    namespace: dict[str, Any] = {"__name__": "page"}
    for fence in fences(page):
        if fence.language not in ("python", "py"):
            continue
        assert set(fence.marks) <= NEEDS, f"{fence.place}: expected at most one of {NEEDS} behind the language"
        code = compile(fence.text, str(fence.place), "exec", dont_inherit=True)
        if not fence.marks:
            exec(code, namespace)


DATA = [fence for page in PAGES for fence in files(page) if fence.language == "jsonl"]


@pytest.mark.parametrize("fence", DATA, ids=lambda fence: f"{fence.place} {fence.name}")
def test_a_data_file_is_read_by_what_reads_it(fence: Fence, at: Any) -> None:
    """By what a command of the page gives it to."""
    at(fence.place.page)
    readers = [
        node
        for command in commands(fence.place.page)
        if (found := recipe_of(command)) and any(word.endswith(f"={fence.name}") for word in found[1])
        for node in readers_of(composed(*found), fence.name)
    ]
    assert readers, f"{fence.place}: no command of the page reads {fence.name}; give one"
    for reader in readers:
        assert list(hydra.utils.instantiate(reader)), f"{fence.place}: {reader['_target_']} found nothing in it"


def readers_of(node: Any, name: str | None) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        if "_target_" in node and name in node.values():
            yield node
        for value in node.values():
            yield from readers_of(value, name)


@pytest.mark.parametrize("page", PAGES)
def test_data_and_settings_can_be_read(page: str) -> None:
    for fence in fences(page):
        try:
            if fence.language == "jsonl":
                assert all(isinstance(json.loads(line), dict) for line in fence.text.splitlines() if line.strip())
            elif fence.language == "json":
                json.loads(fence.text)
            elif fence.language in ("yaml", "yml"):
                yaml.safe_load(fence.text)
        except (ValueError, AssertionError, yaml.YAMLError) as error:
            raise AssertionError(f"{fence.place}: no {fence.language} ({error})") from error
