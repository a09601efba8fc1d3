r"""Samplers of distilled networks: their laws, their timesteps, and parity with diffusers.

With the exact consistency function of N(2, 0.5^2), which maps a point of the trajectory to its
clean end, every jump has the law of the data, and so has the sample after any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from adjoint.finetune.config import SamplingSettings
from samplers import SamplerScheduler, checkpoint
from samplers.checkpoint import read_recipe
from samplers.checkpoint.base import LoadOptions, Recipe
from samplers.diffusers.config import read_config
from samplers.diffusers.distilled import DISTILLED_FOR
from samplers.registry import get_sampler
from samplers.schedule import FlowMatching, Point
from samplers.solve import Solver
from tests.commands import Say
from tests.convergence import finish
from tests.scheduler_loops import made
from tests.test_parity import Replay, close, draws, inject, normal
from tests.tiny_checkpoints import unconditional

MEAN, STD = 2.0, 0.5
COUNT = 4000


def theirs(name: str, **config: Any) -> Any:
    return getattr(diffusers, name)(**config)


def jump(x: Tensor, at: Point) -> Tensor:
    """The clean end of the trajectory of the data's probability-flow ODE through x."""
    spread = ((at.alpha * STD).square() + at.sigma.square()).sqrt()
    return MEAN + STD * (x - at.alpha * MEAN) / spread


def network(x: Tensor, at: Point, kind: str) -> Tensor:
    """A network whose prediction of x_0 is the consistency function."""
    x0 = jump(x.double(), at)
    eps = (x.double() - at.alpha * x0) / at.sigma
    outputs = {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": at.alpha * eps - at.sigma * x0,
        "flow": eps - x0,
    }
    return outputs[kind].to(x.dtype)


def consistency_network(x: Tensor, at: Point, sigma_min: float = 0.002, s: float = 0.5) -> Tensor:
    """F of a consistency model in EDM's coordinates, from c_skip y + c_out F = f."""
    rho, y = at.rho, x.double() / at.alpha
    skip = s**2 / ((rho - sigma_min).square() + s**2)
    out = (rho - sigma_min) * s / (rho.square() + s**2).sqrt()
    f = MEAN + STD * (y - MEAN) / (STD**2 + rho.square()).sqrt()
    return ((f - skip * y) / out).to(x.dtype)


def model_of(ours: SamplerScheduler) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact network, as a function of x and the schedule's time."""
    schedule, kind = ours.settings.schedule, ours.settings.prediction

    def model(x: Tensor, t: Tensor) -> Tensor:
        at = schedule.point(t[0])
        return network(x, at, kind) if isinstance(kind, str) else consistency_network(x, at)

    return model


# The law


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("LCMScheduler", {}),
        ("FlowMatchLCMScheduler", {}),
        ("CMStochasticIterativeScheduler", {"clip_denoised": False}),
    ],
)
def test_the_exact_consistency_function_gives_the_law_of_the_data(
    name: str, config: dict[str, Any]
) -> None:
    ours = made(theirs(name, **config))
    ours.set_timesteps(4)
    model, scale = model_of(ours), ours.settings.time_scale
    x = torch.randn(COUNT, 1, generator=torch.Generator().manual_seed(0))
    for t in ours.timesteps:
        output = model(x, t.double().expand(len(x)) / scale)
        x = ours.step(output, t, x, generator=torch.Generator().manual_seed(1)).prev_sample
    assert float(x.mean()) == pytest.approx(MEAN, abs=4 * STD / math.sqrt(COUNT))
    assert float(x.std()) == pytest.approx(STD, abs=4 * STD / math.sqrt(2 * COUNT))


def test_tcd_without_noise_is_ddim() -> None:
    ours = made(theirs("TCDScheduler"), sampler_options={"gamma": 0.0})
    ours.set_timesteps(4)
    assert not ours.tableau.stochastic
    ddim = made(theirs("TCDScheduler"), sampler="ddim")
    ddim.set_timesteps(4)
    pairs = zip(ours.tableau.rows, ddim.tableau.rows, strict=True)
    assert all(torch.equal(a.points, b.points) for a, b in pairs)


# Parity


def compare(
    source: Any, monkeypatch: pytest.MonkeyPatch, set_up: dict[str, Any], **options: Any
) -> None:
    """diffusers' own loop against ours, on the same noise, initial noise of unit variance."""
    gamma = {} if "eta" not in options else {"gamma": options["eta"]}
    ours = made(source, sampler_options=gamma)
    for scheduler in (source, ours):
        scheduler.set_timesteps(**set_up)
    torch.testing.assert_close(ours.timesteps.double(), source.timesteps.double())
    inject(monkeypatch, source, draws(len(ours.timesteps)))
    settings, tableau = ours.settings, ours.tableau
    model = model_of(ours)
    in_edm = settings.distilled_for == "consistency"
    x = normal(1) * float(source.init_noise_sigma) if in_edm else normal(1)
    for row, t in zip(tableau.rows, source.timesteps, strict=True):
        seen = source.scale_model_input(x, t) if in_edm else x
        output = model(seen, row.at.t.expand(len(x)))
        x = source.step(output, t, x, return_dict=False, **options)[0]
    solver = Solver(tableau, settings.prediction, Replay(draws(tableau.calls)), settings.correction)
    start = normal(1) * (float(tableau.start.sigma) if in_edm else 1.0)
    close(finish(solver, model, solver.init(start)), x)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_lcm(kind: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = theirs("LCMScheduler", prediction_type=kind, beta_end=0.01)
    compare(source, monkeypatch, {"num_inference_steps": steps})


def test_lcm_clips_and_scales_the_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    """At timestep 4 a scaling of 0.1 makes c_skip 0.61; x_0 is clipped before that."""
    config = {"clip_sample": True, "clip_sample_range": 2.2, "timestep_scaling": 0.1}
    source = theirs("LCMScheduler", original_inference_steps=200, beta_end=0.01, **config)
    compare(source, monkeypatch, {"num_inference_steps": 200})


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_tcd(kind: str, eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (1, 4, 7):
        source = theirs("TCDScheduler", prediction_type=kind, beta_end=0.01)
        compare(source, monkeypatch, {"num_inference_steps": steps}, eta=eta)


def test_flow_match_lcm(monkeypatch: pytest.MonkeyPatch) -> None:
    for shift, steps in ((1.0, 4), (3.0, 4), (3.0, 1)):
        sigmas = torch.linspace(1, 1 / steps, steps).tolist()
        source = theirs("FlowMatchLCMScheduler", shift=shift)
        compare(source, monkeypatch, {"sigmas": sigmas})


@pytest.mark.parametrize("clip", [False, True])
def test_consistency_models(clip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (1, 2, 4, 7):
        source = theirs("CMStochasticIterativeScheduler", clip_denoised=clip)
        compare(source, monkeypatch, {"num_inference_steps": steps})


# Timesteps


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("original", [50, 30, 8, 1000])
def test_the_grid_consists_of_the_steps_of_the_distillation(name: str, original: int) -> None:
    source = theirs(name, original_inference_steps=original)
    ours = made(source)
    for steps in (1, 2, 3, 4, 5, 7, 8):
        source.set_timesteps(steps)
        ours.set_timesteps(steps)
        assert ours.timesteps.tolist() == source.timesteps.tolist()


def test_arguments_of_lcms_pipelines_are_honoured() -> None:
    source = theirs("LCMScheduler")
    ours = made(source)
    for strength, original in ((0.5, None), (0.83, 40), (1.0, 25)):
        for scheduler in (source, ours):
            scheduler.set_timesteps(4, original_inference_steps=original, strength=strength)
        assert ours.timesteps.tolist() == source.timesteps.tolist()


def test_every_number_of_steps_of_a_consistency_model() -> None:
    source = theirs("CMStochasticIterativeScheduler")
    ours = made(source)
    for steps in range(1, 40):
        source.set_timesteps(steps)
        ours.set_timesteps(steps)
        torch.testing.assert_close(ours.timesteps, source.timesteps.float(), rtol=1e-5, atol=1e-3)


def refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_what_the_distillation_does_not_have_is_refused() -> None:
    lcm, plain = made(theirs("LCMScheduler")), made(theirs("DDIMScheduler"))
    cm = made(theirs("CMStochasticIterativeScheduler"))
    refused(lambda: lcm.set_timesteps(51), "distilled at 50 times")
    refused(lambda: lcm.set_timesteps(4, original_inference_steps=2000), "original_inference_st")
    refused(lambda: lcm.set_timesteps(4, strength=1.5), "strength is 1.5")
    refused(lambda: plain.set_timesteps(4, original_inference_steps=50), "only configs of LCM")
    refused(lambda: cm.set_timesteps(timesteps=[22, 0]), "pass sigmas")
    scaled = theirs("CMStochasticIterativeScheduler", s_noise=0.9)
    refused(lambda: made(scaled), "s_noise=0.9")
    steep = theirs("CMStochasticIterativeScheduler", rho=5.0)
    refused(lambda: made(steep), "rho=5")


# The choice of the sampler


@pytest.mark.parametrize("name", DISTILLED_FOR)
def test_a_distilled_network_gets_its_own_sampler(name: str) -> None:
    ours = made(theirs(name))
    assert ours.config.sampler == DISTILLED_FOR[name]
    assert get_sampler(ours.config.sampler).distilled
    assert read_config(theirs(name)).distilled_for == DISTILLED_FOR[name]
    # Also after the trip through a folder, and not against the user's word.
    again = made(ours.config)
    assert again.config.sampler == DISTILLED_FOR[name]
    assert made(theirs(name), sampler="ddim").config.sampler == "ddim"


def test_a_sampler_that_a_config_carries_along_is_not_the_distilled_ones() -> None:
    first = made(theirs("DDIMScheduler"), sampler="ancestral", sampler_options={"eta": 0.5})
    distilled = diffusers.LCMScheduler.from_config(first.config)
    assert made(distilled).config.sampler == "lcm"
    assert made(distilled).config.sampler_options is None
    back = diffusers.LCMScheduler.from_config(made(distilled).config)
    assert back.config.original_inference_steps == 50


def test_keys_that_fit_two_distillations_are_refused() -> None:
    refused(lambda: made(theirs("LCMScheduler").config), "LCMScheduler or TCDScheduler")


def test_a_distilled_checkpoint_is_not_sampled_by_a_sampler_of_denoisers(tmp_path: Any) -> None:
    folder = unconditional(tmp_path, diffusers.LCMScheduler())
    loaded = checkpoint.load_checkpoint(folder, LoadOptions())
    refused(lambda: loaded.settle(Recipe()), "distilled for the sampler 'lcm'")
    recipe = loaded.settle(Recipe(sampler="lcm", steps=4))
    assert [float(row.at.t) for row in loaded.tableau(recipe).rows] == [999, 759, 499, 259]


def test_commands_sample_a_distilled_checkpoint_by_its_own_sampler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unconditional(tmp_path / "model", diffusers.LCMScheduler())
    say = Say({"model": folder, "tmp": tmp_path}, capsys)
    said = say("sample {model} --steps 2 --num-images 1 --output {tmp}/one.png")
    assert (said.code, said.out[:22]) == (0, "1 image: lcm, 2 steps,"), said.err
    said = say("compare {model} --nfe 1,2 --output {tmp}/two.png")
    assert said.code == 0, said.err
    assert "lcm      no reference (NFE 1)  no reference (NFE 2)" in said.out
    said = say("compare {model} --samplers ddim --output {tmp}/no.png")
    said.check_sentence(2, "'ddim' is for denoisers; choose 'lcm'")
    assert SamplingSettings().recipe(read_recipe(folder)).sampler == "lcm"


def test_on_a_flow_the_network_is_asked_at_its_own_levels() -> None:
    ours = made(theirs("FlowMatchLCMScheduler", shift=3.0))
    ours.set_timesteps(4)
    assert isinstance(ours.settings.schedule, FlowMatching)
    expected: Sequence[float] = [1000 * 3 * u / (1 + 2 * u) for u in (1.0, 0.75, 0.5, 0.25)]
    torch.testing.assert_close(ours.timesteps, torch.tensor(expected))
