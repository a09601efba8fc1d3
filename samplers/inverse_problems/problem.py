"""An inverse problem: the operator, the measurement and its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from samplers.checks import check_numbers
from samplers.inverse_problems.operators import (
    LinearOperator,
    check_operator,
    pseudo_inverse,
    unmeasured,
)
from samplers.solve import working_dtype


@dataclass(frozen=True, eq=False)
class InverseProblem:
    r"""A linear inverse problem: find x from ``y = A x + noise``.

    Attributes:
        operator: A.
        measurement: y, one for each sample, [B, ...], or one for all, [1, ...].
        noise_std: the standard deviation of the noise in each component of y; 0 if there is none.

    Raises ValueError if y is not finite, or not shaped as A x.
    """

    operator: LinearOperator
    measurement: Tensor
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        y = self.measurement
        check_numbers("The measurement", y)
        if not 0 <= self.noise_std < math.inf:
            raise ValueError(
                f"The standard deviation of the measurement's noise is {self.noise_std}; "
                "it must be zero or positive."
            )
        with_batch = (len(y) if y.ndim else 0, *self.operator.image_shape)
        expected = self.operator.forward(y.new_zeros(with_batch)).shape
        if y.shape != expected:
            raise ValueError(
                f"The measurement has shape {tuple(y.shape)}, but the operator makes "
                f"{tuple(expected)} of images {self.operator.image_shape}."
            )


def check_problem(problem: InverseProblem, x_T: Tensor) -> None:
    """Raise ValueError unless the problem fits the initial noise ``x_T`` [B, ...].

    The adjoint of the operator is checked, too, in the dtype and on the device of ``x_T``.
    """
    check_numbers("The initial noise", x_T)
    shape = problem.operator.image_shape
    if x_T.shape[1:] != shape:
        raise ValueError(
            f"The initial noise has shape {tuple(x_T.shape)}; the operator takes images of {shape}."
        )
    check_count(problem, len(x_T))
    check_operator(problem.operator, x_T.new_zeros((), dtype=working_dtype(x_T.dtype)))


def check_count(problem: InverseProblem, count: int) -> None:
    """Raise ValueError unless there are ``count`` measurements, or one for all samples.

    An adaptive solver evaluates the model on a part of the batch, so it needs one for all.
    """
    given = len(problem.measurement)
    if given not in (1, count):
        raise ValueError(
            f"{given} measurements came for {count} samples; give one for each, or one for all."
        )


class Agreement(NamedTuple):
    """Data consistency of solutions, and their spread, as root mean squares.

    Attributes:
        error: of the measurement, ``A x - y``.
        deviation: between the solutions, in the null space of A; None for a single one.
    """

    error: float
    deviation: float | None


def agreement(problem: InverseProblem, x: Tensor) -> Agreement:
    """The data consistency of solutions x [B, ...], and their spread."""
    operator = problem.operator
    error = operator.forward(x) - problem.measurement.to(x)
    alone = len(x) == 1
    deviation = None if alone else _rms(unmeasured(operator, x).std(dim=0))
    return Agreement(_rms(error), deviation)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def project(x: Tensor, problem: InverseProblem) -> Tensor:
    """The image nearest to x [B, ...] whose measurement is y: ``x - A^+ (A x - y)``."""
    operator, y = problem.operator, problem.measurement.to(x)
    return x + pseudo_inverse(operator, y - operator.forward(x))
