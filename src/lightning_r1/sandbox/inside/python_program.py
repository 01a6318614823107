"""A model's Python program, run in a child of the driver that ends with it.

What differs from a plain interpreter: there are no threads (``Thread.start`` runs the thread to its end, which
serves the usual idiom of a thread for deep recursion), hashes and ``random`` have a fixed seed, and third-party
packages are not there.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import random
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

OUT_OF_MEMORY = 86
"""Exit status for a :class:`MemoryError`; a program that forges it has failed all the same."""
_RECURSION_OF_FUNCTIONS = 50_000

# What the tests of LeetCode and LiveCodeBench take for granted around a function; imported once, by the keeper.
_PRELUDE = """
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from sys import *
from json import *
from builtins import *
from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics
import itertools, functools, operator, io, sys, json
"""
_known: dict[str, Any] = {}


class _Thread(threading.Thread):
    """Runs where it is started: the sandbox allows a program one thread."""

    def start(self) -> None:
        if self._started.is_set():  # type: ignore[attr-defined]
            raise RuntimeError("threads can only be started once")
        self._started.set()  # type: ignore[attr-defined]
        try:
            self.run()
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc()

    def join(self, timeout: float | None = None) -> None:
        """It has ended already."""

    def is_alive(self) -> bool:
        return False


def prepare() -> None:
    """Import what programs usually import, once for all of them."""
    exec(compile(_PRELUDE, "prelude", "exec"), _known)
    threading.Thread = _Thread  # type: ignore[misc]
    atexit._clear()


def run_python(code: types.CodeType, function: str | None, data: bytes, value: int) -> NoReturn:
    """Run it and end the process with its exit status.

    Args:
        code: the compiled source.
        function: to be called with the JSON list ``data``; without it the program reads stdin.
        value: the descriptor that the JSON of what the function returns is written to.
    """
    status = 1
    try:
        module = types.ModuleType("__main__")
        sys.modules["__main__"], sys.argv = module, ["solution.py"]
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding="utf-8", errors="replace")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding="utf-8", errors="replace", write_through=True)
        vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
        random.seed(0)
        status = _run(code, function, data, value, module)
    except BaseException:  # printing failed: the status says it
        status = status or 1
    finally:
        os._exit(status)


def _run(code: types.CodeType, function: str | None, data: bytes, value: int, module: types.ModuleType) -> int:
    try:
        out = sys.stdout
        try:
            if function is None:
                exec(code, module.__dict__)
            else:
                _call(code, function, data, value, module)
        finally:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, out):  # the program may have put another in its place, and used both
                stream.flush()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        return 1
    return 0


def _call(code: types.CodeType, function: str, data: bytes, value: int, module: types.ModuleType) -> None:
    dumps, arguments = json.dumps, json.loads(data)
    sys.setrecursionlimit(_RECURSION_OF_FUNCTIONS)
    module.__dict__.update(_known)
    module.__dict__["__name__"] = "__main__"
    exec(code, module.__dict__)
    target = module.__dict__.get(function)
    if (not callable(target) or function in _known) and "Solution" in module.__dict__:
        target = getattr(module.__dict__["Solution"](), function)
    if target is None:
        raise NameError(f"neither a function {function!r} nor a class Solution with it")
    text = dumps(target(*arguments)).encode()
    while text:
        text = text[os.write(value, text) :]
