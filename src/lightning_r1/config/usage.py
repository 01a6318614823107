"""What a recipe says of itself: its help, and the shell function that completes its keys and choices."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from hydra import compose
from hydra._internal.utils import get_args_parser

from lightning_r1.config.conf_dir import CONF, choices, conf_dir, groups

_WIDTH, _INDENT = 118, 28

_MORE = """\
Any key of a group can be set: optim.lr=1e-6 algo.clip_high=0.28. A key that is not there yet takes a +, ~key removes
one. --cfg job prints every key with its value; --multirun makes a run of each of several: optim.lr=1e-6,3e-6 name=a,b.
HYDRA_FULL_ERROR=1 shows whole stacks. Completion of groups, choices and keys by TAB, in bash or zsh:
    eval "$({program} --shell-completion install=bash)\""""

_COMPLETION = """\
_lightning_r1() {
    local line="${COMP_LINE:0:COMP_POINT}" word program rest
    local words=($line)
    case "${words[0]##*/}" in
        lightning-r1) program=("${words[0]}") ;;
        python*)
            case "${words[1]}" in
                -m) [[ "${words[2]}" == lightning_r1 ]] || return
                    program=("${words[@]:0:3}") ;;
                */recipes/*.py|recipes/*.py) program=("${words[@]:0:2}") ;;
                *) return ;;
            esac ;;
        *) return ;;
    esac
    rest="$line"
    for word in "${program[@]}"; do rest="${rest#*"$word"}"; done
    [[ "$rest" == " "* ]] || return
    COMPREPLY=($(COMP_LINE="recipe$rest" "${program[@]}" --shell-completion query=bash 2> /dev/null))
    word="${line##* }"
    # where bash takes a = for the end of a word, it completes what stands behind it
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}"); fi
}
complete -o nospace -o default -F _lightning_r1 lightning-r1 python python3"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def help_text(doc: str, config_name: str, program: str, overrides: Sequence[str] = ()) -> str:
    """What a recipe is for, its groups with their choices, its own keys.

    Args:
        doc: docstring of the recipe.
        config_name: its primary config.
        program: the command before the overrides.
        overrides: they may make other choices.
    """
    with conf_dir():
        chosen = compose(config_name, overrides=list(overrides), return_hydra_config=True).hydra.runtime.choices
    lines, alone = [], []
    for group in groups():
        if group not in chosen or group.startswith("hydra"):
            continue
        if len(choices(group)) == 1 and chosen[group] is not None:
            alone.append(group)
        else:
            first = f"  {group}={chosen[group] or 'null'}"
            told = textwrap.fill(
                ", ".join(choices(group)),
                width=_WIDTH,
                initial_indent=f"{first:<{_INDENT - 1}} ",
                subsequent_indent=" " * _INDENT,
                break_on_hyphens=False,
            )
            lines.append(told)
    if lines:
        lines.insert(0, "\nGroups, as they are chosen, and what there is (group=choice):")
        lines += [f"  without a choice: {', '.join(alone)}"] if alone else []
    return "\n".join(
        [
            doc.strip(),
            *lines,
            "\nKeys beside them (key=value):",
            textwrap.indent(_own_keys(config_name), "  "),
            "",
            _MORE.format(program=program),
        ]
    )


def completion_asked(arguments: Sequence[str]) -> str | None:
    """What a shell evaluates, if a command line asks to be completed from now on, or no more; else None."""
    for shell in ("bash", "zsh"):
        for remove in (False, True):
            if f"{'uninstall' if remove else 'install'}={shell}" in arguments:
                return completion(shell, remove=remove)
    return None


def completion(shell: str, *, remove: bool = False) -> str:
    """What a shell has to evaluate so that TAB completes, or does no more.

    Hydra's own would run any Python script that stands in the command, to ask it; this one asks recipes alone.

    Args:
        shell: bash or zsh.
        remove: undo it.
    """
    if remove:
        return "complete -r lightning-r1 python python3; unset -f _lightning_r1"
    return (_ZSH if shell == "zsh" else "") + _COMPLETION


def experiments_for(line: str, config_name: str) -> list[str]:
    """What completes the last word of a command if it names an experiment: Hydra does not look into their folders.

    >>> experiments_for("recipe seed=1 experiment=r1_32b/c", "train")
    ['experiment=r1_32b/cold_start']
    """
    word = line.rpartition(" ")[2]
    key = "experiment="
    if len(word) < len("ex") or not re.search(r"\bexperiment:", (CONF / f"{config_name}.yaml").read_text()):
        return []
    if word.startswith(key):
        return [f"{key}{name}" for name in choices("experiment") if f"{key}{name}".startswith(word)]
    return [key] if key.startswith(word) else []


def options() -> set[str]:
    """What may begin with a dash: Hydra's options."""
    return {option for action in get_args_parser()._actions for option in action.option_strings}


def _own_keys(config_name: str) -> str:
    """The keys of the primary config with their comments, as they are written there."""
    text = (CONF / f"{config_name}.yaml").read_text()
    return re.sub(r"\A(?:#.*\n)*defaults:\n(?:[ \t].*\n)*\n*", "", text).strip()
