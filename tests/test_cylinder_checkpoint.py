"""The bundled model of flows, on channels and Reynolds numbers that it never saw.

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
from text2pde.autoencoder.learning import relative_errors
from text2pde.evaluation.continuation import evaluate_continuation
from text2pde.evaluation.frames import evaluate_frames, first_frames_of
from text2pde.evaluation.reconstruction import evaluate_reconstruction, spread
from text2pde.evaluation.sentences import (
    Sentences,
    captions_of,
    evaluate_sentences,
    ranks,
    sweep_of,
)
from text2pde.flows.clip import Clip
from text2pde.flows.cylinder import Family, draw, draw_held_out
from text2pde.flows.simulate import Recording, simulate
from text2pde.flows.statistics import past_cylinder, statistics
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import Sizes, triangulate

FOLDER = Path(__file__).parents[1] / "assets" / "cylinder"
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
HELD_OUT, TRAINING = 8, 32
FINE = Sizes(near=0.16, far=0.03, growth=0.2)


@cache
def pipeline() -> Text2PDEPipeline:
    return load_text2pde(FOLDER, torch.device("cpu"))


@torch.no_grad()
def drawn(requests: Sequence[Request], steps: int = 20) -> list[Clip]:
    return pipeline().draw(requests, range(len(requests)), steps)


def test_a_sentence_becomes_a_vortex_street() -> None:
    """Published Strouhal numbers of this channel are near 0.3 at such Reynolds numbers."""
    (clip,) = pipeline()(SENTENCE, num_inference_steps=10).clips
    found = statistics(clip)
    assert found.frequency * clip.flow.clock == pytest.approx(0.3, rel=0.15)
    assert 0.2 < found.fluctuation < 0.6
    assert found.slip == 0
    # Fluid enters with the profile that was asked for.
    inlet = clip.mesh.kinds == 1
    profile = 6 * 1.2 * clip.mesh.nodes[inlet, 1] * (0.41 - clip.mesh.nodes[inlet, 1]) / 0.41**2
    assert np.abs(clip.fields[:, inlet, 0] - profile).mean() < 0.1 * 1.2


# ------------------------------------------------------------------------- against solved flows


@cache
def held_out() -> list[Clip]:
    return [simulate(flow) for flow in draw_held_out(Family(), HELD_OUT)]


@cache
def training() -> list[Clip]:
    return [simulate(flow) for flow in draw(Family(), TRAINING)]


@cache
def swept() -> list[Clip]:
    """Flows of Reynolds numbers that rise, in the first of the held-out channels."""
    (flow,) = draw_held_out(Family(), 1)
    mesh = triangulate(flow.channel)
    nothing = np.zeros((1, len(mesh.nodes), 3), np.float32)
    return drawn(sweep_of(Clip(flow, mesh, np.zeros(1), nothing)))


@cache
def sentences() -> Sentences:
    asked, numbers = drawn(captions_of(held_out())), pipeline().transformer.scaled
    return evaluate_sentences(asked, swept(), numbers, held_out(), training())


@pytest.mark.slow
@torch.no_grad()
def test_the_autoencoder_gives_back_channels_that_it_never_saw() -> None:
    found = evaluate_reconstruction(pipeline().autoencoder, held_out(), 48)
    assert found.compression >= 16
    assert found.coded.across <= 0.12
    assert found.coded.overall < found.interpolated.overall
    assert found.coded.across < found.interpolated.across


@pytest.mark.slow
@pytest.mark.xfail(reason="0.0504 over 16 flows, learned from windows of 16 frames", strict=False)
@torch.no_grad()
def test_the_autoencoder_errs_by_a_twentieth() -> None:
    found = evaluate_reconstruction(pipeline().autoencoder, held_out(), 48)
    assert found.coded.overall <= 0.05


@pytest.mark.slow
@torch.no_grad()
def test_what_was_encoded_on_one_mesh_is_decoded_on_a_finer_one() -> None:
    """One flow, solved on the finer mesh, and told at the nodes of the other."""
    model, flow = pipeline().autoencoder, past_cylinder(held_out()[0])
    fine = simulate(flow, Recording(frames=48), FINE)
    mesh = triangulate(flow.channel)
    flat = fine.fields.transpose(1, 0, 2).reshape(len(fine.mesh.nodes), -1).astype(np.float64)
    told = spread(fine.mesh.nodes, flat, mesh.nodes).reshape(len(mesh.nodes), 48, 3)
    coarse = Clip(flow, mesh, fine.times, told.transpose(1, 0, 2).astype(np.float32))
    one, other = (prepare_clip(c, model.grid, model.config.radius) for c in (coarse, fine))
    latent = model.encode(one.fields, one.mesh).mean
    same = relative_errors(model.decode(latent, one.mesh), one.fields, one.areas)
    found = relative_errors(model.decode(latent, other.mesh), other.fields, other.areas)
    assert len(fine.mesh.nodes) > 1.5 * len(mesh.nodes)
    assert found.overall <= 1.3 * same.overall


@pytest.mark.slow
def test_flows_of_sentences_have_the_frequency_that_they_should() -> None:
    found = sentences()
    assert found.drawn.frequency <= 0.05
    assert found.drawn.frequency < found.nearest.frequency
    assert found.divergence < 1.5 * found.solved_divergence


@pytest.mark.slow
def test_flows_of_sentences_move_as_much_as_they_should() -> None:
    found = sentences()
    assert found.drawn.fluctuation <= 0.10
    assert found.drawn.fluctuation < found.nearest.fluctuation


@pytest.mark.slow
def test_vortices_leave_the_faster_the_higher_the_reynolds_number_is() -> None:
    assert ranks(swept()).strouhal >= 0.95


@pytest.mark.slow
@pytest.mark.xfail(reason="0.50: one flow in six moves half as much as it should")
def test_flows_move_the_more_the_higher_the_reynolds_number_is() -> None:
    assert ranks(swept()).fluctuation >= 0.95


@pytest.mark.slow
def test_other_sentences_do_not_do() -> None:
    assert sentences().shuffled.frequency > 0.05


@pytest.mark.slow
def test_what_follows_a_first_frame_is_nearer_than_the_nearest_flow() -> None:
    found = evaluate_frames(
        drawn(first_frames_of(held_out())), pipeline().transformer.scaled, held_out(), training()
    )
    assert found.drawn < found.nearest < found.still


@pytest.mark.slow
def test_a_drawn_frame_goes_on_as_the_equations_have_it() -> None:
    clips = drawn(captions_of(held_out()))
    found = evaluate_continuation(clips, pipeline().transformer.scaled, training())
    assert found.drawn <= 2 * found.nearest
