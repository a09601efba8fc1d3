r"""Linear operators A of measurements ``y = A x``: inpainting, colourisation, blurring and others.

All maps act on batches, from ``[B, *image_shape]`` to [B, ...] and back, sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from samplers import choices
from samplers.checks import check_whole

Map = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]

Grey = choices.Grey

# The weights of red, green and blue in the luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)

_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class LinearOperator:
    r"""A linear operator A on images, with its adjoint.

    Attributes:
        forward: maps x ``[B, *image_shape]`` to A x.
        adjoint: maps y to A^T y, with <A x, y> = <x, A^T y>.
        image_shape: the shape of one image.
        gram: the scale c in A A^T = c I on the range of A, if there is one; then A^+ = A^T / c.
        pseudo_inverse: maps y to A^+ y (Moore and Penrose). Without it, and without ``gram``,
            conjugate gradients compute it.
    """

    forward: Map
    adjoint: Map
    image_shape: Shape
    gram: float | None = None
    pseudo_inverse: Map | None = None

    def __post_init__(self) -> None:
        for name, map_ in (("forward map", self.forward), ("adjoint", self.adjoint)):
            if not callable(map_):
                raise TypeError(
                    f"The operator has no {name}; it must be a function of a batch, "
                    f"but it is {map_!r}."
                )
        if self.gram is not None and not self.gram > 0:
            raise ValueError(f"The operator has gram = {self.gram}; it must be positive.")


def inpainting(mask: Tensor, image_shape: Shape) -> LinearOperator:
    """The operator of inpainting: keep the known pixels, and set the others to zero.

    Args:
        mask: True or 1 where the image is known, else False or 0; its shape broadcasts to
            ``image_shape``.
    """
    known = mask.to(torch.bool)
    if not bool((known.to(mask) == mask).all()):
        raise ValueError("The mask has other numbers than 0 and 1; an image is known or it is not.")
    if not _broadcasts(known.shape, image_shape):
        raise ValueError(
            f"The mask has shape {tuple(known.shape)}, which does not fit images of "
            f"{tuple(image_shape)}."
        )

    def keep(x: Tensor) -> Tensor:
        return x * known.to(x)

    return LinearOperator(keep, keep, tuple(image_shape), gram=1.0)


def colourisation(image_shape: Shape, grey: Grey = "luma") -> LinearOperator:
    r"""The operator of colourisation: the grey image [B, 1, H, W] of a colour image [B, 3, H, W].

    ``mean`` is the mean of the channels, ``luma`` that of ITU-R BT.601. The weights w have the
    pseudo-inverse ``w / |w|^2``, so ``A^+ A`` is the projection onto the first vector of an
    orthonormal basis of colours, as in Song et al. 2021, appendix I.2
    (https://arxiv.org/abs/2011.13456).
    """
    if len(image_shape) != 3 or image_shape[0] != 3:
        raise ValueError(
            f"Colourisation is of images with shape (3, height, width), not {tuple(image_shape)}."
        )
    if grey not in get_args(Grey):
        raise ValueError(f"Grey is {grey!r}; it must be one of {', '.join(get_args(Grey))}.")
    chosen = (1 / 3, 1 / 3, 1 / 3) if grey == "mean" else _LUMA
    weights = torch.tensor(chosen, dtype=torch.float64)[:, None, None]

    def forward(x: Tensor) -> Tensor:
        return (x * weights.to(x)).sum(dim=1, keepdim=True)

    def adjoint(y: Tensor) -> Tensor:
        return y * weights.to(y)

    gram = float(weights.square().sum())
    return LinearOperator(forward, adjoint, tuple(image_shape), gram=gram)


def downsampling(image_shape: Shape, factor: int) -> LinearOperator:
    """The operator of super-resolution: the means of blocks of ``factor`` x ``factor`` pixels."""
    check_whole("The factor of downsampling", factor)
    if len(image_shape) != 3 or any(side % factor for side in image_shape[1:]):
        raise ValueError(
            f"Downsampling by {factor} needs images of shape (channels, height, width) whose sides "
            f"it divides; they have {tuple(image_shape)}."
        )

    def forward(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, factor)

    def adjoint(y: Tensor) -> Tensor:
        wide = y.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
        return wide / factor**2

    return LinearOperator(forward, adjoint, tuple(image_shape), gram=1 / factor**2)


def blurring(image_shape: Shape, std: float, cutoff: float = 0.01) -> LinearOperator:
    """The operator of deblurring: convolution with a Gaussian of deviation ``std``, in pixels.

    The image is padded by repeating its border. The kernel is truncated at four standard
    deviations.

    Args:
        cutoff: for the pseudo-inverse, components that are damped to less than this, along rows or
            columns, count as not measured; in an 8-bit image they are lost to rounding.
    """
    if len(image_shape) != 3 or not 0 < std < math.inf:
        raise ValueError(
            f"Blurring by {std} pixels needs images of shape (channels, height, width) and a "
            f"positive number; the images have {tuple(image_shape)}."
        )
    if std > max(image_shape[1:]):
        raise ValueError(
            f"Blurring by {std:g} pixels leaves nothing of an image of {image_shape[1]} x "
            f"{image_shape[2]}; take a number below its sides."
        )
    reach = math.ceil(4 * std)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.softmax(-(offsets / std).square() / 2, dim=0)
    rows, columns = (_convolution(side, kernel) for side in image_shape[1:])

    def forward(x: Tensor) -> Tensor:
        return rows.to(x) @ x @ columns.to(x).T

    def adjoint(y: Tensor) -> Tensor:
        return rows.to(y).T @ y @ columns.to(y)

    rows_back: Tensor = torch.linalg.pinv(rows, rtol=cutoff)
    columns_back: Tensor = torch.linalg.pinv(columns, rtol=cutoff)

    def pseudo_inverse(y: Tensor) -> Tensor:
        return rows_back.to(y) @ y @ columns_back.to(y).T

    shape = tuple(image_shape)
    return LinearOperator(forward, adjoint, shape, pseudo_inverse=pseudo_inverse)


def _convolution(side: int, kernel: Tensor) -> Tensor:
    """The matrix [side, side] that convolves a line with the kernel, its ends repeated."""
    reach = len(kernel) // 2
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for pixel in range(side):
        sources = torch.arange(pixel - reach, pixel + reach + 1).clamp(0, side - 1)
        matrix[pixel].index_add_(0, sources, kernel)
    return matrix


def check_operator(operator: LinearOperator, like: Tensor) -> None:
    """Raise ValueError unless ``<A x, y> = <x, A^T y>``, and ``A A^T A x = c A x`` for the scale c
    of ``gram``, if given, for random x and y.

    Args:
        like: a tensor of the dtype and on the device that the maps will be used with.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *operator.image_shape, generator=generator, dtype=torch.float64).to(like)
    forward = operator.forward(x)
    y = torch.randn(forward.shape, generator=generator, dtype=torch.float64).to(like)
    back = operator.adjoint(y)
    if back.shape != x.shape:
        raise ValueError(
            f"The adjoint of the operator gives shape {tuple(back.shape)} for a measurement of "
            f"{tuple(y.shape)}; it must give {tuple(x.shape)}, the shape of the images."
        )
    one, other = float((forward * y).sum()), float((x * back).sum())
    size = float(forward.norm() * y.norm() + x.norm() * back.norm())
    slack = torch.finfo(x.dtype).eps ** 0.5
    if not abs(one - other) <= slack * size:
        raise ValueError(
            "The adjoint of the operator is not that of its forward map: for random x and y, "
            f"<A x, y> is {one:.6g} and <x, A^T y> is {other:.6g}."
        )
    if operator.gram is None:
        return
    again = operator.forward(operator.adjoint(forward))
    if not float((again - operator.gram * forward).norm()) <= slack * float(again.norm()):
        found = float((again * forward).sum() / forward.square().sum())
        raise ValueError(
            f"The operator has gram = {operator.gram:.6g}, but A A^T is not this multiple of the "
            f"identity (on average {found:.6g}, for a random x); omit gram, or give a "
            "pseudo_inverse."
        )


def pseudo_inverse(operator: LinearOperator, y: Tensor) -> Tensor:
    """``A^+ y``, the least-squares solution of ``A x = y`` with the smallest norm."""
    if operator.pseudo_inverse is not None:
        return operator.pseudo_inverse(y)
    return damped_inverse(operator, y, y.new_zeros(()))


def within_range(operator: LinearOperator, y: Tensor) -> Tensor:
    """The projection of y onto the range of A, ``A A^T y / c``; y itself if ``gram`` is None.

    For inpainting it is the known part. The rest would disturb conjugate gradients, which cannot
    reduce it.
    """
    if operator.gram is None:
        return y
    return operator.forward(operator.adjoint(y)) / operator.gram


def unmeasured(operator: LinearOperator, x: Tensor) -> Tensor:
    """The projection of x onto the null space of A, ``x - A^+ A x``."""
    return x - pseudo_inverse(operator, operator.forward(x))


def damped_inverse(operator: LinearOperator, y: Tensor, damping: Tensor) -> Tensor:
    """``(A^T A + damping)^(-1) A^T y``; for damping 0 the limit, which is ``A^+ y``.

    Args:
        damping: zero or positive, a number or one for each sample, to broadcast against an image.

    Raises ValueError if conjugate gradients do not converge.
    """
    back = operator.adjoint(y)
    if operator.gram is not None:
        return back / (operator.gram + damping)
    found = conjugate_gradients(
        lambda x: operator.adjoint(operator.forward(x)) + damping * x, back, _ITERATIONS
    )
    if bool((found.squared > torch.finfo(back.dtype).eps * inner_product(back, back)).any()):
        remedy = "pass a noise_std that is larger, or 0"
        raise ValueError(
            f"Conjugate gradients did not converge in {_ITERATIONS} iterations; "
            f"{remedy if bool((damping > 0).any()) else 'give the operator a pseudo_inverse'}."
        )
    return found.x


class Search(NamedTuple):
    """The state of conjugate gradients; numbers of a sample are shaped to broadcast.

    Attributes:
        squared: |residual|^2 of each sample.
        moving: whether the iteration of a sample has not stopped.
    """

    x: Tensor
    residual: Tensor
    direction: Tensor
    squared: Tensor
    moving: Tensor


def conjugate_gradients(matrix: Map, b: Tensor, iterations: int) -> Search:
    """Solve ``matrix(x) = b`` for a symmetric positive matrix by conjugate gradients.

    Each sample of the batch has its own stopping criterion, so it does not depend on the others. It
    also stops where the matrix is found not to be positive.
    """
    goal = (4 * torch.finfo(b.dtype).eps) ** 2 * inner_product(b, b)
    now = Search(torch.zeros_like(b), b, b, inner_product(b, b), inner_product(b, b) > goal)
    for _ in range(iterations):
        if not bool(now.moving.any()):
            break
        now = _next(matrix, now, goal)
    return now


def _next(matrix: Map, now: Search, goal: Tensor) -> Search:
    image = matrix(now.direction)
    curvature = inner_product(now.direction, image)
    moving = now.moving & (curvature > 0)
    one = torch.ones_like(curvature)
    length = torch.where(moving, now.squared / torch.where(moving, curvature, one), 0 * one)
    residual = now.residual - length * image
    squared = inner_product(residual, residual)
    turn = squared / torch.where(now.squared > 0, now.squared, one)
    direction = residual + turn * now.direction
    x = now.x + length * now.direction
    return Search(x, residual, direction, squared, moving & (squared > goal))


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, shaped to broadcast against it."""
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def _broadcasts(shape: Shape, to: Shape) -> bool:
    try:
        return tuple(torch.broadcast_shapes(shape, to)) == tuple(to)
    except RuntimeError:
        return False
