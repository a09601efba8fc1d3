"""Writes the pages of the API reference: what ``__all__`` and the registry say, never a typed list.

A public name belongs to the topic whose modules it lives in; a name without a topic is an error, so
that the reference cannot miss one. Sphinx's autodoc then fills the pages from the docstrings.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sphinx.pycode import ModuleAnalyzer

from samplers.registry import AdaptiveSampler, Sampler, adaptive_registry, registry

GENERATED = "generated"


class Topic(NamedTuple):
    """A page of the reference: the public names that live in or below some modules."""

    title: str
    modules: tuple[str, ...]


PACKAGES: dict[str, tuple[Topic, ...]] = {
    "samplers": (
        Topic("Models", ("denoiser", "guidance", "prediction", "checkpoint")),
        Topic("Sampling", ("sampling", "data_scale", "solve", "errors", "inversion")),
        Topic("Adaptive step size", ("probability_flow.adaptive", "probability_flow.integration")),
        Topic("Likelihood and latent codes", ("probability_flow",)),
        Topic("Samplers and tableaux", ("registry", "tableau", "draft", "methods", "phi")),
        Topic("Noise schedules", ("schedule",)),
        Topic("Grids of noise levels", ("grid",)),
        Topic("Noise and seeds", ("noise",)),
        Topic("Inverse problems", ("inverse_problems",)),
        Topic("Restoration", ("restoration", "diffusers.restoration")),
        Topic("Diffusers", ("diffusers", "diffusers_scheduler", "diffusers_restoration")),
        Topic("Fitted grids", ("fitting",)),
        Topic("Tuned samplers", ("tuning",)),
        Topic("Training", ("training", "files")),
        Topic("Figures", ("images",)),
    ),
    "adjoint": (
        Topic("Adjoints", ("",)),
        Topic("Rewards and fine-tuning", ("rewards", "finetune", "learning")),
        Topic("Fokker-Planck residual and penalties", ("fokker_planck", "solver_cost")),
    ),
    "text2pde": (Topic("Flows from sentences", ("",)),),
}

# Subpackages that readers may import from as well, with what is not public above already.
SUBPACKAGES = {
    "samplers.checkpoint": "Checkpoints",
    "samplers.diffusers": "Diffusers, in detail",
    "samplers.files": "Files",
    "samplers.fitting": "Fitted grids, in detail",
    "samplers.images": "Images",
    "samplers.inverse_problems": "Inverse problems, in detail",
    "samplers.k_diffusion": "Functions of k-diffusion's signature",
    "samplers.methods": "For authors of samplers",
    "samplers.restoration": "Restoration, in detail",
    "samplers.schedule": "Noise schedules, in detail",
    "samplers.training": "Training, in detail",
    "samplers.tuning": "Tuned samplers, in detail",
    "adjoint.finetune": "Fine-tuning, in detail",
    "adjoint.fokker_planck": "Fokker-Planck residual, in detail",
    "adjoint.rewards": "Rewards, in detail",
}

FAMILIES = {
    "pf_ode": "DDIM and Runge-Kutta",
    "linear_multistep": "Linear multistep",
    "adams": "Adams-Bashforth-Moulton on the rectified flow",
    "dpm_solver": "DPM-Solver, DPM-Solver++ and MR Sampler",
    "unipc": "UniPC",
    "deis": "DEIS",
    "reversible": "Exactly invertible methods",
    "ancestral": "Ancestral sampling by a solver",
    "seeds": "Singlestep methods for the reverse SDE",
    "reverse_sde": "Reverse SDE",
    "predictor_corrector": "Predictor-corrector",
    "edm": "EDM's stochastic sampler",
    "consistency": "Distilled networks",
    "embedded": "Adaptive step size",
}


def write(folder: Path) -> None:
    """Write every generated page below ``folder``."""
    target = folder / GENERATED
    target.mkdir(exist_ok=True)
    pages = dict(reference_pages()) | dict(sampler_pages())
    for old in target.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = target / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")  # an unchanged page is not built again


# ------------------------------------------------------------------------------- public names


def reference_pages() -> Iterator[tuple[str, str]]:
    """The pages of public names: one for each topic, subpackage and package."""
    for package in PACKAGES:
        pages = dict(_topics_of(package)) | dict(_subpackages_of(package))
        for page, (title, module, names) in pages.items():
            yield f"{page}.rst", _entries_page(title, module, names)
        yield f"{package}.rst", _package_page(package, pages)


Page = tuple[str, str, list[str]]
"""A title, the module that its names are imported from, and the names."""


def _topics_of(package: str) -> Iterator[tuple[str, Page]]:
    for topic, names in public_names(package).items():
        if names:
            yield f"{package}-{_slug(topic.title)}", (topic.title, package, names)


def _subpackages_of(package: str) -> Iterator[tuple[str, Page]]:
    known = import_module(package).__all__
    for name, title in SUBPACKAGES.items():
        if name.startswith(f"{package}."):
            own = getattr(import_module(name), "__all__", ())
            rest = [each for each in own if each not in known]
            if rest:
                yield f"module-{_slug(name)}", (title, name, rest)


def public_names(package: str) -> dict[Topic, list[str]]:
    """The names of a package's ``__all__`` by topic, without those of subpackages.

    Raises:
        ValueError: a name lives in no topic's modules.
    """
    module = import_module(package)
    found: dict[Topic, list[str]] = {topic: [] for topic in PACKAGES[package]}
    for name in getattr(module, "__all__", ()):
        if f"{package}.{name}" not in SUBPACKAGES:
            found[topic_of(package, name, _home(module, name))].append(name)
    return found


def topic_of(package: str, name: str, home: str) -> Topic:
    """The topic with the longest module that the home of a name is, or lies in."""
    inside = [
        (len(prefix), topic)
        for topic in PACKAGES[package]
        for prefix in topic.modules
        if f"{home}.".startswith(f"{package}.{prefix}.".replace("..", "."))
    ]
    if not inside:
        raise ValueError(
            f"{package}.{name} lives in {home}, which belongs to no topic of the reference; add "
            "the module to one in docs/reference/generate.py."
        )
    return max(inside, key=lambda each: each[0])[1]


def _home(package: ModuleType, name: str) -> str:
    """The module that a public name lives in."""
    value = getattr(package, name)
    home = getattr(value, "__module__", None) or ""
    if home.startswith(f"{package.__name__}."):
        return str(home)
    for found, module in sorted(sys.modules.items(), reverse=True):  # a constant: who holds it
        if found.startswith(f"{package.__name__}.") and vars(module).get(name) is value:
            return found
    return package.__name__


def _entries_page(title: str, package: str, names: Iterable[str]) -> str:
    module = import_module(package)
    entries = (_entry(module, name) for name in names)
    return "\n".join([_heading(title, "="), f".. py:currentmodule:: {package}\n", *entries])


def _entry(package: ModuleType, name: str) -> str:
    value, full = getattr(package, name), f"{package.__name__}.{name}"
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return f".. {kind}:: {full}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    text = "\n".join(_comment(_home(package, name), name))
    return f".. py:data:: {name}\n\n{_indented(text)}\n"  # of the current module


def _comment(module: str, name: str) -> list[str]:
    """The docstring of a constant, which stands below it in the source."""
    return ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name), [])


def _package_page(package: str, pages: dict[str, Page]) -> str:
    tables = (
        _heading(_page_title(page, *at[:2]), "-") + "\n" + _summaries(*at[1:])
        for page, at in pages.items()
    )
    listed = "\n".join(f"   {page}" for page in pages)
    return "\n".join([_heading(package, "="), *tables, f".. toctree::\n   :hidden:\n\n{listed}\n"])


def _page_title(page: str, title: str, module: str) -> str:
    origin = f" (``{module}``)" if module in SUBPACKAGES else ""
    return f":doc:`{title} <{page}>`{origin}"


def _summaries(package: str, names: Iterable[str]) -> str:
    module = import_module(package)
    rows = ((f":obj:`~{package}.{name}`", _summary(module, name)) for name in names)
    return _table(("Name", "What it is"), rows)


def _summary(package: ModuleType, name: str) -> str:
    """The first paragraph of the docstring."""
    value = getattr(package, name)
    documented = inspect.isclass(value) or inspect.isroutine(value)
    text = inspect.getdoc(value) if documented else "\n".join(_comment(_home(package, name), name))
    return " ".join((text or "").partition("\n\n")[0].split()).rstrip(":")


# ------------------------------------------------------------------------- samplers by name


def sampler_pages() -> Iterator[tuple[str, str]]:
    """One page for each family of samplers, and the table of all."""
    every = [*registry().values(), *adaptive_registry().values()]
    for family, title in FAMILIES.items():
        members = [sampler for sampler in every if _family(sampler) == family]
        yield f"family-{family}.rst", _family_page(family, title, members)
    yield "family-interval.rst", _interval_page()
    yield "samplers-by-name.rst", _table_page(every)


def _method(sampler: Sampler) -> Any:
    """The function behind a row of the registry, without its settings."""
    method = sampler.method
    return method.func if isinstance(method, partial) else method


def _family(sampler: Sampler) -> str:
    return str(_method(sampler).__module__.rpartition(".")[2])


def _family_page(family: str, title: str, members: list[Sampler]) -> str:
    module = f"samplers.methods.{family}"
    functions = sorted({_method(sampler).__name__ for sampler in members})
    return "\n".join(
        [
            _heading(title, "="),
            f".. automodule:: {module}\n   :members: {', '.join(functions)}\n",
            _heading("Samplers of this family", "-"),
            *map(_sampler_entry, members),
        ]
    )


def _interval_page() -> str:
    title = _heading("The exact solution of a step", "=")
    return f"{title}\n.. automodule:: samplers.methods.interval\n   :members: Interval, ddim\n"


def _sampler_entry(sampler: Sampler) -> str:
    function = _method(sampler)
    return _named(
        sampler.name,
        f"Equation: :func:`~{function.__module__}.{function.__name__}`{_settings(sampler)}",
        f"Paper: {_linked(sampler.reference)}",
        f"Order: {_order(sampler)}",
        f"Network evaluations per step: {sampler.calls}",
        f"Options: {_options(sampler)}",
        f"Other names: {_literals(sampler.aliases)}",
    )


def _settings(sampler: Sampler) -> str:
    fixed = sampler.method.keywords if isinstance(sampler.method, partial) else {}
    shown = {name: _shown(value) for name, value in fixed.items()}
    words = ", ".join(f"{name}={value}" for name, value in shown.items() if value)
    return f" with ``{words}``" if words else ""


def _shown(value: Any) -> str:
    """A setting in a word; nothing for a table of coefficients."""
    if inspect.isroutine(value):
        return str(value.__name__)
    return repr(value) if isinstance(value, str | int | float) else ""


def _order(sampler: Sampler) -> str:
    if not sampler.stochastic:
        return str(sampler.order)
    if sampler.distilled:
        return "none, for distilled networks"
    strong = "none" if sampler.strong_order is None else f"{sampler.strong_order:g}"
    return f"weak {sampler.weak_order:g}, strong {strong}; {sampler.order} without noise"


def _options(sampler: Sampler) -> str:
    def entry(name: str, default: Any) -> str:
        words = sampler.choices.get(name)
        return f"``{name}`` = ``{default!r}``" + (f" ({' or '.join(words)})" if words else "")

    return ", ".join(entry(*option) for option in sampler.options.items()) or "none"


def _table_page(every: Iterable[Sampler]) -> str:
    intro = (
        "Every name that ``sampler=`` takes; follow one to its equation. *Order* is that on the "
        "probability-flow ODE, for stochastic samplers the weak order. NFE is the number of "
        "network evaluations per step. ``samplers show NAME`` prints the coefficients, and "
        "``help(get_sampler(NAME))`` the equation.\n"
    )
    rows = [
        (f":ref:`{s.name} <sampler-{_slug(s.name)}>`", _short_order(s), str(s.calls), s.reference)
        for s in every
    ]
    pages = "\n".join(f"   family-{family}" for family in (*FAMILIES, "interval"))
    return "\n".join(
        [
            _heading("Samplers by name", "="),
            intro,
            _table(("Name", "Order", "NFE per step", "Paper"), rows),
            f".. toctree::\n   :hidden:\n\n{pages}\n",
        ]
    )


def _short_order(sampler: Sampler) -> str:
    if isinstance(sampler, AdaptiveSampler):
        return f"{sampler.order}, adaptive"
    if sampler.distilled:
        return "none, distilled"
    return f"{sampler.weak_order:g}, weak" if sampler.stochastic else str(sampler.order)


# ------------------------------------------------------------------------- reStructuredText


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _indented(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())


def _linked(reference: str) -> str:
    return re.sub(r"arXiv:([0-9.]+[0-9])", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", reference)


def _literals(words: Iterable[str]) -> str:
    return ", ".join(f"``{word}``" for word in words) or "none"


def _named(name: str, *lines: str) -> str:
    """A section that ``:ref:`` finds by the name."""
    items = "\n".join(f"- {line}" for line in lines)
    return f".. _sampler-{_slug(name)}:\n\n{_heading(name, '~')}\n{items}\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = "\n".join("   * - " + "\n     - ".join(map(_linked, row)) for row in (head, *rows))
    return f".. list-table::\n   :header-rows: 1\n   :widths: auto\n\n{cells}\n"
