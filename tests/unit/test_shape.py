"""The shape of the code (design: house style): small modules, short functions, honest names, no hidden state.

A function may be longer than LONGEST_FUNCTION only if its docstring says why, in a sentence that starts "Long because".
Tests are held to the lengths only.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_MODULE = 500
LONGEST_FUNCTION = 40
EXCUSE = "Long because"
VAGUE_NAMES = ("Context", "Manager", "Helper", "Helpers", "Util", "Utils")
TALKS_TO_THE_WORLD = ("builder/cli/", "builder/settings", "builder/python/ldconfig.py", "rootfs/sandbox/child.py")
WORLD = ("sys.exit", "os.environ", "os.environb", "os.getenv")
MUTABLE_LITERALS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = ("list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict")

Check = Callable[[str, str], Iterator[str]]


def module_is_short(path: str, source: str) -> Iterator[str]:
    """At most LONGEST_MODULE lines."""
    count = len(source.splitlines())
    if count > LONGEST_MODULE:
        yield f"{path}: {count} lines, at most {LONGEST_MODULE}: split it along the floors"


def functions_are_short(path: str, source: str) -> Iterator[str]:
    """At most LONGEST_FUNCTION lines from `def` to the end, the docstring not counted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            first = node.body[0]
            told = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
            count = (node.end_lineno or 0) - node.lineno + 1 - told
            if count > LONGEST_FUNCTION and EXCUSE not in docstring:
                yield f"{path}:{node.lineno} {node.name}: {count} lines, at most {LONGEST_FUNCTION}"


def module_has_a_docstring(path: str, source: str) -> Iterator[str]:
    """Its law: what it is, what it must not know, which specification it follows."""
    if not ast.get_docstring(ast.parse(source)):
        yield f"{path}: no docstring"


def classes_have_honest_names(path: str, source: str) -> Iterator[str]:
    """No class whose name says nothing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name.endswith(VAGUE_NAMES):
            yield f"{path}:{node.lineno} class {node.name}: name what it is"


def only_the_edge_talks_to_the_world(path: str, source: str) -> Iterator[str]:
    """`print`, `sys.exit` and the environment belong to the command line and the settings."""
    if path.startswith(TALKS_TO_THE_WORLD):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "quit", "SystemExit"):
            yield f"{path}:{node.lineno} {ast.unparse(node.func)}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WORLD:
            yield f"{path}:{node.lineno} {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "sys"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (f"{path}:{node.lineno} {name}" for name in names if name in WORLD)


def module_has_no_mutable_state(path: str, source: str) -> Iterator[str]:
    """Tables in UPPER_CASE are constants; anything else mutable at module level is state, and so is `global`."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_mutable(node.value):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                name = ast.unparse(target)
                if name != name.upper() and not name.startswith("__"):
                    yield f"{path}:{node.lineno} {name}"
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield f"{path}:{inner.lineno} global {', '.join(inner.names)}"


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in MUTABLE_CALLS
    return isinstance(value, MUTABLE_LITERALS)


LENGTHS: tuple[Check, ...] = (module_is_short, functions_are_short)
STYLE: tuple[Check, ...] = (
    module_has_a_docstring,
    classes_have_honest_names,
    only_the_edge_talks_to_the_world,
    module_has_no_mutable_state,
)


def _found(check: Check, *folders: str) -> list[str]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return [line for path in files for line in check(path.relative_to(ROOT).as_posix(), path.read_text())]


@pytest.mark.parametrize("check", LENGTHS, ids=lambda check: check.__name__)
def test_lengths(check: Check) -> None:
    found = _found(check, "rootfs", "builder", "tests")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("check", STYLE, ids=lambda check: check.__name__)
def test_style(check: Check) -> None:
    found = _found(check, "rootfs", "builder")
    assert not found, "\n".join(found)


LONG = "    pass\n" * LONGEST_FUNCTION


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (module_is_short, "\n" * 500, "\n" * 501),
        (functions_are_short, f"def f():\n    '''One.\n\n    Two.'''\n{LONG[9:]}", f"def f():\n{LONG}"),
        (functions_are_short, f"def f():\n    'Long because of x.'\n{LONG}", f"class A:\n  async def f():\n{LONG}"),
        (module_has_a_docstring, '"""Law."""', "x = 1"),
        (classes_have_honest_names, "class Contextual: ...", "class BuildContext: ..."),
        (only_the_edge_talks_to_the_world, "printed = 1", "def f():\n    print(1)"),
        (only_the_edge_talks_to_the_world, "class A:\n    exit: int", "raise SystemExit(1)"),
        (only_the_edge_talks_to_the_world, "sys.exit_code", "import sys\nsys.exit(1)"),
        (only_the_edge_talks_to_the_world, "os.environment", "os.environ['A']"),
        (only_the_edge_talks_to_the_world, "from os import path", "from os import environ"),
        (module_has_no_mutable_state, "NAMES = {}\n_TABLE: X = []\n__all__ = []", "_cache: X = {}"),
        (module_has_no_mutable_state, "def f():\n    found = []", "seen = collections.defaultdict(list)"),
        (module_has_no_mutable_state, "names = ()", "def f():\n    global names"),
    ],
)
def test_the_checks_can_fail(check: Check, good: str, bad: str) -> None:
    assert list(check("rootfs/x.py", good)) == []
    assert len(list(check("rootfs/x.py", bad))) == 1


def test_the_edge_may_talk() -> None:
    assert list(only_the_edge_talks_to_the_world("builder/cli/__init__.py", "print(1)")) == []
