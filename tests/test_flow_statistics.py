"""What is measured of flows: exact on waves and on linear fields; and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny_flows import INTERVAL, STROUHAL, autoencoder, mesh, waves
from text2pde.data.clip import Clip
from text2pde.data.statistics import (
    cylinder_flow_of,
    relative_error,
    rms_divergence,
    wake_statistics,
)
from text2pde.evaluation.baselines import nearest_clip
from text2pde.evaluation.first_frames import evaluate_first_frames, first_frame_requests
from text2pde.evaluation.prompts import (
    SWEEP,
    caption_requests,
    evaluate_cylinder,
    sweep_requests,
)
from text2pde.evaluation.reconstruction import evaluate_reconstruction, interpolate
from text2pde.pipeline import Request
from text2pde.subject import Scene
from text2pde.subject.cylinder.channel import Channel, CylinderFlow


@pytest.mark.parametrize("speed", [0.8, 1.6])
@pytest.mark.parametrize("first", [0, 5])
def test_the_frequency_of_waves_is_found_at_any_speed_and_phase(speed: float, first: int) -> None:
    clip = waves(frames=60, speed=speed)
    later = clip._replace(times=clip.times[first:], fields=clip.fields[first:])
    found = wake_statistics(later)
    assert found.frequency == pytest.approx(STROUHAL * speed / 0.1, rel=2e-3)
    assert clip.interval == pytest.approx(INTERVAL)


def test_the_fluctuation_is_that_of_a_sine() -> None:
    # Whole periods of a wave of height 0.5 in units of the speed.
    clip = waves(frames=50)
    assert wake_statistics(clip).fluctuation == pytest.approx(0.5 / 2**0.5, rel=1e-3)
    assert wake_statistics(clip).slip == 0
    moving = clip._replace(fields=clip.fields + np.float32(0.12))
    assert wake_statistics(moving).slip == pytest.approx(0.1 * 2**0.5, rel=1e-5)


def test_the_divergence_of_linear_fields_is_exact() -> None:
    x, y = mesh().nodes.T
    for field, expected in (((2 * x, 3 * y), 5.0), ((3 * y, 2 * x), 0.0), ((x, -y), 0.0)):
        velocity = np.stack(field, axis=1)[None]
        assert rms_divergence(mesh(), velocity) == pytest.approx(expected, abs=1e-10)


def test_the_relative_error_weighs_by_area() -> None:
    clip = waves()
    assert relative_error(clip.fields, clip) == 0
    assert relative_error(1.1 * clip.fields, clip) == pytest.approx(0.1, rel=1e-5)


def test_linear_fields_are_spread_exactly_and_beyond_the_nodes_as_the_nearest() -> None:
    nodes = mesh().nodes
    values = np.stack([2 * nodes[:, 0] - nodes[:, 1]], axis=1)
    places = np.array([[0.7, 0.2], [1.2, 0.31]])
    found = interpolate(nodes, values, np.concatenate([places, [[1.7, 0.5]]]))
    np.testing.assert_allclose(found[:2, 0], 2 * places[:, 0] - places[:, 1], atol=1e-10)
    assert found[2, 0] == pytest.approx(2 * 1.6 - 0.41)


# ------------------------------------------------------------------------------------ evaluation


def solved(requests: Sequence[Request]) -> list[Clip]:
    """What a perfect model would generate: waves whose amplitude and frequency rise with their
    Reynolds number."""
    return [wave(r.scene, r.scene.parameters["reynolds"]) for r in requests]


def wave(flow: Scene, reynolds: float) -> Clip:
    """Like one of a Reynolds number, at the flow's own speed."""
    assert isinstance(flow, CylinderFlow)
    return waves(flow.channel.x, 48, flow.speed, reynolds / 200, strouhal(reynolds))


def strouhal(reynolds: float) -> float:
    return 0.2 + reynolds / 1000


def scaled(flow: Scene) -> Sequence[float]:
    return flow.parameters["reynolds"] / 100, 10 * flow.parameters["x"]


def flows(speeds: Sequence[float], x: float = 0.3) -> list[Clip]:
    return solved(
        [Request(CylinderFlow(Channel(x=x, y=0.2, radius=0.05), speed)) for speed in speeds]
    )


def test_a_perfect_model_has_no_errors_and_shuffled_prompts_have() -> None:
    held_out, training = flows([1.0, 1.3, 1.1]), flows([0.8, 1.5])
    found = evaluate_cylinder(
        solved(caption_requests(held_out)),
        solved(sweep_requests(held_out[0])),
        scaled,
        held_out,
        training,
    )
    assert found.generated == pytest.approx((0, 0), abs=1e-6)
    assert min(found.shuffled) > 0.05
    assert min(found.nearest) > 0.1
    # After rescaling, what is left is the difference of the Strouhal numbers.
    near = [(100, 80), (130, 150), (110, 80)]
    expected = np.median([abs(strouhal(other) / strouhal(own) - 1) for own, other in near])
    assert found.rescaled.frequency == pytest.approx(expected, abs=5e-3)
    assert found.rescaled.fluctuation == found.nearest.fluctuation
    assert found.ranks == pytest.approx((1, 1))
    assert len(SWEEP) == 20
    assert found.slip == 0
    assert found.divergence == found.solved_divergence


def test_a_model_that_ignores_prompts_has_no_rank_correlation() -> None:
    random = 60 + 80 * np.random.default_rng(0).random(len(SWEEP))

    def unresponsive(requests: Sequence[Request]) -> list[Clip]:
        pairs = zip(requests, random, strict=False)
        return [wave(request.scene, float(number)) for request, number in pairs]

    held_out = flows([1.0, 1.2])
    found = evaluate_cylinder(
        unresponsive(caption_requests(held_out)),
        unresponsive(sweep_requests(held_out[0])),
        scaled,
        held_out,
        flows([1.1]),
    )
    assert max(map(abs, found.ranks)) < 0.6
    assert found.generated.fluctuation > 0.01


def test_the_nearest_flow_is_that_of_the_nearest_numbers() -> None:
    clips = flows([0.7, 1.0, 1.4])
    wanted = replace(cylinder_flow_of(clips[0]), speed=1.15)
    assert nearest_clip(wanted, clips, scaled) is clips[1]


def test_first_frames_are_followed_in_phase() -> None:
    training, held_out = flows([1.0], x=0.35), flows([1.3], x=0.3)

    requests = first_frame_requests(held_out)
    assert all(r.first is not None and r.prompt is None and r.use_parameters for r in requests)
    generated = held_out[0]._replace(
        times=held_out[0].times[:16], fields=1.05 * held_out[0].fields[:16]
    )
    found = evaluate_first_frames([generated], scaled, held_out, training)
    assert found.generated == pytest.approx(0.05, rel=1e-4)
    assert found.still > 0.5
    # The other flow is a wave of the same kind, and has a frame of nearly every phase.
    assert found.nearest < 0.5 * found.still


@torch.no_grad()
def test_reconstruction_is_measured_beside_interpolation() -> None:
    found = evaluate_reconstruction(autoencoder(), [waves()], 8)
    assert found.model.overall > 0.5  # it was not trained
    assert found.interpolated.overall < 0.2
    assert found.compression == pytest.approx(8 * len(mesh().nodes) * 3 / (4 * 2 * 2 * 8))
