"""The direction of imports, and the two constructors that only one place may call (style.md 3.1, 3.3)."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("messages", "chains", "relayer", "contracts", "configs", "bench")


def find_calls(source: str, name: str) -> list[int]:
    """Lines where ``name`` is called, as a name or as an attribute, or handed to somebody who may call it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            handed = [
                x for x in [*node.args, *(k.value for k in node.keywords)] if isinstance(x, ast.Name) and x.id == name
            ]
            if called == name or (handed and called not in {"isinstance", "issubclass"}):
                lines.append(node.lineno)
    return lines


def find_callers(name: str) -> dict[str, list[int]]:
    """File below the product -> lines that construct ``name``."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = find_calls(path.read_text(), name)
            if lines:
                found[path.relative_to(ROOT).as_posix()] = lines
    return found


def test_only_the_proofs_of_a_family_make_a_proven_head():
    callers = find_callers("ProvenHead")
    assert all(Path(path).match("chains/*/proofs.py") for path in callers), callers


def test_only_the_outbox_makes_a_fact():
    assert set(find_callers("Fact")) == {"messages/outbox.py"}


def test_only_the_outbox_makes_a_trail():
    assert set(find_callers("Trail")) == {"messages/outbox.py"}


@pytest.mark.parametrize(
    "source",
    ["Fact(1)", "outbox.Fact(1)", "x = [Fact(*row) for row in rows]", "map(Fact, rows)", "replace_all(cls=Fact)"],
)
def test_the_search_sees_a_constructor_in_every_dress(source):
    assert find_calls(source, "Fact") == [1]


@pytest.mark.parametrize("source", ["def f(x: Fact) -> Fact: ...", "isinstance(x, Fact)", "MyFact(1)", "'Fact(1)'"])
def test_the_search_takes_no_mention_for_a_constructor(source):
    assert find_calls(source, "Fact") == []


def test_imports_keep_their_direction():
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if tool is None:
        pytest.skip("import-linter is not installed: make install-dev")
    result = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
