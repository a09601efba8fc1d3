"""Layer 6. The config of another scheduler class, converted to that of a ``SamplerScheduler``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplers.diffusers.classes import (
    DEFAULTS,
    OWN_CLASS,
    class_name,
    distilled_for,
    idle_keys,
    own_keys,
    renamed_keys,
    schedule_kind,
    takes_own_grid,
)
from samplers.registry import get_sampler


def own_config(config: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with every key of its own class filled in.

    Keys of other classes are carried along unread, so that converting back restores them. The
    options of one sampler are not those of another.
    """
    kept = {k: v for k, v in config.items() if k != "_use_default_values"}
    if "sampler" in chosen and chosen["sampler"] != kept.get("sampler"):
        kept.pop("sampler_options", None)
    if (name := class_name(config)) != OWN_CLASS:
        kept |= _with_class_keys({**config, **chosen, "_class_name": name})
        if "sampler" not in chosen and (own := distilled_for(config)) is not None:
            kept |= {"sampler": own, "sampler_options": None}
    kept["carried"] = [key for key in kept.get("carried") or () if key not in chosen]
    asked = {**kept, **chosen}
    # Flux's pipelines then pass a number of steps instead of their own sigmas, which would
    # replace the grid, and be counted as network evaluations.
    sigma_max = own_keys({**asked, "_class_name": OWN_CLASS}).get("sigma_max")
    special = not takes_own_grid(asked) or sigma_max or _calls(asked) != 1
    if asked.get("schedule") == "flow" and special:
        kept["use_flow_sigmas"] = True
    return kept


def _with_class_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the config's own class, and the names of those that it carries along."""
    own = own_keys(config)
    read = {**own, **renamed_keys(config, own)}
    idle = idle_keys(config, own)
    carried = [key for key in DEFAULTS if key in config and (key not in read or key in idle)]
    return {**read, "schedule": schedule_kind(config), "carried": carried}


def _calls(config: Mapping[str, Any]) -> int | None:
    """The network evaluations of a step; None for a tuned sampler, which has its own grid."""
    sampler = config.get("sampler")
    if sampler is None:
        return 1
    if not isinstance(sampler, str):
        return None
    return get_sampler(sampler).calls_with(config.get("sampler_options"))
