r"""Layer 6. One run of a scheduler: its state, and edits by the pipeline.

Nothing is imported from diffusers here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.solve import Solver, State


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
