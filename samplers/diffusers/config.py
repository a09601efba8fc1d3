r"""Layer 6. Scheduler configs of diffusers, converted to schedules and prediction types.

The config of a scheduler describes the training of a network, in the keys of some twenty scheduler
classes. :func:`read_config` converts any of them to a :class:`SchedulerSettings`: noise schedule,
prediction type, time scale, and the grid of the config. No sampler is chosen here. Which class a
config belongs to is found in :mod:`samplers.diffusers.classes`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from samplers.checks import check_at_most, check_whole
from samplers.diffusers.classes import (
    DEFAULTS,
    HasConfig,
    ScheduleKind,
    complete,
    distilled_for,
    named_config,
    schedule_kind,
)
from samplers.diffusers.distilled import DistilledTimes, every_kth, karras
from samplers.diffusers.settings import SchedulerSettings, VarianceType
from samplers.grid import Spacing
from samplers.prediction import (
    ConsistencyOutput,
    Correction,
    EDMOutput,
    Prediction,
    PredictionType,
    clip,
    dynamic_threshold,
)
from samplers.schedule import EDM, EDMPreconditioned, FlowMatching, Schedule, VPDiscrete
from samplers.schedule.mean_reverting import MeanReverting


def read_config(source: Mapping[str, Any] | HasConfig) -> SchedulerSettings:
    """Read a scheduler or its config, of diffusers or of this package.

    Missing keys have the defaults of the class. Raises ValueError for a class of an unknown kind,
    for a config whose class is not known, or for settings that have no counterpart here.
    """
    config = named_config(source)
    settings = read_keys(schedule_kind(config), complete(config))
    return dataclasses.replace(settings, distilled_for=distilled_for(config))


def read_keys(kind: ScheduleKind, keys: Mapping[str, Any]) -> SchedulerSettings:
    """:func:`read_config` for keys that are complete, on a schedule of the given kind."""
    if kind not in _SCHEDULES:
        raise ValueError(f"The schedule is {kind!r}; it must be one of {', '.join(_SCHEDULES)}.")
    trained = int(keys["num_train_timesteps"])
    check_whole("num_train_timesteps", trained)
    check_at_most("num_train_timesteps", trained, _MOST_STEPS)
    schedule = _SCHEDULES[kind](keys).with_data_scale(keys["data_scale"])
    on_flow = isinstance(schedule, FlowMatching)
    low, high = _ends(kind, schedule, keys)
    return SchedulerSettings(
        schedule=schedule,
        prediction=_prediction(kind, keys),
        time_scale=_time_scale(kind, schedule, keys),
        correction=_correction(keys),
        spacing=_spacing(kind, keys),
        offset=int(keys["steps_offset"]),
        sigma_min=low,
        sigma_max=high,
        final=keys["final_sigmas_type"],
        dynamic_shift=_dynamic_shift(keys) if on_flow else None,
        shift_terminal=keys["shift_terminal"] or None,
        variance=_variance(keys),
        distilled_times=_distilled_times(kind, schedule, keys),
        timestep_scaling=keys["timestep_scaling"],
        ends_of=_ends_of(schedule, keys),
        own_grid=_own_grid(kind, keys),
        in_time=on_flow and _levels(keys) is not None and keys["level_ends"] == "t",
    )


# Of a training. The schedule has a table of them, and diffusers itself makes one.
_MOST_STEPS = 1_000_000


def _vp(keys: Mapping[str, Any]) -> VPDiscrete:
    """``alphas_cumprod`` as in diffusers, but in float64."""
    table = VPDiscrete.from_betas(_betas(keys)).alphas_cumprod
    snr_shift = float(keys["snr_shift_scale"])
    table = table / (snr_shift + (1 - snr_shift) * table)
    return VPDiscrete(_without_terminal_signal(table) if keys["rescale_betas_zero_snr"] else table)


def _betas(keys: Mapping[str, Any]) -> Tensor:
    if keys["trained_betas"] is not None:
        return torch.as_tensor(keys["trained_betas"], dtype=torch.float64)
    start, end = float(keys["beta_start"]), float(keys["beta_end"])
    steps = int(keys["num_train_timesteps"])
    match keys["beta_schedule"]:
        case "linear":
            return torch.linspace(start, end, steps, dtype=torch.float64)
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
        case "squaredcos_cap_v2":
            alpha_bar = VPDiscrete.cosine(steps).alphas_cumprod
            return 1 - alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        case "sigmoid":
            return start + (end - start) * torch.linspace(-6, 6, steps).double().sigmoid()
        case other:
            raise ValueError(
                f"The beta schedule is {other!r}; it must be linear, scaled_linear, "
                "squaredcos_cap_v2 or sigmoid, or the betas themselves as trained_betas."
            )


def _without_terminal_signal(alphas_cumprod: Tensor) -> Tensor:
    """Rescale to zero terminal SNR (Lin et al. 2023, algorithm 1,
    https://arxiv.org/abs/2305.08891)."""
    alpha = alphas_cumprod.sqrt()
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])).square()


def _flow(keys: Mapping[str, Any]) -> FlowMatching:
    """Without a shift if it depends on the image size, see :meth:`SchedulerSettings.shifted_by`."""
    shift = 1.0 if keys["use_dynamic_shifting"] else float(keys["shift"])
    steps = int(keys["num_train_timesteps"])
    # One step stands for a network that is given t itself, trained at any t.
    return FlowMatching(shift=shift, u_min=1 / steps) if steps > 1 else FlowMatching(shift=shift)


def _edm(keys: Mapping[str, Any]) -> EDMPreconditioned:
    low, high = keys["sigma_min"], keys["sigma_max"]
    if low is None or high is None:
        trained = _vp(keys)
        low = float(trained.cleanest.rho) if low is None else low
        high = float(trained.noisiest.rho) if high is None else high
    return EDMPreconditioned(float(low), float(high), float(keys["sigma_data"]))


def _time_scale(kind: ScheduleKind, schedule: Schedule, keys: Mapping[str, Any]) -> float:
    if kind == "consistency":
        return 1000.0  # of log(sigma) / 4
    return float(keys["num_train_timesteps"]) if isinstance(schedule, FlowMatching) else 1.0


def _distilled_times(
    kind: ScheduleKind, schedule: Schedule, keys: Mapping[str, Any]
) -> DistilledTimes | None:
    trained = int(keys["num_train_timesteps"])
    if kind == "consistency":
        return karras(schedule, trained)
    count = keys["original_inference_steps"]
    return every_kth(trained, int(count)) if kind == "vp" and count is not None else None


def _ve(keys: Mapping[str, Any]) -> EDM:
    return EDM(float(keys["sigma_min"]), float(keys["sigma_max"]))


def _mean_reverting(keys: Mapping[str, Any]) -> MeanReverting:
    steps, eps = int(keys["num_train_timesteps"]), float(keys["eps"])
    return MeanReverting(keys["theta"], steps, eps, keys["convention"])


_OWN_ENDS = ("edm", "ve", "consistency")

_SCHEDULES: dict[ScheduleKind, Callable[[Mapping[str, Any]], Schedule]] = {
    "vp": _vp,
    "flow": _flow,
    "edm": _edm,
    "ve": _ve,
    "consistency": _edm,
    "mean-reverting": _mean_reverting,
}

# The default prediction type of each kind of schedule, and the allowed ones.
_PREDICTIONS: dict[ScheduleKind, dict[str | None, PredictionType]] = {
    "vp": {
        None: "epsilon",
        "epsilon": "epsilon",
        "sample": "sample",
        "v_prediction": "v_prediction",
    },
    "flow": {
        None: "flow",
        "flow_prediction": "flow",
        "epsilon": "epsilon",
        "sample": "sample",
        "v_prediction": "v_prediction",
    },
    "ve": {None: "score"},
    "mean-reverting": {
        None: "sample",
        "epsilon": "epsilon",
        "sample": "sample",
        "v_prediction": "v_prediction",
    },
}


def _prediction(kind: ScheduleKind, keys: Mapping[str, Any]) -> Prediction:
    name = keys["prediction_type"]
    if kind == "consistency":
        return ConsistencyOutput(float(keys["sigma_min"]), float(keys["sigma_data"]))
    if kind == "edm":
        return _edm_prediction(name, float(keys["sigma_data"]))
    allowed = _PREDICTIONS[kind]
    if name not in allowed:
        names = ", ".join(str(known) for known in allowed if known is not None)
        raise ValueError(
            f"The prediction type is {name!r}; on a schedule of kind {kind!r} it must be "
            f"{names or 'left out'}."
        )
    return allowed[name]


def _edm_prediction(name: str | None, sigma_data: float) -> EDMOutput:
    """EDM's F, called epsilon in diffusers, or -F, which is v for data of unit variance."""
    signs = {None: 1.0, "epsilon": 1.0, "v_prediction": -1.0}
    if name not in signs:
        raise ValueError(
            f"The prediction type is {name!r}; an EDM network predicts epsilon or v_prediction."
        )
    return EDMOutput(sigma_data, signs[name])


def _correction(keys: Mapping[str, Any]) -> Correction | None:
    if keys["thresholding"]:
        return dynamic_threshold(keys["dynamic_thresholding_ratio"], keys["sample_max_value"])
    return clip(keys["clip_sample_range"]) if keys["clip_sample"] else None


def _levels(keys: Mapping[str, Any]) -> str | None:
    """The spacing of the noise levels that a key of its own chooses; None without one."""
    flags = {
        "use_karras_sigmas": "karras",
        "use_exponential_sigmas": "exponential",
        "use_lu_lambdas": "log-snr",
        "use_beta_sigmas": "beta",
    }
    return next((spacing for flag, spacing in flags.items() if keys[flag]), None)


def _ends(
    kind: ScheduleKind, schedule: Schedule, keys: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """The smallest and the largest noise level of the grid; None for the trained one."""
    if kind in _OWN_ENDS:  # whose ends are what their configs call sigma_min and sigma_max
        return None, None
    low, high = keys["sigma_min"], _sigma_max(schedule, keys)
    if keys["level_ends"] != "betas" or _levels(keys) is None:
        return low, high
    betas = _vp(keys)
    low = float(betas.cleanest.rho) if low is None else low
    return low, float(betas.noisiest.rho) if high is None else high


def _ends_of(schedule: Schedule, keys: Mapping[str, Any]) -> Spacing | None:
    by_timesteps = isinstance(schedule, VPDiscrete) and keys["level_ends"] == "timesteps"
    if not by_timesteps or _levels(keys) is None:
        return None
    return cast(Spacing, keys["timestep_spacing"])


def _own_grid(kind: ScheduleKind, keys: Mapping[str, Any]) -> bool:
    """Whether the grid belongs to the network, or the config names its noise levels."""
    named = _levels(keys) is not None
    if kind == "edm":
        named |= keys["sigma_schedule"] != DEFAULTS["sigma_schedule"]
    return named or kind in ("flow", "consistency", "mean-reverting")


def _spacing(kind: ScheduleKind, keys: Mapping[str, Any]) -> str:
    if (levels := _levels(keys)) is not None:
        return levels
    match kind:
        case "vp":
            return str(keys["timestep_spacing"])
        case "flow":
            return "trailing"
        case "edm":
            return str(keys["sigma_schedule"])
        case "ve":
            return "exponential"
        case "consistency":
            return "karras"
        case "mean-reverting":
            return "log-snr"


def _dynamic_shift(keys: Mapping[str, Any]) -> Callable[[float], float] | None:
    if not keys["use_dynamic_shifting"]:
        return None
    match keys["time_shift_type"]:
        case "exponential":
            return math.exp
        case "linear":
            return float
        case other:
            raise ValueError(f"time_shift_type is {other!r}; it must be exponential or linear.")


def _sigma_max(schedule: Schedule, keys: Mapping[str, Any]) -> float | None:
    """The largest noise level of the grid; ``lambda_min_clipped`` is its log(alpha / sigma)."""
    if keys["sigma_max"] is not None or keys["lambda_min_clipped"] is None:
        return cast(float | None, keys["sigma_max"])
    level = math.exp(-max(float(keys["lambda_min_clipped"]), -700.0))
    # The times of flow matching are not clipped in diffusers either.
    clips = isinstance(schedule, VPDiscrete) and level < float(schedule.noisiest.rho)
    return level if clips else None


def _variance(keys: Mapping[str, Any]) -> VarianceType:
    match keys["variance_type"]:
        case None | "fixed_small" | "fixed_small_log":
            return "small"
        case "fixed_large":
            return "large"
        case "learned" | "learned_range":
            return "learned"
        case other:
            raise ValueError(
                f"The variance_type is {other!r}; it must be fixed_small, fixed_small_log, "
                "fixed_large, learned or learned_range."
            )
