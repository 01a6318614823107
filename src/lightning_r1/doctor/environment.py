"""What is installed, what the machine has, and where the run will write."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement

from lightning_r1.callbacks.wandb_log import logged_in
from lightning_r1.config.build import check as check_config
from lightning_r1.config.checks import get
from lightning_r1.config.run_folder import SUMMARY, provenance
from lightning_r1.doctor.findings import Finding, NotChecked, check, failed, ok, warning
from lightning_r1.doctor.memory import checkpoint_bytes
from lightning_r1.doctor.patient import Patient
from lightning_r1.doctor.units import gib

_SHOWN = ("torch", "transformers", "lightning")


@check("config")
def config_can_be_run(patient: Patient) -> Iterator[Finding]:
    """Every rule and every signature."""
    check_config(patient.config)
    yield ok(f"phase {patient.config['phase']['name']} of {patient.config['model']['name']} passes every rule")


@check("versions")
def versions_are_those_asked_for(patient: Patient) -> Iterator[Finding]:
    """Of Python and of what the package needs, and the extras that this config asks for."""
    wrong = False
    for line in requires("lightning-r1") or ():
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            yield failed(f"{need.name} is not installed", f"pip install '{need.name}{need.specifier}'")
            wrong = True
            continue
        if not need.specifier.contains(found, prereleases=True):
            yield warning(f"{need.name} is {found}, tested with {need.specifier}", f"pip install '{line}'")
            wrong = True
    if not wrong:
        shown = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
        yield ok(f"Python {platform.python_version()}, {shown}: all as asked for")
    optimizer, rollout = (str(get(patient.config, f"{name}._target_")) for name in ("optim", "rollout"))
    for module, extra, asked in (
        ("flash_attn", "flash", get(patient.config, "model.attention") == "flash"),
        ("bitsandbytes", "bnb", "8bit" in optimizer),
        ("vllm", "vllm", "vllm" in rollout),
    ):
        if asked and importlib.util.find_spec(module) is None:
            yield failed(f"{module} is asked for and not installed", f"pip install 'lightning-r1[{extra}]'")


@check("devices")
def devices_are_there(patient: Patient) -> Iterator[Finding]:
    """As many as asked for, and able to calculate in the type asked for."""
    trainer, found = patient.config["trainer"], torch.cuda.device_count()
    accelerator, asked = trainer["accelerator"], trainer["devices"]
    on_cpu = accelerator == "cpu" or not found
    if accelerator in ("gpu", "cuda") and not found:
        yield failed(f"trainer.accelerator={accelerator}: there is no GPU here", "trainer.accelerator=cpu, or a GPU")
    elif on_cpu:
        threads = patient.config["threads"] or torch.get_num_threads()
        told = f"no GPU is used: a CPU with {os.cpu_count()} cores, {threads} threads of torch"
        if accelerator == "cpu":
            yield ok(told)
        elif (gpu := patient.options["gpu"]) != "here":
            yield ok(f"{told}; memory and time are estimated for {patient.ranks} x {gpu}")
        else:
            yield warning(told, "run the doctor where the run will be, or say gpu=h100 (or another of conf/gpu)")
    else:
        names = {torch.cuda.get_device_name(index) for index in range(found)}
        enough = not isinstance(asked, int) or asked <= found
        told = f"{found} GPU(s) here ({', '.join(names)}), trainer.devices={asked}"
        yield ok(told) if enough else failed(told, f"trainer.devices={found}")
    if "bf16" in str(trainer["precision"]) or patient.config["model"]["dtype"] == "bfloat16":
        if on_cpu:
            yield warning("bfloat16 on a CPU: it works, slowly", "model.dtype=float32 trainer.precision=32-true")
        elif not torch.cuda.is_bf16_supported():
            yield failed("this GPU has no bfloat16", "model.dtype=float32 trainer.precision=32-true")


@check("run folder")
def the_folder_can_hold_the_run(patient: Patient) -> Iterator[Finding]:
    """Whose it is, whether it can be written, and whether the disk is large enough."""
    folder = Path(patient.config["paths"]["run_dir"])
    if (folder / SUMMARY).is_file() and patient.config["resume"] != "never":
        yield warning(f"{folder} holds a finished run, which is not trained again", "another name=, or resume=never")
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield failed(f"{there} cannot be written", "paths.output_dir=<a folder of yours>")
        return
    free, keep = shutil.disk_usage(there).free, patient.config["callbacks"]["checkpoint"]["keep"]
    try:
        one = checkpoint_bytes(patient)
    except NotChecked:
        yield warning(f"{gib(free)} are free at {there}; the size of a checkpoint is not known")
        return
    # the next one is written before the oldest is removed; the exported model is smaller than one
    needed = (keep + 2) * one
    told = f"{keep} checkpoints of {gib(one)}, one more while it is written, and the model: {gib(needed)}"
    if needed > free:
        yield failed(f"{told}; only {gib(free)} are free at {there}", "callbacks.checkpoint.keep=1, or another disk")
    else:
        yield ok(f"{told}; {gib(free)} are free at {there}")


@check("logging")
def somebody_will_read_it(patient: Patient) -> Iterator[Finding]:
    """W&B and the source's state."""
    wandb = get(patient.config, "logger.wandb")
    if wandb is None:
        yield ok("numbers go to metrics.csv alone")
    elif wandb.get("mode") == "online" and not logged_in():
        yield failed("logger.wandb.mode=online, and nobody is logged in to W&B", "wandb login, or logger=csv")
    elif logged_in() and wandb.get("mode") != "offline":
        yield ok(f"W&B online, project {wandb['project']}")
    else:
        yield ok("W&B offline: the run says how to upload it later")
    commit = provenance()["commit"]
    if commit == "unknown":
        yield warning("the source is in no git repository: summary.json cannot name its state")
    elif commit.endswith("+"):
        yield warning(f"the source differs from commit {commit[:-1]}: the run cannot be repeated from it", "git commit")
    else:
        yield ok(f"source at commit {commit}")
