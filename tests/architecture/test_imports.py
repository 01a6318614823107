"""The package needs its base dependencies only."""

import subprocess
import sys

WITHOUT_EXTRAS = """
import importlib, importlib.util, pkgutil, sys
from importlib.machinery import PathFinder

class WithoutExtras(PathFinder):
    absent = {
        "flash_attn", "bitsandbytes", "vllm", "reasoning_gym", "lingua", "trl", "datasets", "accelerate",
    }

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in cls.absent else super().find_spec(name, path, target)

sys.meta_path = [WithoutExtras if finder is PathFinder else finder for finder in sys.meta_path]
assert importlib.util.find_spec("trl") is None
import lightning_r1
modules = [m.name for m in pkgutil.walk_packages(lightning_r1.__path__, "lightning_r1.")]
for name in modules:
    importlib.import_module(name)
print(len(modules))
"""

LIGHT = """
import sys
import lightning_r1.config.compose, lightning_r1.types, lightning_r1.text.templates
heavy = {"torch", "transformers", "lightning", "wandb", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_every_module_imports_without_any_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_help_does_not_wait_for_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
