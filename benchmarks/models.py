"""Models to measure samplers on: mixtures with exact score, and the networks of ``assets``.

Each is a denoiser with initial noise and a converged solution of its probability-flow ODE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from samplers.data_scale import measure_data_scale
from samplers.denoiser import Denoiser
from samplers.prediction import PredictionType
from samplers.sampling import sample
from samplers.schedule import EDM, FlowMatching, Schedule, VPDiscrete
from tests.mixture import Mixture

ASSETS = Path(__file__).parent.parent / "assets"
SCHEDULES: dict[str, Schedule] = {
    "VP": VPDiscrete.linear(),
    "EDM": EDM(),
    "flow": FlowMatching(),
}
_CONVERGED, _CONVERGED_NETWORK = ("unipc-3", 1000), ("unipc-3", 200)
_PILOTS = range(1000, 1008)
"""Seeds of the samples that the scale of the data is measured on."""


@dataclass(frozen=True, eq=False)
class Case:
    """A model with initial noise, on which samplers are compared.

    Attributes:
        denoiser: the model.
        conditions: one row for each seed.
        family: ``pixel``, ``latent``, ``mixture`` or ``flow``.
        shape: of one sample.
        seeds: of the initial noise.
    """

    name: str
    family: str
    denoiser: Denoiser
    conditions: Mapping[str, Tensor]
    shape: tuple[int, ...]
    seeds: Sequence[int]
    dtype: torch.dtype = torch.float32
    converged: tuple[str, int] = _CONVERGED

    @cached_property
    def model(self) -> Denoiser:
        """The model with its conditions given: it is called with x and t alone."""

        def network(x: Tensor, t: Tensor) -> Tensor:
            return self.denoiser(x, t, **self.conditions)

        return self.denoiser.wrapped(network)

    @cached_property
    def noise(self) -> Tensor:
        """x_T [B, ...]."""
        return self.model.initial(self.shape, self.seeds, dtype=self.dtype)

    @cached_property
    def solution(self) -> Tensor:
        """x_0 of the probability-flow ODE, converged."""
        sampler, steps = self.converged
        return sample(self.model, self.noise, sampler=sampler, steps=steps, grid="log-snr")

    def errors(self, x_0: Tensor) -> Tensor:
        """The distance of each sample from the converged one, relative to its norm [B]."""
        difference = (x_0.double() - self.solution.double()).flatten(1).norm(dim=1)
        return difference / self.solution.double().flatten(1).norm(dim=1)


def mixture(dimension: int, components: int, generator: torch.Generator) -> Mixture:
    """Components at distance ~1, standard deviations from 0.1 to 0.3, uneven weights."""
    means = torch.randn(components, dimension, generator=generator, dtype=torch.float64)
    deviations = 0.1 + 0.2 * torch.rand(components, generator=generator, dtype=torch.float64)
    weights = torch.softmax(torch.randn(components, generator=generator).double() / 2, dim=0)
    eye = torch.eye(dimension, dtype=torch.float64)
    return Mixture(weights, means, deviations.square()[:, None, None] * eye)


MIXTURES = {
    "plane": lambda: mixture(2, 6, torch.Generator().manual_seed(0)),
    "sixteen": lambda: mixture(16, 10, torch.Generator().manual_seed(1)),
}
"""Six components in the plane, and ten in 16 dimensions."""


def mixture_case(name: str, schedule: str, scale: float = 1.0, count: int = 64) -> Case:
    of_data = MIXTURES[name]()
    dimension = of_data.means.shape[1]
    scaled = of_data.affine(scale, torch.zeros(dimension, dtype=torch.float64))
    prediction: PredictionType = "flow" if schedule == "flow" else "epsilon"
    model = scaled.model(SCHEDULES[schedule], prediction)
    if scale != 1:
        noise = model.initial((dimension,), _PILOTS, dtype=torch.float64)
        model = model.with_data_scale(measure_data_scale(model, noise))
    family = "flow" if schedule == "flow" else "mixture"
    title = f"{name}, {schedule}" + ("" if scale == 1 else f", × {scale:g}")
    return Case(title, family, model, {}, (dimension,), range(count), torch.float64)


def pixel_case(name: str, count: int = 4) -> Case:
    """A network of pixels in ``assets``, of classes in turn if it has any, without guidance."""
    from samplers.checkpoint import LoadOptions, NetworkCheckpoint, load_checkpoint

    checkpoint = load_checkpoint(ASSETS / name, LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    classes = checkpoint.classes
    labels = [classes[i % len(classes)] for i in range(count)] if classes else None
    return Case(
        name,
        "pixel",
        checkpoint.denoiser(),
        checkpoint.conditions(labels),
        checkpoint.shape,
        range(count),
        converged=_CONVERGED_NETWORK,
    )


def cylinder_case(count: int = 2) -> Case:
    """The transformer of ``assets/cylinder``, given sentences, without guidance."""
    from text2pde.pipeline import Request, load_text2pde
    from text2pde.subject.cylinder.captions import read_cylinder_flow

    pipe = load_text2pde(ASSETS / "cylinder")
    sentences = [
        f"Water flows past a cylinder of radius 0.05 m at Reynolds number {60 + 20 * (i % 5)}"
        for i in range(count)
    ]
    requests = [Request(read_cylinder_flow(words), words) for words in sentences]
    shape = pipe.autoencoder.latent_shape(pipe.config.frames)
    with torch.no_grad():
        conditions = pipe.conditions(requests)
    return Case(
        "cylinder",
        "latent",
        pipe.denoiser,
        conditions,
        shape,
        range(count),
        converged=_CONVERGED_NETWORK,
    )


OF_MIXTURES: dict[str, Callable[..., Case]] = {
    **{
        f"{name} {schedule}": partial(mixture_case, name, schedule)
        for name in MIXTURES
        for schedule in SCHEDULES
    },
    **{f"{name} VP x40": partial(mixture_case, name, "VP", 40.0) for name in MIXTURES},
}
OF_NETWORKS: dict[str, Callable[..., Case]] = {
    "digits": partial(pixel_case, "digits"),
    "cylinder": cylinder_case,
    "colour": partial(pixel_case, "colour"),
}
CASES = OF_MIXTURES | OF_NETWORKS
