"""Layer 6. Networks of diffusers without everything else that diffusers imports beside them.

``import diffusers.models.unets.unet_2d`` takes nine seconds and brings transformers and peft along,
because the packages around it import all of diffusers' models in their ``__init__``. Here these
packages are set up but run only when something asks for a name that is not there yet; nothing of
them is changed or left out. Releases of diffusers whose packages import lazily by themselves make
this module superfluous.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Packages by name, with what is taken from single modules without running the package.
_PACKAGES: dict[str, dict[str, str]] = {
    "diffusers.hooks": {},
    "diffusers.models.autoencoders": {},
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "diffusers.quantizers": {"DiffusersAutoQuantizer": "auto", "DiffusersQuantizer": "base"},
}


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


def defer_packages() -> None:
    """Set up the packages that are not imported yet; what is imported stays as it is."""

    for name in _PACKAGES:
        spec = importlib.util.find_spec(name) if name not in sys.modules else None
        if spec is None:
            continue
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _Package
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, package)
