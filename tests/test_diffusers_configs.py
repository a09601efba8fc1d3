"""What a scheduler config means: its class, its keys, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import pytest

from samplers import SamplerScheduler
from samplers.diffusers.config import KNOWN_CLASSES, HasConfig, class_name, read_config

diffusers.utils.logging.set_verbosity_error()

# Some schedulers of diffusers hand torch tensors to numpy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

# Scheduler classes that can be made without arguments but are not known here.
UNKNOWN = [
    "CMStochasticIterativeScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDIMInverseScheduler",
    "DDPMWuerstchenScheduler",
    "DPMSolverMultistepInverseScheduler",
    "FlowMapEulerDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RePaintScheduler",
    "SCMScheduler",
]

AMBIGUOUS = "FlowMatchHeunDiscreteScheduler"


def made(config: Mapping[str, Any] | HasConfig, **kwargs: Any) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(config, **kwargs)
    assert isinstance(scheduler, SamplerScheduler)
    return scheduler


# The class of a config


@pytest.mark.parametrize("name", UNKNOWN)
def test_classes_that_are_not_known_are_refused_not_guessed(name: str) -> None:
    theirs = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=f"{name}|keys are not those of a known one"):
        made(theirs.config)
    with pytest.raises(ValueError, match=f"class '{name}', whose noise schedule is not known"):
        made(theirs)


@pytest.mark.parametrize("name", [n for n in KNOWN_CLASSES if n != AMBIGUOUS])
def test_keys_determine_the_meaning_of_a_config_without_a_class(name: str) -> None:
    theirs = getattr(diffusers, name)()
    from_keys, from_class = read_config(theirs.config), read_config(theirs)
    assert from_keys.prediction == from_class.prediction
    grids = [settings.shifted_by(0.5).grid(4) for settings in (from_keys, from_class)]
    assert grids[0].points.sigma.tolist() == grids[1].points.sigma.tolist()


def test_keys_that_fit_classes_of_different_meaning_are_refused() -> None:
    """FlowMapEuler's network is given two times, FlowMatchHeun's one; their keys are the same."""
    theirs = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    with pytest.raises(ValueError, match="or FlowMatchHeunDiscreteScheduler; pass the sch"):
        made(theirs.config)
    assert made(theirs).config.shift == 3.0
    assert made({**theirs.config, "_class_name": type(theirs).__name__}).config.shift == 3.0


def test_a_key_that_no_class_has_makes_a_config_without_a_class_unclear() -> None:
    theirs = diffusers.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match="names no class"):
        made({**theirs.config, "noise_tilt": 0.1})


def test_a_class_derived_from_a_known_one_is_not_that_one() -> None:
    class Tilted(diffusers.EulerDiscreteScheduler):  # type: ignore[misc]
        pass

    with pytest.raises(ValueError, match="class 'Tilted'"):
        made(Tilted())


def test_a_converted_scheduler_names_its_class_without_being_saved() -> None:
    ours = made(diffusers.DDIMScheduler().config, sampler="heun")
    assert class_name(ours.config) == "SamplerScheduler"
    assert class_name(SamplerScheduler().config) == "SamplerScheduler"
    back = diffusers.DDIMScheduler.from_config(ours.config, clip_sample_range=2.0)
    assert class_name(back.config) == "DDIMScheduler"
    assert made(back.config).config.clip_sample_range == 2.0


def test_what_is_not_a_config_is_refused() -> None:
    for wrong in (None, "folder", 3):
        with pytest.raises(ValueError, match="pass a scheduler or its config"):
            made(wrong)  # type: ignore[arg-type]
