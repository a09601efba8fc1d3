"""Captions state the parameters of their flows, and prompts are read or refused."""

from __future__ import annotations

import pytest

from text2pde.subject.cylinder.captions import (
    POSITION,
    StatedParameters,
    cylinder_caption,
    read_cylinder_flow,
    read_parameters,
)
from text2pde.subject.cylinder.channel import Channel
from text2pde.subject.cylinder.family import CylinderFamily, sample_flows

FLOWS = sample_flows(CylinderFamily(held_out=None), 40)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_can_be_read(seed: int) -> None:
    flow = FLOWS[seed]
    found = read_cylinder_flow(cylinder_caption(flow, seed))
    assert found.reynolds == pytest.approx(flow.reynolds, abs=0.05 + 1e-9)
    assert found.speed == pytest.approx(flow.speed, rel=3e-3)
    for name in ("x", "y", "radius"):
        assert getattr(found.channel, name) == pytest.approx(getattr(flow.channel, name), abs=6e-5)


def test_words_vary_and_are_repeatable() -> None:
    texts = {cylinder_caption(FLOWS[0], seed) for seed in range(50)}
    assert len(texts) > 30
    assert cylinder_caption(FLOWS[0], 7) == cylinder_caption(FLOWS[0], 7)
    assert cylinder_caption(FLOWS[0], 7) != cylinder_caption(FLOWS[1], 7)


@pytest.mark.parametrize(
    ("prompt", "parameters"),
    [
        (
            "Water flows past a cylinder of radius 0.05 m at Reynolds number 120",
            StatedParameters(reynolds=120, radius=0.05),
        ),
        ("re=80, diameter: 8 cm", StatedParameters(reynolds=80, radius=0.04)),
        (
            "A channel of 1.6 m x 0.41 m holds a cylinder of radius 5 cm; Re = 120",
            StatedParameters(reynolds=120, radius=0.05),
        ),
        ("a radius of 45mm, 1.2 m/s", StatedParameters(speed=1.2, radius=0.045)),
        (
            "Radius is about 5 centimetres; it enters at 90 cm/s",
            StatedParameters(speed=0.9, radius=0.05),
        ),
        ("x = 0.31 m, y = 21 cm", StatedParameters(x=0.31, y=0.21)),
        ("The Reynolds number is 1.2e2.", StatedParameters(reynolds=120)),
        ("In 2D, and in 2-D, where H2O flows", StatedParameters()),
    ],
)
def test_prompts_are_read(prompt: str, parameters: StatedParameters) -> None:
    for one, other in zip(read_parameters(prompt), parameters, strict=True):
        assert one == (None if other is None else pytest.approx(other))


def test_what_a_prompt_omits_has_a_default() -> None:
    flow = read_cylinder_flow("Water flows past a cylinder of radius 0.05 m at Reynolds number 120")
    assert flow.channel == Channel(*POSITION, radius=0.05)
    assert flow.speed == pytest.approx(1.2)
    assert read_cylinder_flow("radius 5 cm, 0.8 m/s").reynolds == pytest.approx(80)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("a vortex street", "no size of the cylinder"),
        ("radius 5 cm", "neither a Reynolds number nor a velocity"),
        ("radius 5 cm, Re 100, 2 m/s", "has the Reynolds number 200"),
        ("radius 50 cm, Re 100", "does not fit"),
        ("radius 5 cm at x = 3 m, Re 100", "does not fit"),
        ("radius 0 m, Re 100", "must be positive"),
        ("radius 5 cm, 1,1 m/s", "mentions a velocity without a number"),
        ("radius 5 cm, a speed of -1.2 m/s", "mentions a velocity without a number"),
        ("radius 5 cm, 1,200 m/s", "mentions a velocity without a number"),
        ("radius 5 cm, Re = 80-90", "mentions a Reynolds number without a number"),
        ("radius 5 cm, Re = 100 to 120", "mentions a Reynolds number without a number"),
        ("radius 5 cm, Re = 100±10", "mentions a Reynolds number without a number"),
        ("radius 5 cm, Re = 100k", "mentions a Reynolds number without a number"),
        ("radius 5 cm, Reynolds number 1.2 x 10^2", "mentions a Reynolds number without a number"),
        ("radius 5 cm at (0.35, 0.19) m, Re 120", "two numbers in brackets"),
        ("radius 5 cm, later of radius 6 cm, Re 100", "states a radius twice, 0.05 and 0.06"),
        ("radius 5 cm, Re 100, x = 0.35, y = 0.2 m", "mentions a coordinate x without a number"),
        ("radius 5 cm, Re 100, x = -0.1 m", "mentions a coordinate x without a number"),
        ("radius five cm, Re 100", "mentions a radius without a number"),
        ("radius 5 cm, Reynolds number 1,200", "mentions a Reynolds number without a number"),
        ("radius 5 cm, 3 m per second", "mentions a velocity without a number"),
        ("radius 5 cm, diameter 8 cm, Re 100", "has no diameter of 0.08 m"),
        ("radius 5 cm, Re 100, viscosity 0.01 m^2/s", "always 0.001"),
        ("radius 5 cm, 0.5 to 1.1 m/s", "has the number 0.5, which no quantity"),
        ("radius 5 cm, 4 km/h", "has the number 4, which"),
        ("r = 5 cm, Re 100", "has the number 5, which"),
        ("radius 5 cm, Re 100 in a channel 30 m long", "has the number 30, which"),
        ("radius 5 cm, Re 100, for 48 frames.", "write numbers as in 'Reynolds number 120'"),
        ("radius 5 cm, a peak inlet speed of 1.2 m/s", "3/2 of its mean"),
        ("radius 5 cm, with a maximum velocity of 1.2 m/s", "3/2 of its mean"),
        ("radius 5 cm, centreline velocity 1.2 m/s", "3/2 of its mean"),
    ],
)
def test_prompts_that_can_not_be_followed_are_refused(prompt: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_cylinder_flow(prompt)
