"""Layer 6. Networks of diffusers without everything else that diffusers imports beside them.

``import diffusers.models.unets.unet_2d`` takes nine seconds and brings transformers and peft along,
because the packages around it import all of diffusers' models in their ``__init__``. Here these
packages are set up but run only when something asks for a name that is not there yet; nothing of
them is changed or left out. Releases of diffusers whose packages import lazily by themselves make
this module superfluous.

The compiler of PyTorch takes two more seconds; diffusers does without where it can't be imported.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"  # a private name, since PyTorch 2.0
# Packages by name, with what is taken from single modules without running the package.
_PACKAGES: dict[str, dict[str, str]] = {
    "diffusers.hooks": {},
    "diffusers.models.autoencoders": {},
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "diffusers.quantizers": {"DiffusersAutoQuantizer": "auto", "DiffusersQuantizer": "base"},
}


def import_diffusers() -> Any:
    """The package diffusers, with the packages above set up that are not imported yet."""
    import diffusers.models  # which is lazy itself

    for name in _PACKAGES:
        if name not in sys.modules:
            _set_up(name)
    return diffusers


def import_without_compiler() -> None:
    """Import what diffusers imports first, in a process of ours that compiles no network.

    diffusers asks the compiler not to trace into some blocks. What is imported already stays.
    """
    if "diffusers" in sys.modules or _COMPILER in sys.modules:
        return
    sys.modules[_COMPILER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import diffusers.utils.torch_utils  # noqa: F401
    finally:
        del sys.modules[_COMPILER]


class _Package(ModuleType):
    """A package that is run when something asks for a name that it does not have yet."""

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
