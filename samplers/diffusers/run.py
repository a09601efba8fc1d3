r"""Layer 6. One run of a scheduler: its state, edits by the pipeline, the seeds of its noise.

Nothing is imported from diffusers here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.noise import hashed_seed
from samplers.solve import Solver, State

Generators = torch.Generator | Sequence[torch.Generator]


@dataclass
class Run:
    """One run over the timesteps: the state, and the sample that the pipeline was given last.

    Attributes:
        offset: the timestep that the first row of the solver's tableau belongs to.
        version: the in-place version counter of ``given`` when it was returned; None without one.
    """

    solver: Solver
    offset: int
    state: State
    given: Tensor
    version: int | None

    @classmethod
    def begin(cls, solver: Solver, offset: int, sample: Tensor) -> Run:
        """The run before the first step, at the initial sample of the pipeline."""
        return cls(solver, offset, solver.init(sample), sample, _version(sample))

    @property
    def index(self) -> int:
        """The index of the next timestep."""
        return self.offset + self.state.row

    def hand_out(self, state: State, dtype: torch.dtype) -> Tensor:
        """Store the state and return its newest point to the pipeline."""
        self.state, given = state, state.x.to(dtype)
        # An in-place edit within a step would change the state as well, and could not be measured.
        inside = not self.solver.done(state) and self.solver.tableau.rows[state.row].base > 0
        self.given = given.clone() if inside and given is state.x else given
        self.version = _version(self.given)
        return self.given

    def take_back(self, sample: Tensor) -> State:
        """The state with the pipeline's edit of the newest point since it was returned.

        The state of half-precision samples is stored in float32; only the edit is added to it.
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
        before = x.to(self.given.dtype)  # not ``given`` itself, which may be what was edited
        return self.solver.moved(self.state, x + (sample.to(x.dtype) - before.to(x.dtype)))


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def sample_seeds(sample: Tensor, generator: Generators | None = None) -> tuple[int, ...]:
    """A seed for each sample, the same alone and in a batch.

    With one generator per sample the seed is a hash of its state; with a shared generator, of its
    state and the sample's index. A pipeline that passes none to the scheduler (Stable Diffusion 3,
    Flux) has sampled the initial latents with it, so the seed is a hash of their values, rounded to
    float32.
    """
    if generator is None:
        values = sample.detach().cpu().float() + 0.0  # which makes 0 of -0
        return tuple(hashed_seed(_bytes(row)) for row in values)
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
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
