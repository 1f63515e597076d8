"""Purity: the files that decide import no clock, randomness, I/O, grpc or lmdb (`[tool.ringkv.floors]`).

The floors between packages are import-linter's (`make floors`); here is what it cannot say, because a pure
file may rely on a module such as `kv.errors` that itself touches grpc: only direct imports are judged.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def floors() -> dict[str, Any]:
    """Return the `[tool.ringkv.floors]` table of pyproject.toml."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, Any] = pyproject["tool"]["ringkv"]["floors"]
    return table


FLOORS = floors()
PURE: list[str] = FLOORS["pure"]
PLANNED = set(FLOORS["planned"])
IMPURE = frozenset(FLOORS["impure"])


def imported_roots(source: str) -> set[str]:
    """Return the top-level names of the modules that `source` imports anywhere, even inside functions."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                roots.update(alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                roots.add(module.partition(".")[0])
    return roots


@pytest.mark.parametrize("name", [name for name in PURE if (ROOT / name).exists() or name not in PLANNED])
def test_a_pure_file_imports_nothing_impure(name: str) -> None:
    """A file that decides exists under its listed name and imports none of the impure modules."""
    impure = imported_roots((ROOT / name).read_text(encoding="utf-8")) & IMPURE
    assert not impure, f"{name} decides: pass what it takes from {sorted(impure)} as an argument"


@pytest.mark.parametrize(
    "source",
    ["import time", "from os import path", "import grpc.aio as g", "def f():\n    import random"],
)
def test_every_form_of_impure_import_is_seen(source: str) -> None:
    """The check sees plain, from, dotted and local imports."""
    assert imported_roots(source) & IMPURE


def test_our_own_imports_are_not_mistaken_for_impure_ones() -> None:
    """Importing kv modules, even ones named like an impure module's child, is allowed."""
    assert not imported_roots("from kv.ids import NodeId\nimport kv.v1.kv_pb2\nimport dataclasses") & IMPURE


def test_planned_files_are_listed_as_pure() -> None:
    """The list of planned files only excuses absence; it names no file outside the pure list."""
    assert set(PURE) >= PLANNED


def test_every_folder_of_the_package_has_an_init() -> None:
    """Each folder with modules is a regular package; import-linter does not look into any other."""
    modules = [path.relative_to(ROOT) for path in (ROOT / "kv").rglob("*.py")]
    folders = {folder for module in modules for folder in module.parents[:-1]}
    bare = sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists())
    assert not bare, f"add an __init__.py to {bare}"
