"""The bundled model of flows, on channels and Reynolds numbers that are not in its training data.

The slow tests hold it to what a model should reach; what this one does not reach yet is expected to
fail, with what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from text2pde.autoencoder.clips import prepare_clip
from text2pde.autoencoder.objective import relative_errors
from text2pde.data.clip import Clip
from text2pde.data.statistics import cylinder_flow_of, wake_statistics
from text2pde.evaluation.first_frames import (
    evaluate_continuation,
    evaluate_first_frames,
    first_frame_requests,
)
from text2pde.evaluation.prompts import (
    CylinderEvaluation,
    caption_requests,
    evaluate_cylinder,
    sweep_ranks,
    sweep_requests,
)
from text2pde.evaluation.reconstruction import evaluate_reconstruction, interpolate
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.solver.simulation import Recording, simulate
from text2pde.subject.cylinder.family import CylinderFamily, sample_flows, sample_held_out_flows

FOLDER = Path(__file__).parents[1] / "assets" / "cylinder"
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
HELD_OUT, TRAINING = 8, 32
FINE = MeshSizes(near=0.16, far=0.03, growth=0.2)


@cache
def pipeline() -> Text2PDEPipeline:
    return load_text2pde(FOLDER, torch.device("cpu"))


@torch.no_grad()
def generated(requests: Sequence[Request], steps: int = 20) -> list[Clip]:
    return pipeline().generate(requests, range(len(requests)), steps)


def test_a_prompt_gives_a_vortex_street() -> None:
    """Published Strouhal numbers of this channel are near 0.3 at such Reynolds numbers."""
    (clip,) = pipeline()(SENTENCE, num_inference_steps=10).clips
    found = wake_statistics(clip)
    assert found.frequency * clip.scene.time_unit == pytest.approx(0.3, rel=0.15)
    assert 0.2 < found.fluctuation < 0.6
    assert found.slip == 0
    # Fluid enters with the profile of the prompt.
    inlet = clip.mesh.kinds == 1
    profile = 6 * 1.2 * clip.mesh.nodes[inlet, 1] * (0.41 - clip.mesh.nodes[inlet, 1]) / 0.41**2
    assert np.abs(clip.fields[:, inlet, 0] - profile).mean() < 0.1 * 1.2


# ------------------------------------------------------------------------- against solved flows


@cache
def held_out() -> list[Clip]:
    return [simulate(flow) for flow in sample_held_out_flows(CylinderFamily(), HELD_OUT)]


@cache
def training() -> list[Clip]:
    return [simulate(flow) for flow in sample_flows(CylinderFamily(), TRAINING)]


@cache
def sweep() -> list[Clip]:
    """Flows of ascending Reynolds numbers, in the first of the held-out channels."""
    (flow,) = sample_held_out_flows(CylinderFamily(), 1)
    mesh = triangulate(flow.channel)
    nothing = np.zeros((1, len(mesh.nodes), 3), np.float32)
    return generated(sweep_requests(Clip(flow, mesh, np.zeros(1), nothing)))


@cache
def evaluation() -> CylinderEvaluation:
    clips, scaled = generated(caption_requests(held_out())), pipeline().transformer.scaled
    return evaluate_cylinder(clips, sweep(), scaled, held_out(), training())


@pytest.mark.slow
@torch.no_grad()
def test_the_autoencoder_reconstructs_held_out_flows() -> None:
    found = evaluate_reconstruction(pipeline().autoencoder, held_out(), 48)
    assert found.compression >= 16
    assert found.model.transverse <= 0.12
    assert found.model.overall < found.interpolated.overall
    assert found.model.transverse < found.interpolated.transverse


@pytest.mark.slow
@pytest.mark.xfail(reason="0.0504 over 16 flows, trained on windows of 16 frames", strict=False)
@torch.no_grad()
def test_the_reconstruction_error_is_a_twentieth() -> None:
    found = evaluate_reconstruction(pipeline().autoencoder, held_out(), 48)
    assert found.model.overall <= 0.05


@pytest.mark.slow
@torch.no_grad()
def test_a_latent_of_one_mesh_is_decoded_on_a_finer_one() -> None:
    """One flow, simulated on the finer mesh, and interpolated to the other."""
    model, flow = pipeline().autoencoder, cylinder_flow_of(held_out()[0])
    fine = simulate(flow, Recording(frames=48), FINE)
    mesh = triangulate(flow.channel)
    flat = fine.fields.transpose(1, 0, 2).reshape(len(fine.mesh.nodes), -1).astype(np.float64)
    at_nodes = interpolate(fine.mesh.nodes, flat, mesh.nodes).reshape(len(mesh.nodes), 48, 3)
    coarse = Clip(flow, mesh, fine.times, at_nodes.transpose(1, 0, 2).astype(np.float32))
    one, other = (prepare_clip(c, model.grid, model.config.radius) for c in (coarse, fine))
    latent = model.encode(one.fields, one.mesh).mean
    same = relative_errors(model.decode(latent, one.mesh), one.fields, one.areas)
    found = relative_errors(model.decode(latent, other.mesh), other.fields, other.areas)
    assert len(fine.mesh.nodes) > 1.5 * len(mesh.nodes)
    assert found.overall <= 1.3 * same.overall


@pytest.mark.slow
def test_generated_flows_have_the_right_frequency() -> None:
    found = evaluation()
    assert found.generated.frequency <= 0.05
    assert found.generated.frequency < found.nearest.frequency
    assert found.divergence < 1.5 * found.solved_divergence


@pytest.mark.slow
def test_generated_flows_have_the_right_fluctuation() -> None:
    found = evaluation()
    assert found.generated.fluctuation <= 0.10
    assert found.generated.fluctuation < found.nearest.fluctuation


@pytest.mark.slow
def test_the_strouhal_number_rises_with_the_reynolds_number() -> None:
    assert sweep_ranks(sweep()).strouhal >= 0.95


@pytest.mark.slow
@pytest.mark.xfail(reason="0.50: one flow in six has half the fluctuation")
def test_the_fluctuation_rises_with_the_reynolds_number() -> None:
    assert sweep_ranks(sweep()).fluctuation >= 0.95


@pytest.mark.slow
def test_flows_of_other_prompts_are_far() -> None:
    assert evaluation().shuffled.frequency > 0.05


@pytest.mark.slow
def test_from_a_first_frame_it_is_nearer_than_the_nearest_flow() -> None:
    found = evaluate_first_frames(
        generated(first_frame_requests(held_out())),
        pipeline().transformer.scaled,
        held_out(),
        training(),
    )
    assert found.generated < found.nearest < found.still


@pytest.mark.slow
def test_a_generated_flow_obeys_the_equations() -> None:
    clips = generated(caption_requests(held_out()))
    found = evaluate_continuation(clips, pipeline().transformer.scaled, training())
    assert found.generated <= 2 * found.nearest
