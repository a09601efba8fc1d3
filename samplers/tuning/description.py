"""A tuned sampler in words and numbers, as it is printed; and what a fitted grid shares with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.tuning.purpose import guidance_of
from samplers.tuning.table import Table


def described(table: Table, about: Mapping[str, Any]) -> str:
    """What it was tuned for, its scores, and its numbers."""
    return "\n".join(_lines(table, about))


def _lines(table: Table, about: Mapping[str, Any]) -> Iterator[str]:
    yield f"A tuned sampler of {table.nfe} network evaluations."
    yield ""
    yield from purpose_lines("Tuned", about)
    yield from _result_lines(table, about)


def purpose_lines(made: str, about: Mapping[str, Any]) -> Iterator[str]:
    """What something was tuned or fitted for."""
    yield f"{made} for: {about['schedule']}, predicting {about['prediction']}."
    yield f"Weights: {about['weights'] or 'not known'}."
    yield f"Guidance: {guidance_of(about)}."
    yield f"Conditions: {about['conditions']}."
    yield f"Licence: {about['licence']}."


def _result_lines(table: Table, about: Mapping[str, Any]) -> Iterator[str]:
    yield f"Learned: {', '.join(about['learned'])}; objective {about['objective']}."
    yield f"Teacher: {about['teacher']}, error {about['teacher_error']:.2g}."
    if "interpolated_from" in about:
        yield f"Interpolated from {about['interpolated_from']} evaluations, whose errors these are."
    yield ""
    yield from error_lines(f"{about['held_out']} held-out samples", "tuned", about)
    yield ""
    yield "Noise level sigma / alpha; the one that the network is given; weights of D[0], D[1], …:"
    for row in texts_of(table):
        yield "".join(f"{number:>11}" for number in row)


def error_lines(of: str, made: str, about: Mapping[str, Any]) -> Iterator[str]:
    """The scores before and after."""
    yield f"Errors of {of} (geometric mean, 95 % quantile, RMS):"
    for name, own in ((made, about["after"]), (about["base"], about["before"])):
        errors = (own["geometric_mean"], own["quantile_95"], own["rms"])
        yield f"  {name}: {', '.join(f'{error:.3g}' for error in errors)}"


def texts_of(table: Table) -> list[list[str]]:
    """The level, the level that is given, and the weights of each row; the level of the end."""
    noisy, given = rho_texts(table.levels), rho_texts(table.times)
    weights = [[f"{weight:.4g}" for weight in row] for row in table.weights.tolist()]
    rows = [
        [noisy[k], given[k], *row[: k + 1]]  # which uses no prediction from before the first
        for k, row in enumerate(weights)
    ]
    return [*rows, noisy[-1:]]


def rho_texts(levels: Tensor) -> list[str]:
    """sigma / alpha at levels of half log-SNR."""
    return [f"{rho:.4g}" for rho in torch.exp(-levels).tolist()]
