"""Layer 6. The scheduler class that a config belongs to, and the values of its keys.

The same key may mean another thing in another class. Of diffusers only the signatures of its
classes are read: they determine the class of a config that does not name it, and the defaults of
missing keys. What the keys say of a network is not read here, see :mod:`samplers.diffusers.config`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Protocol, cast

from samplers.choices import DEFAULT_SAMPLER
from samplers.diffusers.deferred import import_diffusers
from samplers.diffusers.distilled import DISTILLED_FOR
from samplers.registry import get_sampler

ScheduleKind = Literal["vp", "flow", "edm", "ve", "consistency", "mean-reverting"]

OWN_CLASS = "SamplerScheduler"


class HasConfig(Protocol):
    """A scheduler of diffusers, or of this package."""

    @property
    def config(self) -> Any: ...


_CLASSES: dict[ScheduleKind, tuple[str, ...]] = {
    "vp": (
        "DDPMScheduler",
        "DDPMParallelScheduler",
        "DDIMScheduler",
        "DDIMParallelScheduler",
        "PNDMScheduler",
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "DPMSolverSDEScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "SASolverScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "UnCLIPScheduler",
        "CogVideoXDDIMScheduler",
        "CogVideoXDPMScheduler",
    ),
    "flow": (
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "LTXEulerAncestralRFScheduler",
    ),
    "edm": ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"),
    "ve": ("ScoreSdeVeScheduler",),
    "consistency": ("CMStochasticIterativeScheduler",),
}

KNOWN_CLASSES: dict[str, ScheduleKind] = {
    name: kind for kind, names in _CLASSES.items() for name in names
}
"""The scheduler classes of diffusers whose configs can be read, and the kind of their schedule."""

# Defaults of keys that neither the config nor the signature of its class has.
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "snr_shift_scale": 1.0,
    "prediction_type": None,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "sigma_schedule": "karras",
    "sigma_data": 1.0,
    "data_scale": 1.0,
    "sigma_min": None,
    "sigma_max": None,
    "final_sigmas_type": "zero",
    "use_flow_sigmas": False,
    "shift": 1.0,
    "shift_terminal": None,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
    "theta": "cosine",
    "eps": 0.005,
    "convention": "ir-sde",
    "variance_type": None,
    "lambda_min_clipped": None,
    "original_inference_steps": None,
    "timestep_scaling": None,
    "level_ends": "trained",
}

LevelEnds = Literal["trained", "timesteps", "betas", "t"]
"""Where levels of the Karras and exponential keys begin and end: at the ends of the trained range,
of the grid of ``timestep_spacing``, or of the range of the betas of a flow config; ``t`` is the
whole range of a flow, in whose t they are spaced as well, rather than in sigma / alpha."""

LEVEL_KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")

_LEVEL_ENDS: dict[str, LevelEnds] = {
    "LMSDiscreteScheduler": "timesteps",
    "EulerDiscreteScheduler": "timesteps",
    "HeunDiscreteScheduler": "timesteps",
    "KDPM2DiscreteScheduler": "timesteps",
    "KDPM2AncestralDiscreteScheduler": "timesteps",
    "DPMSolverSDEScheduler": "timesteps",
    "FlowMatchEulerDiscreteScheduler": "t",
    "FlowMatchLCMScheduler": "t",
}


def named_config(source: object) -> Mapping[str, Any]:
    """The config, with the class in ``_class_name`` if the scheduler itself is given."""
    if isinstance(source, Mapping):
        return source
    config = getattr(source, "config", None)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"A scheduler config is needed, but {source!r} came; pass a scheduler or its config, "
            "such as pipe.scheduler."
        )
    return {**config, "_class_name": type(source).__name__}


def class_name(config: Mapping[str, Any]) -> str:
    """The scheduler class that the config belongs to.

    The config of a scheduler that was neither saved nor loaded does not name its class. Then its
    keys must determine it, or at least its meaning. Raises ValueError if they don't, and for a
    class whose noise schedule is not known.
    """
    fits = [config["_class_name"]] if "_class_name" in config else _classes_with_keys(config)
    unknown = [name for name in fits if name != OWN_CLASS and name not in KNOWN_CLASSES]
    if len(fits) == 1 and unknown:
        raise ValueError(
            f"The scheduler config is of class {fits[0]!r}, whose noise schedule is not known "
            "here; keep the pipeline's own scheduler, or take one of SamplerScheduler.compatibles."
        )
    if not fits or unknown or not _same_meaning(config, fits):
        several = f"may be those of {' or '.join(fits[:2])}{' or others' * (len(fits) > 2)}"
        found = several if fits else "are not those of a known one"
        raise ValueError(
            f"The scheduler config names no class, and its keys {found}; pass the scheduler "
            "itself, as in from_config(pipe.scheduler), or add the name as _class_name."
        )
    return str(fits[0])


def _classes_with_keys(config: Mapping[str, Any]) -> list[str]:
    """The scheduler classes of diffusers whose keys are all in the config.

    Not those whose keys are a part of another one's. A key that no class has may change the meaning
    of all others, so then no class fits.
    """
    keys = {key for key in config if not key.startswith("_")}
    every = {name: set(_signature(name)) for name in _scheduler_classes()}
    if not keys <= set().union(*every.values()):
        return []
    fits = {name: own for name, own in every.items() if own and own <= keys}
    return [name for name, own in fits.items() if not any(own < other for other in fits.values())]


def _same_meaning(config: Mapping[str, Any], names: list[str]) -> bool:
    """Whether the config is read in the same way as one of each of these classes."""
    if len(names) == 1:
        return True
    configs = [{**config, "_class_name": name} for name in names]
    read = [(schedule_kind(c), distilled_for(c), complete(c)) for c in configs]
    meanings = [(*what, {key: keys[key] for key in DEFAULTS}) for *what, keys in read]
    return all(meaning == meanings[0] for meaning in meanings)


@cache
def _scheduler_classes() -> tuple[str, ...]:
    """The names of all scheduler classes of diffusers, readable here or not."""
    return tuple(name for name in dir(import_diffusers()) if name.endswith("Scheduler"))


def distilled_for(config: Mapping[str, Any]) -> str | None:
    """The sampler that the network of the config is distilled for; None for a denoiser."""
    name = class_name(config)
    if name != OWN_CLASS:
        return DISTILLED_FOR.get(name)
    chosen = config.get("sampler", DEFAULT_SAMPLER)
    if not isinstance(chosen, str):
        return None  # a tuned one
    own = get_sampler(chosen)
    return own.name if own.distilled else None


def schedule_kind(config: Mapping[str, Any]) -> ScheduleKind:
    """The kind of schedule, by the class of the config and its flags."""
    name = class_name(config)
    if name == OWN_CLASS:
        return cast(ScheduleKind, config.get("schedule", "vp"))
    keys = complete(config)
    _refuse_unsupported(name, keys)
    if takes_own_grid(config):
        _refuse_levels(name, keys)
    if keys["use_flow_sigmas"]:
        return "flow"
    # Stable Video Diffusion: a continuous v-network, which is EDM's with sigma_data = 1.
    if keys.get("timestep_type") == "continuous" and keys["prediction_type"] == "v_prediction":
        return "edm"
    return KNOWN_CLASSES[name]


def takes_own_grid(config: Mapping[str, Any]) -> bool:
    """Whether no other grid is named than the config's own."""
    return config.get("grid") in (None, "config")


def _refuse_unsupported(name: str, keys: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that change the result and have no counterpart here."""
    found = None
    if keys.get("invert_sigmas"):
        found = "invert_sigmas=True (time runs backwards, as in Mochi)"
    if keys.get("scale_factors"):
        found = f"scale_factors={keys['scale_factors']} (images that grow between steps)"
    if keys.get("s_noise", 1.0) != 1 and name in DISTILLED_FOR:
        found = f"s_noise={keys['s_noise']:g} (noise that is scaled between steps)"
    if keys["sigma_schedule"] == "karras" and keys.get("rho", 7) != 7:
        found = f"rho={keys['rho']:g} (a Karras grid other than rho=7)"
    if found:
        raise ValueError(
            f"The config has {found}; this is not supported, keep the pipeline's own scheduler."
        )


def _refuse_levels(name: str, keys: Mapping[str, Any]) -> None:
    """Raise ValueError for a key that chooses noise levels which no grid here has."""
    chosen = next((key for key in LEVEL_KEYS if keys[key]), None)
    found = None
    if chosen == "use_beta_sigmas":
        found = "use_beta_sigmas=True (quantiles of a Beta distribution)"
    if chosen and keys["use_flow_sigmas"] and not _levels_of_betas(name, keys):
        found = f"use_flow_sigmas and {chosen}, whose levels go above 1 in {name}"
    if keys.get("timestep_type") == "continuous" and keys["prediction_type"] == "v_prediction":
        found = found if chosen else "continuous timesteps at the levels of trained steps"
    if found:
        raise ValueError(
            f"The config has {found}; pass a grid, such as grid='karras', or keep the pipeline's "
            "own scheduler."
        )


def _levels_of_betas(name: str, keys: Mapping[str, Any]) -> bool:
    """UniPC takes the Karras levels of its betas for levels sigma / alpha of the flow."""
    on_flow = name == "UniPCMultistepScheduler" and keys["use_flow_sigmas"]
    return bool(on_flow and keys["use_karras_sigmas"])


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the config's own class reads, with defaults for missing ones.

    Keys that the class does not have (carried along from another class) are dropped.
    """
    read = own_keys(config)
    idle = idle_keys(config, read)
    used = {key: value for key, value in read.items() if key not in idle}
    return {**DEFAULTS, **used, **renamed_keys(config, read)}


def idle_keys(config: Mapping[str, Any], read: Mapping[str, Any]) -> list[str]:
    """The keys of the config's class which it does not use, because of others."""
    name = class_name(config)
    if name == OWN_CLASS:
        return []
    if not any(read.get(key) for key in LEVEL_KEYS):
        only_of_levels = name in ("EulerDiscreteScheduler", "UniPCMultistepScheduler")
        return ["sigma_min", "sigma_max"] if only_of_levels else []
    if read.get("use_flow_sigmas"):
        return ["use_dynamic_shifting", "shift_terminal"]
    return ["lambda_min_clipped"] if "lambda_min_clipped" in read else []


def renamed_keys(config: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """What the class of the config says without a key, or under another name."""
    keys: dict[str, Any] = {}
    name = class_name(config)
    if "flow_shift" in read and "shift" not in config:
        keys["shift"] = read["flow_shift"]
    if name in _LEVEL_ENDS:
        keys["level_ends"] = _LEVEL_ENDS[name]
    if name != OWN_CLASS and _levels_of_betas(name, read):
        keys |= {"level_ends": "betas", "shift": 1.0}
    match name:
        case "CMStochasticIterativeScheduler":
            keys["clip_sample"] = read["clip_denoised"]
        case "TCDScheduler":
            keys["final_sigmas_type"] = "sigma_min"  # it stops at training step 0
    return keys


def own_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the config's own class, with that class's defaults for missing ones."""
    name = class_name(config)
    if name != OWN_CLASS:
        return {key: config.get(key, default) for key, default in _signature(name).items()}
    carried = config.get("carried") or ()
    return {key: value for key, value in config.items() if key not in carried}


@cache
def _signature(name: str) -> dict[str, Any]:
    """The constructor arguments of a scheduler class of diffusers, with their defaults."""
    parameters = inspect.signature(getattr(import_diffusers(), name)).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p.default for p in named}
