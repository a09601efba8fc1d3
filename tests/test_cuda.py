"""On a GPU: what is computed there is what the CPU computes, in float64 to rounding.

``make cuda`` runs these; elsewhere they are skipped, for ``conftest`` hides the GPU. Everything
that the CPU's tests find true of a result is then true there as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import Tensor

from adjoint import AbstractAdjoint, CheckpointAdjoint, DirectAdjoint, ReversibleAdjoint
from adjoint.fokker_planck import score_penalty
from adjoint.solver_cost import solver_cost_penalty
from samplers import SamplerScheduler, inversion
from samplers.denoiser import Denoiser
from samplers.diffusers.restoration import RestorationPipeline
from samplers.grid import make_grid
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import Hutchinson, log_likelihood
from samplers.registry import Sampler, list_samplers, registry
from samplers.schedule import VPDiscrete, VPLinear
from samplers.training import Objective, TrainingConfig, train
from samplers.training.denoising import denoising_loss
from tests.commands import Say
from tests.test_adjoint import SCHEDULE, SmallNetwork, draw, gradients, leaves, network
from tests.tiny_flows import FRAMES, TEXT_WIDTH, autoencoder, transformer
from text2pde.autoencoder.batch import prepare_mesh
from text2pde.diffusion.conditions import Conditions
from text2pde.mesh import Mesh

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU, or it is hidden"
)

EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
FLOAT32 = 3e-2
"""Convolutions in float32, which a GPU rounds to ten bits unless it is told not to."""
DEVICES = (torch.device("cpu"), torch.device("cuda"))


def agree(found: Sequence[Tensor], expected: Sequence[Tensor], rtol: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cuda"
        assert b.device.type == "cpu"
        assert a.shape == b.shape
        assert float((a.cpu() - b).detach().norm()) <= rtol * float(b.detach().norm())


def run(
    device: torch.device, adjoint: AbstractAdjoint | None, sampler: str, **kwargs: Any
) -> tuple[Tensor, list[Tensor]]:
    """What is drawn on a device, and its gradients to noise, condition and weights."""
    net = network().to(device)
    x, c = (leaf.detach().to(device).requires_grad_() for leaf in leaves())
    finished = draw(adjoint, net, x, c, sampler, **kwargs)
    return finished.detach(), gradients(finished, [x, c, *net.parameters()])


@EACH
def test_every_sampler_and_its_gradients(sampler: Sampler) -> None:
    (expected, slopes), (found, others) = (run(at, None, sampler.name) for at in DEVICES)
    agree([found, *others], [expected, *slopes])


@pytest.mark.parametrize("noise", ["independent", "brownian"])
def test_noise_is_that_of_the_cpu(noise: str) -> None:
    (expected, _), (found, _) = (run(at, None, "sde-dpmpp-2m", noise=noise) for at in DEVICES)
    agree([found], [expected])


@pytest.mark.parametrize(
    "adjoint",
    [
        CheckpointAdjoint(),
        CheckpointAdjoint(offload="cpu"),
        CheckpointAdjoint(split=2),
        DirectAdjoint(),
    ],
    ids=str,
)
def test_ways_back(adjoint: AbstractAdjoint) -> None:
    (expected, slopes), (found, others) = (run(at, adjoint, "dpmpp-2m") for at in DEVICES)
    agree([found, *others], [expected, *slopes])


def test_a_reversible_run() -> None:
    name = next(
        s.name
        for s in registry().values()
        if inversion.refusal(s.tableau(make_grid(SCHEDULE, 4))) is None
    )
    (expected, slopes), (found, others) = (run(at, ReversibleAdjoint(), name) for at in DEVICES)
    agree([found, *others], [expected, *slopes], rtol=1e-7)


@pytest.mark.parametrize("pair", list_samplers("adaptive"))
def test_adaptive_solvers(pair: str) -> None:
    found = []
    for device in DEVICES:
        net = network().to(device)
        x, c = (leaf.detach().to(device) for leaf in leaves())
        settings = Adaptive(method=pair, rtol=1e-4, atol=1e-4)
        found.append(
            sample_adaptive(
                Denoiser(net, VPLinear(), "v_prediction"),
                x,
                conditions={"condition": c},
                settings=settings,
            )
        )
    expected, own = found
    agree([own.x], [expected.x])
    assert own.nfe.tolist() == expected.nfe.tolist()


def test_likelihoods() -> None:
    found = []
    for device in DEVICES:
        net = network().to(device)
        x, c = (leaf.detach().to(device) for leaf in leaves())
        result = log_likelihood(
            Denoiser(net, VPLinear(), "v_prediction"),
            x,
            conditions={"condition": c},
            trace=Hutchinson(probes=2),
            seeds=range(len(x)),
        )
        found.append(result.log_prob.detach())
    agree(found[1:], found[:1], rtol=1e-6)


@EACH
def test_every_scheduler(sampler: Sampler) -> None:
    found = []
    for device in DEVICES:
        scheduler = SamplerScheduler(sampler=sampler.name, prediction_type="v_prediction")
        scheduler.set_timesteps(4, device=device)
        net, (x, c) = network().to(device), (leaf.detach().to(device) for leaf in leaves())
        x = x * scheduler.init_noise_sigma
        generator = torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            assert t.device.type == device.type
            output = net(scheduler.scale_model_input(x, t), t.to(x).expand(len(x)) / 1000, c)
            x = scheduler.step(output.detach(), t, x, generator=generator).prev_sample
        found.append(x)
    agree(found[1:], found[:1])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own
@pytest.mark.parametrize("penalty", ["none", "residual", "solver-cost"])
def test_training(penalty: str, tmp_path: Path) -> None:
    """Draws are those of the CPU, so that what is learned is the same up to rounding."""
    net = network()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}

    model = Denoiser(net, VPDiscrete.linear(), "v_prediction")
    names = ("condition",)
    extra: dict[str, Objective | None] = {
        "none": None,
        "residual": score_penalty(model, 0.1, conditions=names),
        "solver-cost": solver_cost_penalty(model, 0.1, conditions=names),
    }
    x, c = (leaf.detach() for leaf in leaves())
    config = TrainingConfig(steps=4, batch_size=2, learning_rate=1e-2, log_every=2,
                            checkpoint_every=2, precision="no")  # fmt: skip
    average = train(
        net,
        torch.utils.data.TensorDataset(x, c),
        denoising_loss(model, names),
        config,
        tmp_path,
        penalty=extra[penalty],
    )
    assert isinstance(average, SmallNetwork)
    weights = average.state_dict()
    assert all(weight.device.type == "cuda" for weight in weights.values())
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    assert any(not torch.equal(weight.cpu(), before[name]) for name, weight in weights.items())


def test_restoration(places: dict[str, Path]) -> None:
    found = []
    for device in DEVICES:
        pipe = RestorationPipeline.from_pretrained(places["restoration"]).to(device)
        images = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).to(device)
        images.requires_grad_()
        restored = pipe.restore(images, ["noisy", "rainy"], [0, 1], 4)
        (slope,) = torch.autograd.grad(restored.square().sum(), [images])
        found.append([restored.detach(), slope])
    agree(found[1], found[0], rtol=FLOAT32)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "sde-dpmpp-2m"])
def test_a_pipeline_of_diffusers(places: dict[str, Path], sampler: str) -> None:
    found = []
    for device in DEVICES:
        pipe = diffusers.DDPMPipeline.from_pretrained(places["plain"]).to(device)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler=sampler)
        generator = torch.Generator().manual_seed(0)
        drawn = pipe(batch_size=2, num_inference_steps=4, output_type="np", generator=generator)
        found.append(torch.from_numpy(drawn.images))
    assert float((found[1] - found[0]).norm()) <= FLOAT32 * float(found[0].norm())


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "sde-dpmpp-2m", "ancestral+annealed-langevin"])
def test_the_command_line(say: Say, sampler: str) -> None:
    words = f"sample {{digits}} --sampler {sampler} --steps 3 --num-images 2 --device cuda"
    assert say(f"{words} --output {{out}}").code == 0


def test_flows() -> None:
    """The autoencoder on a mesh, and the transformer on its latent."""
    x, y = np.meshgrid(np.linspace(0, 1.6, 33), np.linspace(0, 0.41, 9))
    nodes = np.stack([x, y], axis=2).reshape(-1, 2)
    mesh = Mesh(nodes, Delaunay(nodes).simplices.astype(np.int64), np.zeros(len(nodes), np.int64))
    fields = torch.randn(FRAMES, len(nodes), 3, generator=torch.Generator().manual_seed(0))
    told = Conditions(
        torch.ones(1, 3, TEXT_WIDTH),
        torch.ones(1, 3, dtype=torch.bool),
        torch.ones(1, 4),
        torch.ones(1, dtype=torch.bool),
        torch.ones(1, 4, 2, 8),
        torch.ones(1, dtype=torch.bool),
    )
    kept = []
    for device in DEVICES:
        encoder, network = autoencoder().to(device), transformer().to(device)
        meshes = prepare_mesh(mesh, encoder.grid, encoder.config.radius).to(fields.to(device))
        latent = encoder.posterior(encoder.on_grid(fields.to(device), meshes)).mean
        output = network(latent, torch.full((1,), 500.0).to(latent), **told.to(latent)._asdict())
        kept.append([tensor.detach() for tensor in (latent, output)])
    agree(kept[1], kept[0], rtol=FLOAT32)
