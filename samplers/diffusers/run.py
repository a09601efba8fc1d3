r"""Layer 6. One run of a scheduler: its state, what a pipeline may edit, the seeds of its noise.

Nothing here knows diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.noise import hashed_seed
from samplers.schedule import Point
from samplers.solve import Solver, State

Generators = torch.Generator | Sequence[torch.Generator]


@dataclass
class Run:
    """One pass over the timesteps: the state, and what the pipeline was given last.

    Attributes:
        offset: the timestep that the first row of the solver's tableau belongs to.
        version: the in-place version of ``given`` when it was handed out, None if it has no count.
    """

    solver: Solver
    offset: int
    state: State
    given: Tensor
    version: int | None

    @classmethod
    def begin(cls, solver: Solver, offset: int, sample: Tensor) -> Run:
        """Before the first step; the pipeline holds its own starting point."""
        return cls(solver, offset, solver.init(sample), sample, _version(sample))

    @property
    def index(self) -> int:
        """The timestep that comes next."""
        return self.offset + self.state.row

    @property
    def point(self) -> Point:
        """Where the newest point lies."""
        tableau = self.solver.tableau
        return tableau.end if self.solver.done(self.state) else tableau.rows[self.state.row].at

    def hand_out(self, state: State, dtype: torch.dtype) -> Tensor:
        """Keep the state and give the pipeline its newest point."""
        self.state, given = state, state.x.to(dtype)
        # An edit in place inside a step would reach the state too, and its size would be lost.
        inside = not self.solver.done(state) and self.solver.tableau.rows[state.row].base > 0
        self.given = given.clone() if inside and given is state.x else given
        self.version = _version(self.given)
        return self.given

    def take_back(self, sample: Tensor) -> State:
        """The state with what the pipeline changed in the newest point since it was handed out.

        A state in half precision is remembered in float32; only the pipeline's own difference
        is added to it.
        """
        if sample is self.given and self.version is not None and self.version == _version(sample):
            return self.state
        x = self.state.x
        if sample.shape != x.shape:
            raise ValueError(
                f"The sample came with shape {tuple(sample.shape)}, but this run began with "
                f"{tuple(x.shape)}; call set_timesteps before another run."
            )
        if self.given.dtype == x.dtype:
            return self.solver.moved(self.state, sample.to(x.dtype))
        return self.solver.moved(self.state, x + (sample.to(x.dtype) - self.given.to(x.dtype)))


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def sample_seeds(sample: Tensor, generator: Generators | None = None) -> tuple[int, ...]:
    """A seed for each sample, the same whether it is drawn alone or in a batch.

    A generator of a sample's own gives it a seed by its state alone; one that is shared, by its
    state and the sample's place. A pipeline that passes none (Stable Diffusion 3, Flux) has drawn
    the starting latents with it, so they stand for it.
    """
    if generator is None:
        return tuple(hashed_seed(_bytes(row)) for row in sample.detach().cpu())
    if isinstance(generator, torch.Generator):
        state = _bytes(generator.get_state())
        places = (b"" if i == 0 else i.to_bytes(8, "little") for i in range(len(sample)))
        return tuple(hashed_seed(state + place) for place in places)
    if len(generator) != len(sample):
        raise ValueError(
            f"{len(generator)} generators came for {len(sample)} samples; give one for each."
        )
    return tuple(hashed_seed(_bytes(own.get_state())) for own in generator)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()
