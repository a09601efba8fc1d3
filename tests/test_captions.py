"""Captions state their flows, and sentences are read as they are meant."""

from __future__ import annotations

import pytest

from text2pde.captions.channel import PLACE, StatedNumbers, caption, flow_of, read_numbers
from text2pde.channel import Channel
from text2pde.flows.cylinder import Family, draw

FLOWS = draw(Family(held_out=None), 40)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_can_be_read(seed: int) -> None:
    flow = FLOWS[seed]
    found = flow_of(caption(flow, seed))
    assert found.reynolds == pytest.approx(flow.reynolds, abs=0.05 + 1e-9)
    assert found.speed == pytest.approx(flow.speed, rel=3e-3)
    for name in ("x", "y", "radius"):
        assert getattr(found.channel, name) == pytest.approx(getattr(flow.channel, name), abs=6e-5)


def test_words_vary_and_are_repeatable() -> None:
    texts = {caption(FLOWS[0], seed) for seed in range(50)}
    assert len(texts) > 30
    assert caption(FLOWS[0], 7) == caption(FLOWS[0], 7)
    assert caption(FLOWS[0], 7) != caption(FLOWS[1], 7)


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        (
            "Water flows past a cylinder of radius 0.05 m at Reynolds number 120",
            StatedNumbers(reynolds=120, radius=0.05),
        ),
        ("re=80, diameter: 8 cm", StatedNumbers(reynolds=80, radius=0.04)),
        (
            "A channel of 1.6 m x 0.41 m holds a cylinder of radius 5 cm; Re = 120",
            StatedNumbers(reynolds=120, radius=0.05),
        ),
        ("a radius of 45mm, 1.2 m/s", StatedNumbers(speed=1.2, radius=0.045)),
        (
            "Radius is about 5 centimetres; it enters at 90 cm/s",
            StatedNumbers(speed=0.9, radius=0.05),
        ),
        ("x = 0.31 m, y = 21 cm", StatedNumbers(x=0.31, y=0.21)),
        ("The Reynolds number is 1.2e2.", StatedNumbers(reynolds=120)),
        ("In 2D, and in 2-D, where H2O flows", StatedNumbers()),
    ],
)
def test_sentences_are_read_as_they_are_meant(sentence: str, numbers: StatedNumbers) -> None:
    for one, other in zip(read_numbers(sentence), numbers, strict=True):
        assert one == (None if other is None else pytest.approx(other))


def test_what_a_sentence_leaves_out_has_a_default() -> None:
    flow = flow_of("Water flows past a cylinder of radius 0.05 m at Reynolds number 120")
    assert flow.channel == Channel(*PLACE, radius=0.05)
    assert flow.speed == pytest.approx(1.2)
    assert flow_of("radius 5 cm, 0.8 m/s").reynolds == pytest.approx(80)


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("a vortex street", "no size of the cylinder"),
        ("radius 5 cm", "neither a Reynolds number nor a speed"),
        ("radius 5 cm, Re 100, 2 m/s", "has the Reynolds number 200"),
        ("radius 50 cm, Re 100", "does not fit"),
        ("radius 5 cm at x = 3 m, Re 100", "does not fit"),
        ("radius 0 m, Re 100", "must be positive"),
        ("radius 5 cm, 1,1 m/s", "names a speed without a number"),
        ("radius 5 cm, a speed of -1.2 m/s", "names a speed without a number"),
        ("radius 5 cm, 1,200 m/s", "names a speed without a number"),
        ("radius 5 cm, Re = 80-90", "names a Reynolds number without a number"),
        ("radius 5 cm, Re = 100 to 120", "names a Reynolds number without a number"),
        ("radius 5 cm, Re = 100±10", "names a Reynolds number without a number"),
        ("radius 5 cm, Re = 100k", "names a Reynolds number without a number"),
        ("radius 5 cm, Reynolds number 1.2 x 10^2", "names a Reynolds number without a number"),
        ("radius 5 cm at (0.35, 0.19) m, Re 120", "two numbers in brackets"),
        ("radius 5 cm, later of radius 6 cm, Re 100", "states a radius twice, 0.05 and 0.06"),
        ("radius 5 cm, Re 100, x = 0.35, y = 0.2 m", "names a place x without a number"),
        ("radius 5 cm, Re 100, x = -0.1 m", "names a place x without a number"),
        ("radius five cm, Re 100", "names a radius without a number"),
        ("radius 5 cm, Reynolds number 1,200", "names a Reynolds number without a number"),
        ("radius 5 cm, 3 m per second", "names a speed without a number"),
        ("radius 5 cm, diameter 8 cm, Re 100", "has no diameter of 0.08 m"),
        ("radius 5 cm, Re 100, viscosity 0.01 m^2/s", "always 0.001"),
        ("radius 5 cm, 0.5 to 1.1 m/s", "has the number 0.5, which nothing is drawn by"),
        ("radius 5 cm, 4 km/h", "has the number 4, which"),
        ("r = 5 cm, Re 100", "has the number 5, which"),
        ("radius 5 cm, Re 100 in a channel 30 m long", "has the number 30, which"),
        ("radius 5 cm, Re 100, for 48 frames.", "it may have numbers as in 'Reynolds number 120'"),
        ("radius 5 cm, a peak inlet speed of 1.2 m/s", "3/2 of its mean"),
        ("radius 5 cm, with a maximum velocity of 1.2 m/s", "3/2 of its mean"),
        ("radius 5 cm, centreline velocity 1.2 m/s", "3/2 of its mean"),
    ],
)
def test_sentences_without_what_is_needed_are_refused(sentence: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        flow_of(sentence)
