"""``python -m lightning_r1`` lists the verbs; ``python -m lightning_r1 train experiment=mini_r1_zero`` runs one.

The verbs are the recipes: their files are the list, and the first line of each is what is said of it.
"""

from __future__ import annotations

import ast
import difflib
import os
import runpy
import sys

from lightning_r1.config.conf_dir import ROOT
from lightning_r1.config.usage import completion_asked
from lightning_r1.parallel.interruption import MISTAKEN

RECIPES = ROOT / "recipes"


def verbs() -> dict[str, str]:
    """Every recipe, and the first line of what it says of itself."""
    docs = {file.stem: ast.get_docstring(ast.parse(file.read_text())) or "" for file in sorted(RECIPES.glob("*.py"))}
    return {verb: doc.partition("\n")[0] for verb, doc in docs.items()}


def main() -> None:
    """The command."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("--shell-completion", "-sc"):
        _complete(arguments)
        return
    if verb in ("-h", "--help"):
        sys.stdout.write(_listed())
        return
    if verb not in verbs():
        close = difflib.get_close_matches(verb, verbs(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(verbs())}"
        where = "" if verbs() else f" ({RECIPES} is not there: in the repository, say pip install --editable .)"
        sys.stderr.write(f"error: {verb}: there is no such verb; {hint}{where}\n")
        sys.exit(MISTAKEN)
    _run(verb, arguments)


def _run(verb: str, arguments: list[str]) -> None:
    recipe = str(RECIPES / f"{verb}.py")
    sys.argv = [recipe, *arguments]
    runpy.run_path(recipe, run_name="__main__")


def _listed() -> str:
    width = max(map(len, verbs()), default=0)
    lines = [f"  {verb:<{width}}  {what}" for verb, what in verbs().items()]
    return "\n".join(
        [
            "lightning-r1 VERB [group=choice | key=value]...",
            "",
            *lines,
            "",
            "  lightning-r1 VERB --help                                  what a verb does, its groups and keys",
            "  lightning-r1 train experiment=mini_r1_zero                a first run",
            '  eval "$(lightning-r1 --shell-completion install=bash)"    completion by TAB, also in zsh',
            "",
        ]
    )


def _complete(arguments: list[str]) -> None:
    """Answer a shell, which gives the line in COMP_LINE: verbs first, then what the verb's recipe answers."""
    if (asked := completion_asked(arguments)) is not None:
        sys.stdout.write(f"{asked}\n")
        return
    words = os.environ.get("COMP_LINE", "").split(" ")[1:]
    if len(words) < 2:
        sys.stdout.write("\n".join(f"{verb} " for verb in verbs() if verb.startswith("".join(words))) + "\n")
    elif words[0] in verbs():
        os.environ["COMP_LINE"] = " ".join(["recipe", *words[1:]])
        _run(words[0], ["--shell-completion", *arguments])


if __name__ == "__main__":
    main()
