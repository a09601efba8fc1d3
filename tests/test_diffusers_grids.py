"""Noise levels by the keys of a config: those of its own class, or in docs/parity.md."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from samplers.diffusers.config import read_config
from samplers.grid import make_grid
from samplers.schedule import VPDiscrete
from tests.scheduler_loops import made

diffusers.utils.logging.set_verbosity_error()

# Some schedulers of diffusers hand torch tensors to numpy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

STEPS = 8

VP = [
    "LMSDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "KDPM2Discrete",
    "KDPM2AncestralDiscrete",
    "DPMSolverSDE",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "UniPCMultistep",
    "DEISMultistep",
    "SASolver",
]
LEVELS: list[dict[str, Any]] = [
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_lu_lambdas": True},
]
OTHERS: list[dict[str, Any]] = [
    {},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"sigma_max": 10.0},
    {"sigma_min": 0.2, "sigma_max": 10.0},
    {"lambda_min_clipped": -3.0},
]
# Of smaller betas, the classes round 1 - alphas_cumprod by more than 1e-5 of it.
BETAS = {"beta_start": 0.01, "beta_end": 0.02}
FLOW: list[dict[str, Any]] = [
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_karras_sigmas": True, "shift_terminal": 0.1},
    {"use_exponential_sigmas": True, "use_dynamic_shifting": True},
    {"use_karras_sigmas": True, "use_dynamic_shifting": True, "time_shift_type": "linear"},
]
UNIPC = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
UNIPC_FLOW: list[dict[str, Any]] = [
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 200.0},  # Cosmos-Predict2.5
    {"use_karras_sigmas": True, "sigma_max": 80.0, "flow_shift": 50.0},
    {"use_karras_sigmas": True, "use_dynamic_shifting": True, "shift_terminal": 0.1},
]


def known_keys(name: str) -> set[str]:
    return set(inspect.signature(getattr(diffusers, f"{name}Scheduler")).parameters)


def scheduler(name: str, keys: dict[str, Any]) -> Any:
    """The scheduler of diffusers, with the betas above if it has betas."""
    betas = BETAS if "beta_start" in known_keys(name) else {}
    return getattr(diffusers, f"{name}Scheduler")(**{**betas, **keys})


CASES = [
    (name, {**levels, **others})
    for name in VP
    for levels in LEVELS
    for others in OTHERS
    if {*levels, *others} <= known_keys(name)
]
FLOW_CASES = [
    *[(name, keys) for name in ("FlowMatchEulerDiscrete", "FlowMatchLCM") for keys in FLOW],
    *[("UniPCMultistep", {**UNIPC, **keys}) for keys in UNIPC_FLOW],
]


def distinct(levels: Tensor) -> Tensor:
    """Without the levels of stages inside of a step, and without the end at 0."""
    return levels[levels > 0].unique().flip(0)


def assert_same_grid(theirs: Any, **given: Any) -> None:
    """Of a scheduler that is read from the object, after saving, and from the settings."""
    theirs.set_timesteps(STEPS, mu=0.7) if "mu" in given else theirs.set_timesteps(STEPS)
    expected = distinct(theirs.sigmas.double())
    ours = made(theirs)
    ours.set_timesteps(STEPS, **given)
    grid = read_config(theirs).shifted_by(given.get("mu")).grid(STEPS)
    on_flow = ours.config.schedule == "flow"
    levels = grid.points.sigma if on_flow else grid.points.rho
    for found in (ours.sigmas.double(), levels):
        torch.testing.assert_close(distinct(found)[:STEPS], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_levels_on_betas_are_those_of_the_class(name: str, keys: dict[str, Any]) -> None:
    assert_same_grid(scheduler(name, keys))


@pytest.mark.parametrize(("name", "keys"), FLOW_CASES)
def test_levels_of_a_flow_are_those_of_the_class(name: str, keys: dict[str, Any]) -> None:
    given = {"mu": 0.7} if keys.get("use_dynamic_shifting") else {}
    assert_same_grid(scheduler(name, keys), **given)


@pytest.mark.parametrize("keys", FLOW)
def test_sigmas_of_a_pipeline_are_spaced_as_by_the_class(keys: dict[str, Any]) -> None:
    """Flux's pipeline passes 1, (n-1)/n, ..., 1/n, of which only the ends and the number stay."""
    theirs = scheduler("FlowMatchEulerDiscrete", {**keys, "shift": 3.0})
    ours = made(theirs, sampler="ddim")
    for each in (theirs, ours):
        each.set_timesteps(sigmas=torch.linspace(1, 1 / STEPS, STEPS).tolist(), mu=0.7)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=1e-5, atol=1e-3)


# Keys without an effect


@pytest.mark.parametrize("name", ["EulerDiscrete", "UniPCMultistep"])
@pytest.mark.parametrize("keys", [{"sigma_min": 0.2}, {"sigma_max": 10.0}])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_ends_of_levels_are_not_those_of_trained_steps(
    name: str, keys: dict[str, float], spacing: str
) -> None:
    plain, theirs = (scheduler(name, {**k, "timestep_spacing": spacing}) for k in ({}, keys))
    ours, expected = made(theirs), made(plain)
    for each in (plain, theirs, ours, expected):
        each.set_timesteps(STEPS)
    assert torch.equal(theirs.sigmas, plain.sigmas)
    assert torch.equal(ours.sigmas, expected.sigmas)
    assert type(theirs).from_config(ours.config).config.items() >= keys.items()
    again = made(ours, sampler="heun")
    assert read_config(again).sigma_min is None
    assert read_config(again).sigma_max is None


def test_ends_of_levels_are_those_of_a_flow_only_with_levels() -> None:
    """As of Cosmos-Predict2.5, but without Karras levels."""
    keys = {**UNIPC, "sigma_min": 0.01, "sigma_max": 200.0}
    ours, expected = (
        made(scheduler("UniPCMultistep", keys)),
        made(scheduler("UniPCMultistep", UNIPC)),
    )
    for each in (ours, expected):
        each.set_timesteps(STEPS)
    assert torch.equal(ours.sigmas, expected.sigmas)


def test_arguments_have_their_own_meaning_on_every_config() -> None:
    theirs = scheduler("EulerDiscrete", {"sigma_max": 10.0, "timestep_spacing": "leading"})
    levels = scheduler("EulerDiscrete", {**theirs.config, "use_karras_sigmas": True})
    ours = made(theirs, use_karras_sigmas=True)
    for each in (levels, ours):
        each.set_timesteps(STEPS)
    torch.testing.assert_close(distinct(ours.sigmas), distinct(levels.sigmas), rtol=1e-5, atol=0)
    assert float(made(theirs, sigma_max=7.0, grid="karras").config.sigma_max) == 7.0
    whole = made(scheduler("EulerDiscrete", {"timestep_spacing": "leading"}), grid="karras")
    whole.set_timesteps(STEPS)
    assert float(whole.sigmas[0]) == pytest.approx(float(read_config(theirs).schedule.noisiest.rho))


@pytest.mark.parametrize("grid", ["beta:0.5,0.7", "SGM Uniform", "ays-sdxl"])
def test_a_spacing_is_kept_by_the_config(grid: str, tmp_path: Path) -> None:
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    first = made(diffusers.EulerDiscreteScheduler(**betas), grid=grid)
    first.save_pretrained(tmp_path)
    again = type(first).from_pretrained(tmp_path)
    for each in (first, again):
        each.set_timesteps(STEPS)
    levels = make_grid(VPDiscrete.scaled_linear(), STEPS, grid).points.rho.float()
    torch.testing.assert_close(first.sigmas[:-1].unique(), levels[:-1].unique())
    assert torch.equal(again.sigmas, first.sigmas)


# Levels that no grid here has


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("EulerDiscrete", {"use_beta_sigmas": True}),
        ("FlowMatchEulerDiscrete", {"use_beta_sigmas": True}),
        ("UniPCMultistep", {**UNIPC, "use_exponential_sigmas": True}),
        ("DPMSolverMultistep", {**UNIPC, "use_karras_sigmas": True}),
        ("DPMSolverSinglestep", {**UNIPC, "use_exponential_sigmas": True}),
        ("DEISMultistep", {**UNIPC, "use_karras_sigmas": True}),
        ("SASolver", {**UNIPC, "use_karras_sigmas": True}),
        ("EulerDiscrete", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
    ],
)
def test_levels_without_a_counterpart_need_a_grid(name: str, keys: dict[str, Any]) -> None:
    theirs = scheduler(name, keys)
    with pytest.raises(ValueError, match="; pass a grid, such as grid='karras'"):
        made(theirs)
    ours = made(theirs, grid="karras")
    ours.set_timesteps(STEPS)
    assert len(made(ours).timesteps) > 0
