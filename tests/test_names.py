"""One name, one concept: no class or type alias is defined in two modules of the three packages,
and no module is named like what its package exports.

Commands are no part of the public interface.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("samplers", "adjoint", "text2pde")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "cli" in path.parts:
                continue
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def types_of(module: ast.Module) -> Iterator[str]:
    """The public classes and type aliases that a module defines."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp()):
                if name[0].isupper() and not name.isupper():
                    yield name


def test_a_public_type_is_defined_once() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path, module in modules():
        for name in types_of(module):
            if not name.startswith("_"):
                homes[name].append(str(path))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_a_module_is_not_named_like_what_its_package_exports() -> None:
    """Else ``import package.name`` gives a module or a function, by what was imported before."""
    for path, _ in modules():
        if path.name != "__init__.py":
            continue
        package = import_module(".".join(path.parent.parts))
        inside = {entry.stem for entry in (ROOT / path.parent).iterdir()}
        assert not inside & set(getattr(package, "__all__", ())), path
