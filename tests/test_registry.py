"""The registry: names that people know lead to the right sampler, and nothing else is accepted."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

import samplers.registry as registry_module
from samplers.grid import Grid, make_grid
from samplers.methods import pf_ode
from samplers.registry import Sampler, adaptive_registry, get_sampler, list_samplers, registry
from samplers.schedule import VPLinear
from samplers.tableau import Tableau

FROM_DIFFUSERS = {
    "DDIMScheduler": "ddim",
    "DDIMParallelScheduler": "ddim",
    "CogVideoXDDIMScheduler": "ddim",
    "DDPMScheduler": "ancestral",
    "EulerDiscreteScheduler": "ddim",
    "EulerAncestralDiscreteScheduler": "ancestral",
    "HeunDiscreteScheduler": "heun",
    "KDPM2DiscreteScheduler": "dpm-solver-2",
    "DPMSolverMultistepScheduler": "dpmpp-2m",
    "DPMSolverSinglestepScheduler": "dpmpp-2s",
    "EDMDPMSolverMultistepScheduler": "dpmpp-2m",
    "DEISMultistepScheduler": "deis-2",
    "UniPCMultistepScheduler": "unipc-2",
    "LMSDiscreteScheduler": "lms-4",
    "FlowMatchEulerDiscreteScheduler": "ddim",
    "DPMSolverSDEScheduler": "dpmpp-sde",
    "LCMScheduler": "lcm",
    "FlowMatchLCMScheduler": "lcm",
    "TCDScheduler": "tcd",
    "CMStochasticIterativeScheduler": "consistency",
}
FROM_K_DIFFUSION = {
    "sample_euler": "ddim",
    "sample_euler_ancestral": "ancestral",
    "sample_heun": "heun",
    "sample_lms": "lms-4",
    "sample_dpm_2": "dpm-solver-2",
    "sample_dpmpp_2m": "dpmpp-2m",
    "sample_dpmpp_2m_sde": "sde-dpmpp-2m",
    "sample_dpmpp_3m_sde": "sde-dpmpp-3m",
    "sample_dpmpp_sde": "dpmpp-sde",
    "dpmpp_sde_gpu": "dpmpp-sde",
    "dpmpp_2m_sde_heun_gpu": "mr-sde-d-2",
    "seeds_2": "seeds-2",
    "exp_heun_2_x0_sde": "exp-heun-2-x0-sde",
    "res_multistep_ancestral": "res-multistep-ancestral",
}
FROM_COMFYUI = {
    "euler": "ddim",
    "heun": "heun",
    "dpm_2": "dpm-solver-2",
    "lms": "lms-4",
    "ddim": "ddim",
    "dpmpp_2m": "dpmpp-2m",
    "ipndm": "ipndm",
    "gradient_estimation": "gradient-estimation",
    "uni_pc_bh2": "unipc-3",
    "res_multistep": "mr-ode-d-2",
    "exp_heun_2_x0": "exponential-heun",
}
SPELLINGS = {
    "DDIM": "ddim",
    " DPMPP-2M ": "dpmpp-2m",
    "dpmpp_2m": "dpmpp-2m",
    "DPM-Solver++": "dpmpp-2m",
    "unipc": "unipc-2",
    "euler a": "ancestral",
    "rk2": "midpoint",
    "DPM++ 2M": "dpmpp-2m",
    "dpm++_2m": "dpmpp-2m",
    "DPM++ 2M SDE": "sde-dpmpp-2m",
    "DPM2": "dpm-solver-2",
    "DPM adaptive": "dpm-solver-23",
    "LMS": "lms-4",
    "Heun": "heun",
    "Euler": "ddim",
}
EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())


@pytest.fixture
def fresh() -> Iterator[None]:
    """The registry as a new process reads it, before and after."""
    caches = (registry_module.registry, registry_module._names)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@EACH
def test_rows_are_complete(sampler: Sampler) -> None:
    assert sampler.order >= 1 or sampler.distilled or sampler.name.startswith("none+")
    assert sampler.calls >= 1
    assert sampler.reference.strip()
    assert sampler.name == sampler.name.lower().strip()
    assert sampler.stochastic or sampler.strong_order is None
    assert sampler.stochastic == (sampler.weak_order is not None)


def test_names_are_unique() -> None:
    names = [name for s in registry().values() for name in (s.name, *s.aliases)]
    assert len(names) == len(set(names))
    squeezed = [name.replace("-", "").replace("++", "pp") for name in names]
    assert len(squeezed) == len(set(squeezed))


@EACH
def test_every_name_leads_back(sampler: Sampler) -> None:
    for name in (sampler.name, *sampler.aliases):
        assert get_sampler(name) is sampler
        assert get_sampler(name.upper().replace("-", "_")) is sampler


@pytest.mark.parametrize(
    ("known", "ours"),
    [
        *FROM_DIFFUSERS.items(),
        *FROM_K_DIFFUSION.items(),
        *FROM_COMFYUI.items(),
        *SPELLINGS.items(),
    ],
)
def test_names_from_elsewhere(known: str, ours: str) -> None:
    assert get_sampler(known).name == ours


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("dpmpp-2mm", "dpmpp-2m"),
        ("heunn", "heun"),
        ("unipc-4", "unipc-"),
        ("ancestrall", "ancestral"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong}.*did you mean '{near}"):
        get_sampler(wrong)


def test_adaptive_samplers_are_in_the_same_look_up_and_have_no_tableau() -> None:
    for sampler in adaptive_registry().values():
        for name in (sampler.name, *sampler.aliases):
            assert get_sampler(name) is sampler
        with pytest.raises(ValueError, match="adaptive step sizes"):
            sampler.tableau(make_grid(VPLinear(), 4))


@pytest.mark.parametrize("name", list_samplers())
def test_help_leads_from_a_name_to_its_equation_and_paper(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(get_sampler(name)))
    assert get_sampler(name).reference in text
    assert name in text
    assert "order" in text


def test_a_hopeless_name_points_to_the_list() -> None:
    with pytest.raises(ValueError, match="samplers list"):
        get_sampler("§§§§")


def test_the_list_is_the_registry() -> None:
    assert list_samplers("fixed-grid") == list(registry())
    assert list_samplers("adaptive") == list(adaptive_registry())
    assert list_samplers() == [*registry(), *adaptive_registry()]
    assert len(list_samplers()) == len(set(list_samplers()))
    with pytest.raises(ValueError, match="all, fixed-grid, adaptive"):
        list_samplers("adaptiv")  # type: ignore[arg-type]


@EACH
def test_options_are_checked(sampler: Sampler) -> None:
    grid = make_grid(VPLinear(), 4)
    default = sampler.tableau(grid, dict(sampler.options))
    assert default.to_json() == sampler.tableau(grid).to_json()
    for wrong in ("etaa", "order", "predicting", "grid"):
        if wrong not in sampler.options:
            with pytest.raises(ValueError, match=f"{re.escape(sampler.name)}.*{wrong}"):
                sampler.tableau(grid, {wrong: 1})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ancestral", {"eta": 1.5}, "between 0"),
        ("sde-dpmpp-2m", {"eta": -0.1}, "between 0"),
        ("euler-maruyama", {"eta": 2}, "between 0"),
        ("dpmpp-2s", {"r": 0.0}, "between 0 and 1"),
        ("dpmpp-3s", {"r1": 0.8, "r2": 0.3}, "rise"),
        ("exponential-heun", {"r": 1.5}, "between 0 and 1"),
        ("ipndm", {"max_order": 0}, "max_order"),
        ("ipndm", {"max_order": 2.0}, "max_order"),
        ("ipndm", {"max_order": 5}, "from 1 to 4"),
        ("gradient-estimation", {"gamma": 0.5}, "gamma"),
        ("ancestral+langevin", {"corrector_steps": 0}, "corrector_steps"),
        ("ancestral+langevin", {"corrector_steps": 1.5}, "corrector_steps"),
        ("ancestral+annealed-langevin", {"snr": -0.1}, "snr"),
        ("ancestral+annealed-langevin", {"snr": 1.0}, "snr"),
        ("edm-churn", {"s_churn": -1.0}, "s_churn"),
        ("edm-churn", {"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin"),
        ("edm-churn", {"s_noise": 0.0}, "s_noise"),
        ("lcm", {"timestep_scaling": 0.0}, "timestep_scaling"),
        ("tcd", {"gamma": 1.5}, "gamma"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        get_sampler(name).tableau(make_grid(VPLinear(), 4), options)


@EACH
def test_words_are_checked(sampler: Sampler) -> None:
    grid = make_grid(VPLinear(), 4)
    words = {name for name, default in sampler.options.items() if isinstance(default, str)}
    assert words == set(sampler.choices)
    for name, allowed in sampler.choices.items():
        with pytest.raises(
            ValueError, match=f"{name} of .* is 'nonsense'; it must be {allowed[0]!r}"
        ):
            sampler.tableau(grid, {name: "nonsense"})


@EACH
def test_what_names_a_row_is_not_an_option(sampler: Sampler) -> None:
    fixed = sampler.method.keywords if isinstance(sampler.method, partial) else {}
    assert "order" not in sampler.options
    assert not registry_module._IDENTITY & set(fixed) & set(sampler.options)


@pytest.mark.parametrize(
    "sampler", [s for s in registry().values() if s.calls > 1], ids=lambda s: s.name
)
def test_a_singlestep_method_refuses_fewer_calls_than_its_order(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match=f"{sampler.calls} network evaluations"):
        sampler.tableau(make_grid(VPLinear(), 1))
    assert sampler.tableau(make_grid(VPLinear(), 1, final="sigma_min")).calls == sampler.calls


@EACH
def test_calls_of_a_step_follow_from_the_options(sampler: Sampler) -> None:
    assert sampler.calls_with() == sampler.calls
    if "corrector_steps" in sampler.options:
        assert sampler.calls_with({"corrector_steps": 3}) == 4
        assert sampler.steps_within(9, {"corrector_steps": 3}) == 3


@pytest.mark.parametrize(
    "sampler", [s for s in registry().values() if s.calls == 1], ids=lambda s: s.name
)
def test_a_multistep_method_serves_any_number_of_steps(sampler: Sampler) -> None:
    for steps in (1, 2, 3, 4):
        assert sampler.tableau(make_grid(VPLinear(), steps)).calls == steps


def backwards(grid: Grid) -> Tableau:
    """A sampler of somebody else."""
    return pf_ode.ddim(grid)


THIRD_PARTY = Sampler("backwards", backwards, 1, 1, "nobody 2026", aliases=("sdrawkcab",))
DOUBLE = Sampler("ddim", backwards, 1, 1, "nobody 2026")
NOT_A_SAMPLER = "a string"


def offer(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    entry = EntryPoint("mine", f"{__name__}:{attribute}", registry_module.ENTRY_POINT_GROUP)
    value = globals()[attribute]
    monkeypatch.setattr(EntryPoint, "load", lambda self: value)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: EntryPoints([entry]))


@pytest.mark.usefixtures("fresh")
def test_third_parties_join_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "THIRD_PARTY")
    assert list_samplers("fixed-grid")[-1] == "backwards"
    assert get_sampler("sdrawkcab") is THIRD_PARTY


def test_types_of_a_method_may_be_for_checkers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backwards.__annotations__, "grid", "Unknown")
    assert THIRD_PARTY.tableau(make_grid(VPLinear(), 3)).calls == 3


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("attribute", "error"), [("DOUBLE", ValueError), ("NOT_A_SAMPLER", TypeError)]
)
def test_broken_entry_points_are_refused(
    monkeypatch: pytest.MonkeyPatch, attribute: str, error: type[Exception]
) -> None:
    offer(monkeypatch, attribute)
    with pytest.raises(error):
        list_samplers("fixed-grid")
