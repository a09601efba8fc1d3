r"""Layer 6. Every fixed-grid sampler as a scheduler of diffusers.

:class:`SamplerScheduler` runs the executor within the loop of a pipeline: ``set_timesteps`` makes a
grid and a tableau, each ``step`` is one :meth:`samplers.solve.Solver.advance`. A sampler with
several network evaluations per step has as many timesteps per step. States are in the coordinates
of the network's input, so ``scale_model_input`` is the identity.

``SchedulerMixin`` has to be a name in this module: pipelines look it up when they load a scheduler
that is not from diffusers.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, overload

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from samplers.choices import DEFAULT_SAMPLER, ConfigSpacing
from samplers.diffusers.classes import (
    KNOWN_CLASSES,
    OWN_CLASS,
    HasConfig,
    LevelEnds,
    ScheduleKind,
    named_config,
)
from samplers.diffusers.conversion import own_config
from samplers.diffusers.loop import (
    calls_of,
    own_levels_of,
    plain,
    refuse_custom_levels,
    refuse_settings_of_levels,
    sampler_of,
    settings_of,
    steps_of,
    tableau_on,
    without_fitted_grid,
)
from samplers.diffusers.run import Run
from samplers.diffusers.settings import Numbers, SchedulerSettings
from samplers.diffusers.timesteps import (
    check_begin,
    check_both,
    check_value,
    entered,
    equal,
    given,
    index_of_view,
    of_length,
    starts_a_step,
)
from samplers.fitting.fitted import FittedGrid
from samplers.grid import Grid, make_grid
from samplers.noise import Generators, sample_seeds
from samplers.schedule import FlowMatching, Point, VPDiscrete
from samplers.solve import NoiseKind, Solver, make_noise
from samplers.tableau import Row, Tableau
from samplers.tuning.sampler import TunedSampler


@dataclass
class SamplerSchedulerOutput(BaseOutput):
    """The output of :meth:`SamplerScheduler.step`.

    Attributes:
        prev_sample: the next input of the network; finally the finished sample.
        pred_original_sample: the prediction of x_0 from this network evaluation.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class _Plan(NamedTuple):
    """The result of ``set_timesteps``, which does not depend on the sample.

    ``told`` are the timesteps on the CPU, in float32.
    """

    settings: SchedulerSettings
    grid: Grid
    solver: Solver
    told: Tensor

    @property
    def tableau(self) -> Tableau:
        return self.solver.tableau

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.solver.tableau.rows


class SamplerScheduler(SchedulerMixin, ConfigMixin):
    """A diffusers scheduler for every fixed-grid sampler of :func:`samplers.list_samplers`.

    ``pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler)``

    The noise schedule and the prediction type are read from the config of the scheduler that the
    model was published with, including the defaults of its class. Further arguments:

    Args:
        sampler: a name or alias from the registry; or a tuned sampler, see
            :func:`samplers.load_sampler`, which the config then holds as plain values. It has its
            own number of steps and its own grid. Networks that were distilled for a sampler (by
            the class of their config: LCM, TCD, consistency models) have that one by default.
        sampler_options: its options, such as ``{"eta": 0.5}``.
        noise: of stochastic samplers, ``independent`` in each evaluation, or along a ``brownian``
            path for each seed, on which more steps converge to one image.
        grid: a spacing of :func:`samplers.make_grid`; a fitted grid, see
            :func:`samplers.load_grid`, which the config then holds as plain values; ``config`` for
            the config's own (``timestep_spacing`` and the keys of noise levels); None for the
            default:

            ======================================================  ================
            config                                                  None is
            ======================================================  ================
            betas, EDM, variance exploding                          as of ``sample``
            of these, with ``use_karras_sigmas``,                   ``config``
            ``use_lu_lambdas``, ``use_exponential_sigmas`` or
            ``sigma_schedule="exponential"``
            flow matching, whose shift belongs to the network       ``config``
            distilled networks; mean-reverting diffusion            ``config``
            ======================================================  ================
        sigma_min, sigma_max: the smallest and largest noise level of the grid in units of
            sigma / alpha; None follows the config. (EDM configs use the same names for the ends of
            the trained range, which they are there as well.)
        data_scale: the root mean square of the data, on which the default grid and sampler depend;
            1 is right for pixels in [-1, 1] and for latents of unit variance.
        carried: the names of keys that belong to another class than the config: they are not read,
            and only restored when the scheduler is converted to that class.

    Raises ValueError for settings that do not fit together; see docs/diffusers.md for the keys.
    """

    _compatibles = [*KNOWN_CLASSES]  # noqa: RUF012  diffusers reads a list from the class
    order = 1
    timesteps: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sampler: str | dict[str, Any] | TunedSampler = DEFAULT_SAMPLER,
        sampler_options: dict[str, Any] | None = None,
        noise: NoiseKind = "independent",
        grid: ConfigSpacing | dict[str, Any] | FittedGrid | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        schedule: ScheduleKind = "vp",
        prediction_type: str | None = None,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float = 1.0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        sigma_schedule: str = "karras",
        sigma_data: float = 1.0,
        data_scale: float = 1.0,
        final_sigmas_type: str = "zero",
        use_flow_sigmas: bool = False,
        shift: float = 1.0,
        shift_terminal: float | None = None,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        theta: str = "cosine",
        eps: float = 0.005,
        convention: str = "ir-sde",
        variance_type: str | None = None,
        lambda_min_clipped: float | None = None,
        original_inference_steps: int | None = None,
        timestep_scaling: float | None = None,
        level_ends: LevelEnds = "trained",
        carried: list[str] | None = None,
    ) -> None:
        # Converted schedulers carry both along.
        self.register_to_config(_class_name=OWN_CLASS, sampler=plain(sampler), grid=plain(grid))
        own_levels_of(self.config)  # checks them
        self.order = calls_of(self.config)
        self.num_inference_steps: int | None = None
        self._plan: _Plan | None = None
        self._run: Run | None = None
        self._begin_index: int | None = None
        self._replaced: deque[Tensor] = deque(maxlen=_REMEMBERED)
        self._show_trained_steps()

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | HasConfig | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Make the scheduler from another one, such as ``pipe.scheduler``, or from its config.

        Args:
            config: a scheduler, whose class is known, or a config. One that does not name its class
                (``pipe.scheduler.config`` of a scheduler that was never saved) must have the keys
                of one class only.
            kwargs: any argument of the class, which overrides the config. None follows the config
                (except for ``grid`` and ``sampler_options``, where it is the default).

        Raises ValueError for a config of an unknown kind and for arguments that do not exist.
        """
        kwargs = {k: v for k, v in kwargs.items() if v is not None or k in _MAY_BE_NONE}
        unknown = [key for key in kwargs if key not in inspect.signature(cls.__init__).parameters]
        if unknown and not return_unused_kwargs:
            _refuse_argument(unknown[0], list(inspect.signature(cls.__init__).parameters)[1:])
        if "sampler" in kwargs:
            kwargs["sampler"] = plain(kwargs["sampler"])
        if "grid" in kwargs:
            kwargs["grid"] = plain(kwargs["grid"])
        named = named_config(config)
        kwargs = without_fitted_grid(named, kwargs)
        refuse_settings_of_levels(named, kwargs)
        made: Self | tuple[Self, dict[str, Any]] = super().from_config(
            own_config(named, kwargs), return_unused_kwargs, **kwargs
        )
        return made

    def _settings(self) -> SchedulerSettings:
        """Read for each run, since pipelines change the config."""
        return settings_of(self.config)

    def __getattr__(self, name: str) -> Any:
        """Keys of the config; AttributeError for what belongs to other scheduler classes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"SamplerScheduler has no attribute {name!r}; a pipeline that uses it works with "
                "its own scheduler only."
            ) from None

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the initial noise: 1 where alpha^2 + sigma^2 is 1, else
        sigma."""
        return float(self.sigmas[0]) if self._settings().schedule.starts_at_sigma else 1.0

    @property
    def begin_index(self) -> int | None:
        """The index of the timestep at which the run begins, as set by the pipeline."""
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """The index of the next timestep; None before the first."""
        return None if self._run is None else self._run.index

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha^2 at the trained steps, for training scripts that read it."""
        schedule = self._settings().schedule
        if not isinstance(schedule, VPDiscrete):
            raise AttributeError("Only schedules made from betas have alphas_cumprod.")
        return schedule.alphas_cumprod.float()

    @property
    def settings(self) -> SchedulerSettings:
        """The noise schedule and prediction type, with the flow shift of the current timesteps."""
        return self._planned().settings

    @property
    def tableau(self) -> Tableau:
        """The tableau of the current run."""
        return self._planned().tableau if self._run is None else self._run.solver.tableau

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Set the index of the timestep at which the next run begins (image-to-image).

        Raises ValueError unless a step begins there.
        """
        if self._plan is not None:
            self._check_begin(self._plan.rows, begin_index)
        self._begin_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
        """The identity: samples are in the coordinates of the network's input.

        Raises ValueError for a noise level, which the latent upscaler scales by itself.
        """
        if not sample.ndim:
            raise ValueError(
                "scale_model_input was given a single number, a noise level to scale the network's "
                "output by; it takes samples only, so keep the pipeline's own scheduler."
            )
        return sample

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Numbers | None = None,
        sigmas: Numbers | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
        **others: Any,
    ) -> None:
        """Choose the grid, and end the previous run.

        Args:
            num_inference_steps: steps of the grid; ``timesteps`` gets one entry for each network
                evaluation: ``order`` per step, one for a step from pure noise or to sigma = 0. Of a
                tuned sampler and of a fitted grid it is their own number, or None.
            device: of ``timesteps``.
            timesteps: alternatively, the timesteps of the grid's points, as the network is given
                them, noisiest first.
            sigmas: alternatively, the noise levels, noisiest first, with or without the 0 at the
                end: the times before the shift for flow models, sigma / alpha for all others.
            mu: the logarithm of the flow shift for this image size (the shift itself if
                ``time_shift_type`` is linear), read if ``use_dynamic_shifting`` is set.
            original_inference_steps, strength: of LCM's pipelines, for configs of LCM and TCD: the
                number of steps of the distillation, in place of the config's, and the share of
                them, cleanest first, that the grid is taken from.

        Raises ValueError for steps < 1, grids outside of what the network was trained for, and
        grids on which the sampler is not defined.
        """
        _refuse_others("set_timesteps", others)
        self._plan, self._run, self._begin_index = None, None, None
        settings = self._settings().shifted_by(mu).distilled_at(original_inference_steps, strength)
        grid = self._grid(settings, num_inference_steps, timesteps, sigmas)
        tableau = entered(tableau_on(self.config, grid))
        self.num_inference_steps = grid.steps
        # Pipelines count custom steps by the length of timesteps, so in network evaluations.
        self.order = calls_of(self.config) if timesteps is None and sigmas is None else 1
        points = [*(row.at for row in tableau.rows), tableau.end]
        stacked = (torch.stack(column) for column in zip(*points, strict=True))
        self._replaced.append(self.timesteps)
        self._show(settings, Point(*stacked))
        told = self.timesteps
        if timesteps is not None and sigmas is not None:
            told = given(timesteps, tableau, grid)
        self.timesteps = told.to(device)
        solver = Solver(tableau, settings.prediction, correct=settings.correction)
        solver.prepare(torch.float32, self.timesteps.device)
        self._plan = _Plan(settings, grid, solver, told)

    def _grid(
        self,
        settings: SchedulerSettings,
        steps: int | None,
        timesteps: Numbers | None,
        sigmas: Numbers | None,
    ) -> Grid:
        own = own_levels_of(self.config)
        if own is not None:
            refuse_custom_levels(own, timesteps, sigmas)
            steps_of(self.config, steps, own.steps)
            return own.grid(settings.schedule)
        if timesteps is not None and sigmas is not None:
            check_both(settings, timesteps, sigmas)
        elif timesteps is not None:
            return of_length(settings.grid_from_timesteps(timesteps), steps)
        if sigmas is not None:
            return of_length(settings.grid_from_sigmas(sigmas), steps)
        if steps is None:
            raise ValueError("set_timesteps needs num_inference_steps, timesteps or sigmas.")
        return settings.grid(steps, self.config.grid)

    def _show_trained_steps(self) -> None:
        """The timesteps before any are set, which are those of training: the whole range."""
        settings = self._settings()
        low, high = settings.sigma_min, settings.sigma_max
        make_grid(settings.schedule, 1, "uniform", sigma_min=low, sigma_max=high)  # checks them
        whole = dataclasses.replace(
            settings,
            final="zero",
            sigma_min=None,
            sigma_max=None,
            shift_terminal=None,
            distilled_times=None,
            ends_of=None,
        )
        steps, named = _trained_steps(whole, self), self.config.grid
        spacing = named if isinstance(named, str) else "config"
        self._show(whole, whole.grid(steps, spacing).points)

    def _show(self, settings: SchedulerSettings, points: Point) -> None:
        """Set ``timesteps``, as the network is given them (float32), and the noise levels
        ``sigmas``."""
        self.timesteps = (points.t[:-1] * settings.time_scale).to(torch.float32)
        on_flow = isinstance(settings.schedule, FlowMatching)
        self.sigmas = (points.sigma if on_flow else points.rho).to(torch.float32)

    def _planned(self) -> _Plan:
        if self._plan is None:
            raise ValueError("No timesteps are set; call set_timesteps before the first step.")
        return self._plan

    @overload
    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        prev_timestep: float | Tensor | None = None,
        return_dict: Literal[True] = True,
        **others: Any,
    ) -> SamplerSchedulerOutput: ...

    @overload
    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        prev_timestep: float | Tensor | None = None,
        *,
        return_dict: Literal[False],
        **others: Any,
    ) -> tuple[Tensor, Tensor]: ...

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        prev_timestep: float | Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> SamplerSchedulerOutput | tuple[Tensor, Tensor]:
        """One row of the tableau: from the network's output at ``sample`` to the next point.

        Args:
            model_output: what the network returned, shaped like ``sample`` (a learned variance in
                further channels is not used).
            timestep: the next element of ``timesteps``, or its value, which is checked unless it is
                on an accelerator (there only where a run begins and ``set_begin_index`` was not
                called). It may be rounded to another dtype.
            sample: the output of the previous step, which the pipeline may have edited.
            generator: one for each sample or one for all, whose state gives the seeds of a
                stochastic sampler; it is read once and not advanced. Without it, the seed of a
                sample is a hash of its initial noise.
            eta: accepted because DDIMPipeline passes it; the noise of a sampler is its own option.
            use_clipped_model_output: accepted for the same reason; here eps and x_0 always agree.
            prev_timestep: accepted because Kandinsky's priors pass it; must be the element of
                ``timesteps`` after this one.
            others: arguments that pipelines pass to other classes, such as ``variance_noise`` and
                ``per_token_timesteps``; must be None.

        Raises ValueError for a run that begins in the middle of a step or goes beyond its end, and
        for another timestep than the next.
        """
        _refuse_others("step", others)
        _check_eta(eta)
        if self._run is None:
            self._take_twin(timestep)
        self._check_replaced(timestep)
        output = _without_variance(model_output, sample)
        if self._run is None:
            self._run = self._begin(timestep, sample, generator)
        run = self._run
        if run.solver.done(run.state):
            raise ValueError("This run is finished; call set_timesteps before another one.")
        self._check_timestep(timestep, run.index)
        self._check_timestep(prev_timestep, run.index + 1)
        state = run.solver.advance(run.take_back(sample), output)
        x0 = state.predictions[0].to(sample.dtype, copy=True)  # which the caller may change
        x = run.hand_out(state, sample.dtype)
        return SamplerSchedulerOutput(x, x0) if return_dict else (x, x0)

    def _begin(self, timestep: float | Tensor, sample: Tensor, generator: Generators | None) -> Run:
        index = self._first_index(timestep)
        solver = self._solver_from(index)
        if solver.tableau.stochastic:
            seeds = sample_seeds(sample, generator)
            shape, kind = sample.shape[1:], self.config.noise
            solver = solver.with_noise(make_noise(solver.tableau, seeds, shape, kind, first=index))
        return Run.begin(solver, index, sample)

    def _first_index(self, timestep: float | Tensor) -> int:
        """The index at which a run begins: set by the pipeline, or that of the timestep."""
        if self._begin_index is not None:
            return self._begin_index
        index = index_of_view(timestep, self.timesteps)
        return self._index_by_value(timestep) if index is None else index

    def _index_by_value(self, timestep: float | Tensor) -> int:
        rows = self._planned().rows
        told = torch.as_tensor(timestep).flatten()[0].to("cpu", torch.float32)
        found = (self.timesteps.cpu() == told).nonzero().flatten().tolist()
        starts = [index for index in found if starts_a_step(rows, index)]
        if not found:
            raise ValueError(
                f"The timestep {float(told):.6g} is not one of this scheduler's; iterate over "
                "scheduler.timesteps, or call set_begin_index."
            )
        return int([*starts, *found][0])

    def _take_twin(self, timestep: float | Tensor) -> None:
        """Begin the run on the first of two equal timesteps: Allegro's pipeline sets them twice."""
        first = self._begin_index or 0  # a run that has begun is further on
        for older in self._replaced:
            if index_of_view(timestep, older) == first and equal(older, self.timesteps):
                others = [own for own in self._replaced if own is not older]
                self._replaced = deque([*others, self.timesteps], maxlen=_REMEMBERED)
                self.timesteps = older
                return

    def _check_replaced(self, timestep: float | Tensor) -> None:
        if any(index_of_view(timestep, older) is not None for older in self._replaced):
            raise ValueError(
                "The timestep belongs to a run that another call of set_timesteps ended; give each "
                "pipeline or thread its own scheduler, such as copy.deepcopy(scheduler)."
            )

    def _check_timestep(self, timestep: float | Tensor | None, expected: int) -> None:
        if timestep is None:
            return
        index = index_of_view(timestep, self.timesteps)
        if index is None:
            check_value(timestep, self._planned().told, expected)
        elif index != expected:
            raise ValueError(
                f"The timestep with index {index} came, but {expected} is the next of this run; "
                "call set_timesteps before another run."
            )

    def _solver_from(self, index: int) -> Solver:
        """The solver of a run that begins at timestep ``index``."""
        plan = self._planned()
        self._check_begin(plan.rows, index)
        if index == 0:
            return plan.solver
        start, rest = plan.rows[index].at, plan.rows[index:]
        try:
            tableau = dataclasses.replace(plan.tableau, start=start, rows=rest)
        except ValueError:  # a multistep method, whose rows use points before the index
            tableau = self._rebuilt(plan, index)
        return dataclasses.replace(plan.solver, tableau=tableau)

    def _check_begin(self, rows: Sequence[Row], index: int) -> None:
        """Raise ValueError unless a run may begin at the index."""
        check_begin(rows, index)
        if index and isinstance(sampler_of(self.config), TunedSampler):
            raise ValueError(
                f"The run would begin at timestep {index} of {len(rows)}, and a tuned sampler runs "
                "from pure noise only; take a sampler by name."
            )

    def _rebuilt(self, plan: _Plan, index: int) -> Tableau:
        """The sampler on the rest of the grid, with the history that exists there."""
        first = plan.rows[index].step
        rest = Grid(plan.grid.schedule, Point(*(values[first:] for values in plan.grid.points)))
        tableau = entered(tableau_on(self.config, rest))
        told = [float(row.at.t) for row in tableau.rows]
        if told != [float(row.at.t) for row in plan.rows[index:]]:
            raise ValueError(
                f"The sampler {self.config.sampler!r} calls the network elsewhere on a shorter "
                "grid, so it cannot begin in the middle of this one."
            )
        return tableau

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x_0 + sigma eps at the given timesteps, as the network is given them.

        Neither ``set_begin_index`` nor a run changes it, so that training may share the scheduler.
        """
        alpha, sigma = self._levels(timesteps)
        shape = (-1, *[1] * (original_samples.ndim - 1))
        alpha, sigma = (v.to(original_samples.device).reshape(shape) for v in (alpha, sigma))
        noised = alpha * original_samples + sigma * noise.to(original_samples.device)
        return noised.to(original_samples.dtype)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """:meth:`add_noise` under the name and order of arguments of flow-matching pipelines."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of a v-network, alpha eps - sigma x_0, at the given timesteps."""
        alpha, sigma = self._levels(timesteps)
        shape = (-1, *[1] * (sample.ndim - 1))
        alpha, sigma = (v.to(sample.device).reshape(shape) for v in (alpha, sigma))
        return (alpha * noise - sigma * sample).to(sample.dtype)

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, float32 on the CPU, one for all or one for each timestep."""
        settings = self._settings() if self._plan is None else self._plan.settings
        told = torch.as_tensor(timesteps).flatten().to("cpu", torch.float64)
        point = settings.schedule.point(told / settings.time_scale)
        return point.alpha.to(torch.float32), point.sigma.to(torch.float32)


_REMEMBERED = 8  # replaced timesteps; a loop over one of them that goes on is an error
_MAY_BE_NONE = ("grid", "sampler_options")


def _refuse_argument(name: str, known: list[str]) -> None:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "help(SamplerScheduler) has its arguments."
    raise ValueError(f"SamplerScheduler has no argument {name!r}; {hint}")


def _refuse_others(method: str, others: Mapping[str, Any]) -> None:
    passed = [name for name, value in others.items() if value is not None]
    if passed:
        raise ValueError(
            f"{method} was called with {passed[0]!r}, which SamplerScheduler does not have; a "
            "pipeline that passes it works with its own scheduler only."
        )


def _trained_steps(settings: SchedulerSettings, scheduler: SamplerScheduler) -> int:
    if isinstance(settings.schedule, VPDiscrete):
        return len(settings.schedule.alphas_cumprod)
    return len(scheduler)


def _check_eta(eta: float) -> None:
    if eta:
        raise ValueError(
            f"The pipeline was called with eta = {eta}; choose the noise with the sampler instead, "
            'as in sampler="ancestral", sampler_options={"eta": 0.5} (of "tcd" it is "gamma").'
        )


def _without_variance(output: Tensor, sample: Tensor) -> Tensor:
    """The prediction without a learned variance in further channels."""
    if output.shape == sample.shape:
        return output
    channels = sample.shape[1]
    if output.shape != (len(sample), 2 * channels, *sample.shape[2:]):
        raise ValueError(
            f"The network returned shape {tuple(output.shape)} for a sample of "
            f"{tuple(sample.shape)}; it must return the same, or twice the channels if it "
            "predicts a variance, too."
        )
    return output[:, :channels]
