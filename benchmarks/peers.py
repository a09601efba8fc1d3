"""Samplers of diffusers, k-diffusion and azula, each in all settings that apply to a model.

Methods of first order are left out: they are not the best in any cell.

diffusers is always there; the other two are measured if they are installed
(``pip install --no-deps k-diffusion azula torchdiffeq``).
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.schedule import EDM, FlowMatching, Schedule, VPDiscrete


class Peer(NamedTuple):
    """A sampler in one setting: ``draw(model, x_T, nfe)`` takes at most ``nfe`` evaluations."""

    name: str
    draw: Callable[[Denoiser, Tensor, int], Tensor]


class TooFew(ValueError):
    """The sampler can't run in so few network evaluations."""


# -------------------------------------------------------------------------------------- diffusers

Options = dict[str, Any]
_ALMOST = 0.999
SPACED: list[Options] = [
    {"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace")
]
_SIGMAS: list[Options] = [
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
]
GRIDS: list[Options] = [*SPACED, *_SIGMAS]
_FINAL: list[Options] = [{"final_sigmas_type": final} for final in ("zero", "sigma_min")]


def crossed(*options: list[Options]) -> Iterator[Options]:
    for chosen in itertools.product(*options):
        yield {key: value for option in chosen for key, value in option.items()}


def _orders(*orders: int) -> list[Options]:
    return [{"solver_order": order} for order in orders]


_BH: list[Options] = [{"solver_type": "bh1"}, {"solver_type": "bh2"}]


def of_betas(*orders: int) -> dict[str, list[Options]]:
    """All settings of the schedulers of betas, for these orders where there is a choice."""
    of_order = _orders(*orders)
    return {
        "PNDMScheduler": list(
            crossed(SPACED, [{"skip_prk_steps": True}], [{"set_alpha_to_one": True}])
        ),
        "HeunDiscreteScheduler": GRIDS,
        "KDPM2DiscreteScheduler": GRIDS,
        "LMSDiscreteScheduler": GRIDS,
        "DEISMultistepScheduler": list(crossed(GRIDS, of_order)),
        "UniPCMultistepScheduler": list(crossed(GRIDS, of_order, _FINAL, _BH)),
        "DPMSolverMultistepScheduler": list(
            crossed([*GRIDS, {"use_lu_lambdas": True}], of_order, _FINAL)
        ),
        "DPMSolverSinglestepScheduler": list(crossed([{}, *_SIGMAS], of_order, _FINAL)),
    }


_FLOW: list[Options] = [{"use_flow_sigmas": True, "prediction_type": "flow_prediction"}]
OF_FLOWS: dict[str, list[Options]] = {
    "FlowMatchHeunDiscreteScheduler": [{}],
    "DPMSolverMultistepScheduler": list(crossed(_FLOW, _orders(2, 3), _FINAL)),
    "UniPCMultistepScheduler": list(crossed(_FLOW, _orders(1, 2, 3), _FINAL, _BH)),
    "DEISMultistepScheduler": list(crossed(_FLOW, _orders(2, 3))),
}
_EDM_SCHEDULES: list[Options] = [{"sigma_schedule": name} for name in ("karras", "exponential")]
OF_EDM: dict[str, list[Options]] = {
    "EDMDPMSolverMultistepScheduler": list(crossed(_EDM_SCHEDULES, _orders(2, 3), _FINAL)),
}


def _diffusers(name: str, options: Options, model: Denoiser, x: Tensor, nfe: int) -> Tensor:
    scheduler = _scheduler(name, options, model.schedule)
    set_steps(scheduler, nfe)
    # The initial noise at the scale of the schedule; Euler's and its kin is divided by alpha.
    unit = x / float(model.schedule.initial_std(model.schedule.noisiest))
    x = unit * float(getattr(scheduler, "init_noise_sigma", 1.0))
    scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
    try:
        for t in scheduler.timesteps:
            x = scheduler.step(_output(scheduler, model, scale(x, t), t), t, x)[0]
    except (IndexError, AssertionError) as error:  # some of their grids repeat a timestep
        raise TooFew from error
    return x


def _scheduler(name: str, options: Options, schedule: Schedule) -> Any:
    make = getattr(diffusers, name)
    match schedule:
        case VPDiscrete():
            kind = {"prediction_type": "v_prediction"}
            return make(trained_betas=_betas(schedule), **kind, **options)
        case FlowMatching():
            return make(**options)
        case EDM():
            return make(sigma_min=schedule.sigma_min, sigma_max=schedule.sigma_max, **options)
    raise ValueError(f"No scheduler of diffusers is compared on {schedule!r}.")


def _betas(schedule: VPDiscrete) -> list[float]:
    alphas = torch.cat([torch.ones(1), schedule.alphas_cumprod])
    return [float(beta) for beta in 1 - alphas[1:] / alphas[:-1]]


def set_steps(scheduler: Any, nfe: int) -> None:
    """As many steps as take at most ``nfe`` evaluations."""
    for steps in range(nfe, 0, -1):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) <= nfe:
            return
    raise TooFew(f"{type(scheduler).__name__} in {nfe} evaluations.")


def _output(scheduler: Any, model: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    """What a network of the scheduler's own convention would return."""
    match model.schedule:
        case EDM() as schedule:
            sigma = scheduler.sigmas[scheduler.step_index or 0].double()
            raw = x * torch.sqrt(sigma**2 + 0.25)
            data = model.data(raw, float(schedule.at_lam(-sigma.log()).t))
            skip, scale = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / torch.sqrt(sigma**2 + 0.25)
            return (data - skip * raw) / scale
        case FlowMatching():
            return model.velocity(x, float(t) / 1000)
        case schedule:
            at = schedule.point(t.double())
            data = model.data(x, float(t))
            return at.alpha * (x - at.alpha * data) / at.sigma - at.sigma * data


def _all_of_diffusers(schedule: Schedule) -> list[Peer]:
    settings = {VPDiscrete: of_betas(2, 3), FlowMatching: OF_FLOWS, EDM: OF_EDM}.get(
        type(schedule), {}
    )
    return [
        Peer(f"{name}({words(options)})", partial(_diffusers, name, options))
        for name, found in settings.items()
        for options in found
    ]


def words(options: Options) -> str:
    return ", ".join(f"{key.removeprefix('use_')}={value}" for key, value in options.items())


# ------------------------------------------------------------------------------------ k-diffusion

_K_GRIDS: dict[str, Callable[[Any, int, float, float], Tensor]] = {
    "karras": lambda k, n, low, high: k.get_sigmas_karras(n, low, high),
    "exponential": lambda k, n, low, high: k.get_sigmas_exponential(n, low, high),
    "polyexponential 2": lambda k, n, low, high: k.get_sigmas_polyexponential(n, low, high, 2.0),
}
_K_CALLS = {
    "heun": 2, "dpm_2": 2, "lms": 1, "dpmpp_2m": 1, "dpmpp_2s_ancestral": 2,
    "dpmpp_2m_sde": 1, "dpmpp_3m_sde": 1,
}  # fmt: skip
_K_OPTIONS: dict[str, Options] = {
    "dpmpp_2s_ancestral": {"eta": 0.0}, "dpmpp_2m_sde": {"eta": 0.0}, "dpmpp_3m_sde": {"eta": 0.0},
}  # fmt: skip


@cache
def k_diffusion() -> Any:
    """k-diffusion's module of samplers, without the rest, which needs torchvision."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(folder)]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = _append_dims  # type: ignore[attr-defined]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return import_module("k_diffusion.sampling")


def _append_dims(x: Tensor, dims: int) -> Tensor:
    return x[(...,) + (None,) * (dims - x.ndim)]


def _in_rho(model: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
    """The prediction of x_0 at y = x / alpha and the noise levels rho [B]."""

    def denoise(y: Tensor, rho: Tensor) -> Tensor:
        at = model.schedule.at_lam(-rho[0].double().log())
        return model.data(at.alpha.to(y) * y, float(at.t))

    return denoise


def _levels(schedule: Schedule) -> tuple[float, float]:
    """The cleanest and the noisiest level; the first finite one after pure noise."""
    if not schedule.noisiest.pure_noise:
        return float(schedule.cleanest.rho), float(schedule.noisiest.rho)
    almost = schedule.point(schedule.at_fraction(torch.tensor(_ALMOST).double()))
    return float(schedule.cleanest.rho), float(almost.rho)


def _at_start(model: Denoiser, x: Tensor) -> Tensor:
    """The initial noise in the coordinates y = x / alpha of the noisiest finite level."""
    schedule, high = model.schedule, _levels(model.schedule)[1]
    start = schedule.at_lam(-torch.tensor(high).double().log())
    if schedule.noisiest.pure_noise:
        return x * float(start.sigma / start.alpha / schedule.noisiest.sigma)
    return x / float(start.alpha)


def _k_diffusion(name: str, grid: str, model: Denoiser, x: Tensor, nfe: int) -> Tensor:
    steps = (nfe - 1) // _K_CALLS[name] + 1
    if steps < 2:
        raise TooFew(f"{name} in {nfe} evaluations.")
    sigmas = _K_GRIDS[grid](k_diffusion(), steps, *_levels(model.schedule)).to(x)
    draw = getattr(k_diffusion(), f"sample_{name}")
    options = _K_OPTIONS.get(name, {})
    found: Tensor = draw(_in_rho(model), _at_start(model, x), sigmas, disable=True, **options)
    return found


def _all_of_k_diffusion() -> list[Peer]:
    if k_diffusion() is None:
        return []
    return [
        Peer(f"k-diffusion {name}, {grid}", partial(_k_diffusion, name, grid))
        for name in _K_CALLS
        for grid in _K_GRIDS
    ]


# ------------------------------------------------------------------------------------------ azula

_AZULA: dict[str, tuple[int, list[Options]]] = {
    "HeunSampler": (2, [{}]),
    **{
        name: (1, [{"order": order} for order in (2, 3, 4)])
        for name in ("zABSampler", "vABSampler", "zEABSampler", "xEABSampler", "REABSampler")
    },
}
_AZULA_TIMES = ("t", "log-snr")


def _azula_denoiser(model: Denoiser, times: str) -> Any:
    """The model as azula's denoiser; its time runs along t or along the log-SNR of the model."""
    denoise, noise = (import_module(f"azula.{name}") for name in ("denoise", "noise"))
    base_schedule: Any = noise.Schedule
    base_denoiser: Any = denoise.Denoiser
    own = model.schedule
    low, high = (torch.tensor(level).double().log() for level in _levels(own))

    def at(u: Tensor) -> Any:
        if times == "t":
            return own.point(own.at_fraction(u.double()))
        return own.at_lam(-(low + u.double() * (high - low)))

    class Levels(base_schedule):  # type: ignore[misc]
        def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
            point = at(u)
            return point.alpha, point.sigma

    class Wrapped(base_denoiser):  # type: ignore[misc]
        schedule = Levels()

        def forward(self, x: Tensor, u: Tensor, **_: Any) -> Any:
            return denoise.DiracPosterior(model.data(x, float(at(u).t)))

    return Wrapped()


def _azula(
    name: str, options: Options, times: str, last: str, model: Denoiser, x: Tensor, nfe: int
) -> Tensor:
    calls = _AZULA[name][0]
    steps = nfe // calls if last == "noisy" else (nfe - 1) // calls
    if steps < 2:
        raise TooFew(f"{name} in {nfe} evaluations.")
    start = 1.0
    if model.schedule.noisiest.pure_noise and times == "t":
        start = _ALMOST
    denoiser = _azula_denoiser(model, times)
    draw = getattr(import_module("azula.sample"), name)(
        denoiser, start=start, steps=steps, silent=True, dtype=torch.float64, **options
    )
    first = denoiser.schedule(torch.tensor(start).double())[0]
    x_end = draw(_at_start(model, x).double() * first).to(x)
    if last == "noisy":
        return x_end
    return model.data(x_end, float(model.schedule.cleanest.t))


def _all_of_azula() -> list[Peer]:
    if importlib.util.find_spec("azula") is None:
        return []
    return [
        Peer(
            f"azula {name}({words(options)}), {times}, {last}",
            partial(_azula, name, options, times, last),
        )
        for name, (_, settings) in _AZULA.items()
        for options in settings
        for times in _AZULA_TIMES
        for last in ("noisy", "denoised")
    ]


def peers(schedule: Schedule) -> list[Peer]:
    """All samplers of others in all settings that apply to a model of this schedule."""
    return [*_all_of_diffusers(schedule), *_all_of_k_diffusion(), *_all_of_azula()]
