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
        Topic("Models", ("denoiser", "guidance", "prediction")),
        Topic("Sampling", ("sampling", "solve", "errors", "inversion")),
        Topic("Adaptive step size", ("probability_flow.adaptive", "probability_flow.integration")),
        Topic("Likelihood and latent codes", ("probability_flow",)),
        Topic("The registry of samplers", ("registry",)),
        Topic("Tableaux", ("tableau", "draft", "methods", "phi")),
        Topic("Noise schedules", ("schedule",)),
        Topic("Grids of noise levels", ("grid",)),
        Topic("Noise and seeds", ("noise",)),
        Topic("Inverse problems", ("inverse_problems",)),
        Topic("Restoration", ("restoration",)),
        Topic("Training", ("training",)),
        Topic("Images", ("images",)),
        Topic("diffusers", ("diffusers", "diffusers_scheduler", "diffusers_restoration")),
        Topic("Checkpoints", ("checkpoint", "files")),
    ),
    "adjoint": (
        Topic("Fokker-Planck residual", ("fokker_planck",)),
        Topic("Rewards", ("rewards",)),
        Topic("Fine-tuning", ("finetune", "learning")),
        Topic("Adjoints and their cost", ("",)),
    ),
    "text2pde": (
        Topic("Scenes and prompts", ("subject",)),
        Topic("Meshes, clips and figures", ("mesh", "data", "export", "figures")),
        Topic("Simulation", ("solver",)),
        Topic("Models and training", ("pipeline", "autoencoder", "diffusion", "training")),
    ),
}

FAMILIES = {
    "pf_ode": "Runge-Kutta and Adams-Bashforth",
    "dpm_solver": "DPM-Solver, DPM-Solver++ and MR Sampler",
    "unipc": "UniPC",
    "deis": "DEIS",
    "reversible": "Exactly invertible methods",
    "reverse_sde": "Reverse SDE",
    "predictor_corrector": "Predictor-corrector",
    "edm": "EDM's stochastic sampler",
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
    """The pages of the public names, and one page for each package that lists them."""
    for package, topics in PACKAGES.items():
        by_topic = public_names(package)
        pages = {f"{package}-{_slug(topic.title)}": topic for topic in topics if by_topic[topic]}
        for page, topic in pages.items():
            yield f"{page}.rst", _topic_page(package, topic, by_topic[topic])
        yield f"{package}.rst", _package_page(package, pages, by_topic)


def public_names(package: str) -> dict[Topic, list[str]]:
    """The names of a package's ``__all__`` by topic.

    Raises:
        ValueError: a name lives in no topic's modules.
    """
    module = import_module(package)
    found: dict[Topic, list[str]] = {topic: [] for topic in PACKAGES[package]}
    for name in getattr(module, "__all__", ()):
        found[topic_of(package, name, _home(module, name))].append(name)
    return found


def topic_of(package: str, name: str, home: str) -> Topic:
    for topic in PACKAGES[package]:
        inside = (f"{package}.{part}.".replace("..", ".") for part in topic.modules)
        if any(f"{home}.".startswith(prefix) for prefix in inside):
            return topic
    raise ValueError(
        f"{package}.{name} lives in {home}, which belongs to no topic of the reference; add the "
        "module to one in docs/reference/generate.py."
    )


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


def _topic_page(package: str, topic: Topic, names: Iterable[str]) -> str:
    module = import_module(package)
    entries = (_entry(module, name) for name in names)
    return "\n".join([_heading(topic.title, "="), f".. py:currentmodule:: {package}\n", *entries])


def _entry(package: ModuleType, name: str) -> str:
    value, full = getattr(package, name), f"{package.__name__}.{name}"
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return f".. {kind}:: {full}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    text = "\n".join(_comment(_home(package, name), name))
    return f".. py:data:: {full}\n\n{_indented(text)}\n"


def _comment(module: str, name: str) -> list[str]:
    """The docstring of a constant, which stands below it in the source."""
    return ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name), [])


def _package_page(package: str, pages: dict[str, Topic], by_topic: dict[Topic, list[str]]) -> str:
    module = import_module(package)
    tables = (
        _heading(f":doc:`{topic.title} <{page}>`", "-") + "\n" + _summaries(module, by_topic[topic])
        for page, topic in pages.items()
    )
    listed = "\n".join(f"   {page}" for page in pages)
    return "\n".join([_heading(package, "="), *tables, f".. toctree::\n   :hidden:\n\n{listed}\n"])


def _summaries(package: ModuleType, names: Iterable[str]) -> str:
    rows = ((f":obj:`~{package.__name__}.{name}`", _summary(package, name)) for name in names)
    return _table(("Name", "What it is"), rows)


def _summary(package: ModuleType, name: str) -> str:
    """The first paragraph of the docstring."""
    value = getattr(package, name)
    documented = inspect.isclass(value) or inspect.isroutine(value)
    text = inspect.getdoc(value) if documented else "\n".join(_comment(_home(package, name), name))
    return " ".join((text or "").partition("\n\n")[0].split()).rstrip(":")


# ------------------------------------------------------------------------- samplers by name


def sampler_pages() -> Iterator[tuple[str, str]]:
    """One page for each family of samplers, one for adaptive methods, and the table of all."""
    for family, title in FAMILIES.items():
        members = [sampler for sampler in registry().values() if _family(sampler) == family]
        yield f"family-{family}.rst", _family_page(family, title, members)
    yield "family-adaptive.rst", _adaptive_page()
    yield "samplers-by-name.rst", _table_page()


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
    words = ", ".join(f"{name}={_value(value)}" for name, value in fixed.items())
    return f" with ``{words}``" if words else ""


def _value(value: Any) -> str:
    return value.__name__ if inspect.isroutine(value) else repr(value)


def _order(sampler: Sampler) -> str:
    if not sampler.stochastic:
        return str(sampler.order)
    strong = "none" if sampler.strong_order is None else f"{sampler.strong_order:g}"
    return f"weak {sampler.weak_order:g}, strong {strong}; {sampler.order} without noise"


def _options(sampler: Sampler) -> str:
    def entry(name: str, default: Any) -> str:
        words = sampler.choices.get(name)
        return f"``{name}`` = ``{default!r}``" + (f" ({' or '.join(words)})" if words else "")

    return ", ".join(entry(*option) for option in sampler.options.items()) or "none"


def _adaptive_page() -> str:
    intro = (
        "Methods that choose the step size of each sample by an estimate of the local error, for "
        ":func:`samplers.sample_adaptive`.\n"
    )
    module = ".. automodule:: samplers.methods.embedded\n"
    return "\n".join(
        [
            _heading("Adaptive step size", "="),
            intro,
            module,
            *map(_pair_entry, adaptive_registry().values()),
        ]
    )


def _pair_entry(pair: AdaptiveSampler) -> str:
    return _named(
        pair.name,
        f"Paper: {_linked(pair.reference)}",
        f"Order: {pair.order}",
        f"Network evaluations per trial step: {pair.calls}",
        f"Other names: {_literals(pair.aliases)}",
    )


def _table_page() -> str:
    intro = (
        "Every name that ``sampler=`` takes. NFE is the number of network evaluations in a step; "
        "the order is that on the probability-flow ODE, and of stochastic samplers the weak "
        "order. ``samplers show NAME`` prints the same with the coefficients.\n"
    )
    rows = [
        (f":ref:`{s.name} <sampler-{_slug(s.name)}>`", _short_order(s), str(s.calls), s.reference)
        for s in registry().values()
    ]
    adaptive = [
        (f":ref:`{pair.name} <sampler-{_slug(pair.name)}>`", str(pair.order), "–", pair.reference)
        for pair in adaptive_registry().values()
    ]
    head = ("Name", "Order", "NFE per step", "Paper")
    pages = "\n".join(f"   family-{family}" for family in (*FAMILIES, "adaptive"))
    return "\n".join(
        [
            _heading("Samplers by name", "="),
            intro,
            _table(head, rows),
            _heading("Adaptive step size", "-"),
            _table(head, adaptive),
            f".. toctree::\n   :hidden:\n\n{pages}\n",
        ]
    )


def _short_order(sampler: Sampler) -> str:
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
