"""The stairs go down: a file imports only from floors below its own, and nothing goes in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "lightning_r1"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "types": 0,
    "functional": 1,
    "text": 1,
    "models": 2,
    "optim": 2,
    "parallel": 2,
    "remote": 2,
    "sandbox": 2,
    "data": 3,
    "rewards": 3,
    "rollout": 3,
    "experience": 4,
    "evaluation": 4,
    "modules": 5,
    "callbacks": 6,
    "config": 7,
    "train": 8,
    "sample": 8,
    "evaluate": 8,
    "report": 8,
    "export": 8,
    "teach": 8,
    "doctor": 8,
    "serve": 8,
    "pipeline": 9,
    "benchmarks": 9,
    "__main__": 10,
}

# Where each third-party library may be imported. Everything else needs the standard library alone.
THIRD_PARTY = {
    "torch": {
        "functional", "models", "optim", "parallel", "data", "rollout", "experience", "modules", "callbacks",
        "config", "doctor", "benchmarks", "export", "serve",
    },
    "lightning": {"data", "parallel", "modules", "callbacks", "config", "train", "benchmarks"},
    "transformers": {"models", "benchmarks"},
    "huggingface_hub": {"models"},
    "flash_attn": {"models"},
    "tokenizers": {"models", "benchmarks"},
    "safetensors": {"data", "models"},
    "peft": {"models"},
    "bitsandbytes": {"models", "optim"},
    "hydra": {"config"},
    "omegaconf": {"config"},
    "rich": {"callbacks", "doctor", "train", "sample", "report", "serve", "pipeline", "benchmarks"},
    "yaml": {"config"},
    "matplotlib": {"report", "benchmarks"},
    "packaging": {"doctor"},
    "trl": {"benchmarks"},
    "lingua": {"rewards"},
    "datasets": {"benchmarks", "data"},
    "jsonschema": {"rewards"},
    "referencing": {"rewards"},
    "reasoning_gym": {"data", "rewards"},
    "math_verify": {"rewards", "benchmarks"},
    "latex2sympy2_extended": {"rewards"},
    "sympy": {"rewards"},
    "vllm": {"rollout"},
    "wandb": {"callbacks"},
}  # fmt: skip


def part_of(file: Path) -> str:
    """The folder or verb that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def ours(file: Path) -> Iterator[str]:
    for name in imports(file):
        if name.startswith("lightning_r1."):
            yield name


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_only_from_lower_floors(file: Path) -> None:
    if file == PACKAGE / "__init__.py":
        assert list(ours(file)) == []
        return
    own = part_of(file)
    for name in ours(file):
        other = name.split(".")[1]
        assert other == own or FLOORS[other] < FLOORS[own], f"{file.name} (floor {FLOORS[own]}) imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_third_party_libraries_stay_in_their_place(file: Path) -> None:
    import sys

    for name in imports(file):
        library = name.split(".")[0]
        if library in sys.stdlib_module_names or library == "lightning_r1":
            continue
        assert library in THIRD_PARTY, f"{file}: {library} has no place yet"
        assert part_of(file) in THIRD_PARTY[library], f"{file}: {library} belongs in {THIRD_PARTY[library]}"


def test_no_import_goes_in_a_circle() -> None:
    graph = {file: {source for name in ours(file) if (source := source_of(name))} - {file} for file in FILES}
    done: set[Path] = set()

    def visit(file: Path, path: tuple[Path, ...]) -> None:
        assert file not in path, " -> ".join(step.name for step in (*path, file))
        if file not in done:
            for other in graph[file]:
                visit(other, (*path, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


def test_the_walk_sees_every_part() -> None:
    assert {part_of(file) for file in FILES} - {"__init__"} == set(FLOORS)
    assert any("lightning_r1.functional" in name for name in ours(PACKAGE / "modules" / "grpo.py"))


def source_of(name: str) -> Path | None:
    stem = PACKAGE.joinpath(*name.split(".")[1:])
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)
