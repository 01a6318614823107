"""What the experiments of ``conf/experiment`` need and take on the hardware that their headers name.

It is what :mod:`lightning_r1.doctor` estimates, for prompts and completions at their limits, of models that are
shapes: no hub is asked and nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from lightning_r1.benchmarks.preset_headers import Header, chosen, read_header
from lightning_r1.benchmarks.shapes import byte_tokenizer, shape_config
from lightning_r1.callbacks.console import console
from lightning_r1.config.compose import compose_config
from lightning_r1.data.datamodule import PromptDataModule
from lightning_r1.data.rows import Row
from lightning_r1.data.traces import TraceDataModule
from lightning_r1.doctor.memory import case_of, memory_of_device, settings_of
from lightning_r1.doctor.patient import Patient, part
from lightning_r1.doctor.search import fits, option
from lightning_r1.models.load import quiet_transformers
from lightning_r1.models.memory_estimate import Work, deep_update_peak, rollout_peak, update_peak
from lightning_r1.types import Prompt, Trace

SHAPE_OF = {
    "qwen2_5_math_1_5b": ("qwen2_5_1_5b", 4096),
    "qwen2_5_math_7b": ("qwen2_5_7b", 4096),
    "qwen2_5_coder_7b": ("qwen2_5_7b", 32768),
    "qwen2_5_3b": ("qwen2_5_3b", 32768),
    "llama3_3_70b_instruct": ("llama3_3_70b", 131072),
}
"""Shapes that are not called as the model is, and contexts that are not 131,072 tokens."""

_STEPS = 1000
_HELD_OUT = 1024  # problems: more than are decoded together


class OnPaper(Patient):
    """A run whose model has a shape and no weights, and whose prompts, traces and problems are as long as they may be.

    Args:
        config: resolved, of ``conf/doctor.yaml``.
        folder: for the model's config and a tokenizer.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self.named = config["model"]["name"]
        super().__init__({**config, "model": {**config["model"], "path": str(shape_folder(self.named, folder))}})
        self.update_peak, self.rollout_peak = _update_peak, _rollout_peak

    @part("data")
    def data(self) -> Any:
        """A single row at the limit."""
        said = self.config["data"]
        if self.kind == "reward_model":
            pairwise = "Preferences" in str(said["rows"]["_target_"])
            return SimpleNamespace(batch_size=said["batch_size"], pairwise=pairwise)
        if self.kind == "sft":
            return self._filled(
                lambda text: TraceDataModule(
                    sources={"full": [Trace("full", "x", text)]}, batch_size=said["batch_size"],
                    epochs=said["epochs"], max_tokens=said["max_tokens"], seed=0,
                ),
                said["max_tokens"],
            )  # fmt: skip
        rows = said["max_prompt_tokens"]
        return self._filled(
            lambda text: PromptDataModule(
                rows=[Row("full", text, {"kind": "number", "value": "1"})], max_prompt_tokens=rows
            ),
            rows,
        )

    def _filled(self, make: Any, tokens: int) -> Any:
        """With a text so long that the row has so many tokens."""
        short = make("x")
        short.tokenise(self.codec)
        full = make("x" * (1 + tokens - short.longest))
        full.tokenise(self.codec)
        assert full.longest == tokens
        return full

    @part("evaluation sets")
    def sets(self) -> dict[str, list[Prompt]]:
        """As many problems as can be decoded together, as long as the prompts are."""
        return {name: list(self.data.train) * _HELD_OUT for name in self.config["eval"]["sets"] or {}}

    @part("rewards")
    def rewards(self) -> Any:
        """Those that are models, without weights."""
        models = {}
        for name, reward in self.config["reward"]["rewards"].items():
            if str(reward["_target_"]).endswith(".RewardModelScore"):
                made_by = Path(reward["path"]).parent.relative_to(self.config["paths"]["output_dir"])
                models[name] = SimpleNamespace(model=_classifier(trained_by(made_by.as_posix()), reward["dtype"]))
        nothing = lambda *_: None  # noqa: E731
        return SimpleNamespace(rewards=models, expect=nothing, start=nothing, close=nothing)


_KNOWN: dict[Any, int] = {}


def _update_peak(config: Any, work: Work, **how: Any) -> int:
    """In a tenth of the time, where that is the same: where gradients of the layers before are there already."""
    key = (_dimensions(config), work, *how.items())
    if key not in _KNOWN:
        _KNOWN[key] = (deep_update_peak if how["accumulates"] else update_peak)(config, work, **how)
    return _KNOWN[key]


def _rollout_peak(config: Any, *, sample: Any, **how: Any) -> int:
    # nothing but a nucleus makes drawing a token take more
    key = (_dimensions(config), *how.items(), sample.keywords["sampling"].top_p < 1)
    if key not in _KNOWN:
        _KNOWN[key] = rollout_peak(config, sample=sample, **how)
    return _KNOWN[key]


def _dimensions(config: Any) -> tuple[int, ...]:
    return config.hidden_size, config.num_hidden_layers, config.intermediate_size, config.vocab_size


def trained_by(experiment: str) -> str:
    """The name of the model that an experiment trains."""
    return str(compose_config("train", [f"experiment={experiment}"])["model"]["name"])


def _classifier(model: str, dtype: str) -> torch.nn.Module:
    with torch.device("meta"):
        config = shape_config(_shape(model)[0], num_labels=1)
        return AutoModelForSequenceClassification.from_config(config, dtype=getattr(torch, dtype))


def _shape(model: str) -> tuple[str, int]:
    return SHAPE_OF.get(model, (model, 131072))


def shape_folder(model: str, folder: Path) -> Path:
    """A folder with what there is of a model but its weights: config and tokenizer; made once."""
    made, (shape, context) = folder / model, _shape(model)
    if not made.is_dir():
        quiet_transformers()
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)  # a stop token of presets whose model is a base
        config = shape_config(shape, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        config.max_position_embeddings = context
        config.save_pretrained(made)
        tokenizer.save_pretrained(made)
    return made


@contextmanager
def patient_of(header: Header, folder: Path, *overrides: str) -> Iterator[OnPaper]:
    """The run of a header's command on the hardware that it names.

    Args:
        header: of an experiment.
        folder: for configs and tokenizers of models.
        overrides: besides those of the command.
    """
    said = [
        *header.overrides,
        *overrides,
        f"gpu={header.gpu}",
        f"trainer.devices={header.devices}",
        f"trainer.num_nodes={header.nodes}",
        *(["rollout.base_urls=[http://server:8000]"] if header.servers else []),
    ]
    patient = OnPaper(compose_config("doctor", said), folder)
    try:
        yield patient
    finally:
        patient.close()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the doctor estimates for an experiment."""

    gib: float
    """Of a GPU, at the peak."""
    host_gib: float
    """Of the host's memory, for each GPU."""
    held_gib: float
    """Of a GPU, all that it has."""
    fits: str
    """yes, tight or no."""
    hours: float
    """For 1,000 optimizer steps, with the rollouts that they need."""


def estimate(patient: Patient) -> Estimate:
    """Ask the doctor."""
    case, memory = case_of(patient), memory_of_device(patient)
    found = option(case, settings_of(patient), patient.cluster, memory)
    assert found.time
    return Estimate(
        gib=found.needs.peak / 2**30,
        host_gib=found.host / 2**30,
        held_gib=memory / 2**30,
        fits=fits(found, memory),
        hours=found.time.total / case.batch.updates * _STEPS / 3600,
    )


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate and print a table, for headers to tell.

    Args:
        config: ``conf/benchmark/presets_on_paper.yaml``, resolved.

    Returns:
        By experiment what is estimated; and ``markdown``.

    Raises:
        ConfigError: for an experiment that there is not.
    """
    found: dict[str, Any] = {}
    lines = [
        "| experiment | GPUs | GiB of each | of the host's | fits | h / 1,000 steps |",
        "|---|---|---:|---:|---|---:|",
    ]
    with TemporaryDirectory() as folder:
        for name in chosen(config["experiments"]):
            header = read_header(name)
            with patient_of(header, Path(folder)) as patient:
                one = estimate(patient)
            found[name] = asdict(one)
            gpus = f"{header.nodes * header.devices} {header.gpu}"
            cells = f"{one.gib:.0f} | {one.host_gib:.0f} | {one.fits} | {rounded(one.hours)}"
            lines.append(f"| `{name}` | {gpus} | {cells} |")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return {"found": found, "markdown": "\n".join(lines)}


def rounded(hours: float) -> str:
    """As a header tells it: two digits that count."""
    return f"{hours:.1f}" if hours < 10 else f"{float(f'{hours:.2g}'):,.0f}"
