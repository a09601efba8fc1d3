"""Layer 6. Deferred imports of diffusers packages, for a fast start of commands.

``import diffusers.models.unets.unet_2d`` takes nine seconds and imports transformers and peft,
because the packages around it import all models of diffusers in their ``__init__``. Here these
packages are created but executed only when a name is accessed that they do not have yet; they are
otherwise unchanged. With releases of diffusers that import lazily this module is not needed.

The compiler of PyTorch takes two more seconds; diffusers works without it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"  # a private name, since PyTorch 2.0
# Packages by name, with names that are taken from single modules without executing the package.
_PACKAGES: dict[str, dict[str, str]] = {
    "diffusers.hooks": {},
    "diffusers.models.autoencoders": {},
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "diffusers.quantizers": {"DiffusersAutoQuantizer": "auto", "DiffusersQuantizer": "base"},
}


def import_diffusers() -> Any:
    """Import diffusers, with deferred execution of the packages above."""
    import diffusers.models  # which is lazy itself

    for name in _PACKAGES:
        if name not in sys.modules:
            _set_up(name)
    return diffusers


def import_without_compiler() -> None:
    """Import diffusers without the compiler of PyTorch, in a process that compiles no network.

    diffusers uses it only to exclude some blocks from tracing. Modules that are imported already
    are unchanged.
    """
    if "diffusers" in sys.modules or _COMPILER in sys.modules:
        return
    sys.modules[_COMPILER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import diffusers.utils.torch_utils  # noqa: F401
    finally:
        del sys.modules[_COMPILER]


class _Package(ModuleType):
    """A package that is executed when a name is accessed that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        own = _PACKAGES[self.__name__]
        if name in own:
            return getattr(import_module(f"{self.__name__}.{own[name]}"), name)
        if name.startswith("__"):  # of the import system, which does not need all of them
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        loader: Any = self.__loader__
        loader.exec_module(self)
        return getattr(self, name)


def _set_up(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Package
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, package)
