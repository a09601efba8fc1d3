"""Noise is a pure function of seed and row: the same alone, in any batch, order and process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from samplers.noise import BrownianNoise, RowNoise, check_seeds, initial_noise, uniform_noise

SHAPE = (3, 4)


def test_a_sample_has_the_same_noise_alone_and_in_any_batch() -> None:
    batch = RowNoise((5, 7, 5, 2**63 - 1), SHAPE)
    for row in (-1, 0, 3, 10_000):
        for i, seed in enumerate(batch.seeds):
            assert torch.equal(RowNoise((seed,), SHAPE)(row)[0], batch(row)[i])


def test_noise_does_not_depend_on_what_was_drawn_before() -> None:
    noise = RowNoise((1, 2), SHAPE)
    later = noise(9)
    for row in range(9):
        noise(row)
    torch.manual_seed(0)
    assert torch.equal(noise(9), later)
    assert torch.equal(pickle.loads(pickle.dumps(noise))(9), later)


def test_another_process_draws_the_same_bits() -> None:
    code = "from samplers.noise import RowNoise; print(RowNoise((11,), (2,))(4).tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(RowNoise((11,), (2,))(4).tolist())


@pytest.mark.parametrize("shape", [(), (2,), (3, 0), SHAPE, (1, 40, 40)], ids=str)
def test_the_numbers_are_those_of_numpys_philox(shape: tuple[int, ...]) -> None:
    """With seed and index as its key, so that they never change."""
    seeds = (0, 5, 2**63 - 1)

    def generators(index: int) -> list[np.random.Generator]:
        keys = [np.array([seed, index], dtype=np.uint64) for seed in seeds]
        return [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    normal = [generator.standard_normal(shape) for generator in generators(2 + 7)]
    assert np.array_equal(RowNoise(seeds, shape)(7).numpy(), np.stack(normal))
    assert np.array_equal(RowNoise(seeds, shape, first=4)(3).numpy(), np.stack(normal))
    uniform = [generator.random(shape) for generator in generators(2**33)]
    assert np.array_equal(uniform_noise(seeds, shape).numpy(), np.stack(uniform))


def test_rows_and_seeds_differ() -> None:
    draws = [initial_noise((0, 1), SHAPE)] + [RowNoise((0, 1), SHAPE)(row) for row in range(-1, 6)]
    flat = [tuple(sample.flatten().tolist()) for draw in draws for sample in draw]
    assert len(set(flat)) == len(flat)


def test_noise_is_standard_normal_and_independent() -> None:
    count, rows = 4_000, 3
    columns = [RowNoise(tuple(range(count)), (2,))(row) for row in range(rows)]
    columns.append(initial_noise(range(count), (2,)))
    values = torch.cat(columns, dim=1)
    assert values.dtype == torch.float64
    allowed = 4.5 / count**0.5
    assert float(values.mean(0).abs().max()) < allowed
    covariance = torch.cov(values.T) - torch.eye(values.shape[1], dtype=torch.float64)
    assert float(covariance.diagonal().abs().max()) < allowed * 2**0.5
    assert float(covariance.fill_diagonal_(0).abs().max()) < allowed
    assert float(values.pow(4).mean()) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("seeds", [(), (-1,), (0, 2**63), (0.5,), (1.0,)])
def test_impossible_seeds_are_refused(seeds: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0"):
        check_seeds(seeds)
    with pytest.raises(ValueError, match="whole numbers from 0"):
        RowNoise(seeds, SHAPE)
    with pytest.raises(ValueError, match="whole numbers from 0"):
        initial_noise(seeds, SHAPE)


# Paths

HALVES = ((1e-4, 2e-4), (2e-4, 7e-3), (7e-3, 50.0))


def path(
    intervals: tuple[tuple[float, float] | None, ...], seeds: tuple[int, ...]
) -> BrownianNoise:
    return BrownianNoise(seeds, SHAPE, intervals)


def test_increments_of_a_path_add_up_in_any_order() -> None:
    parts, whole = path(HALVES, (3, 4)), path(((1e-4, 50.0),), (3, 4))
    expected = whole(0) * (50 - 1e-4) ** 0.5
    for order in ((0, 1, 2), (2, 0, 1)):
        again = path(HALVES, (3, 4))
        total = sum(again(k) * (HALVES[k][1] - HALVES[k][0]) ** 0.5 for k in order)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-10)
    assert torch.equal(parts(1), path(HALVES, (3, 4))(1))


def test_a_path_is_the_same_alone_and_either_way() -> None:
    together = path(HALVES, (3, 4))
    assert torch.equal(path(HALVES, (4,))(1)[0], together(1)[1])
    assert torch.equal(path(((7e-3, 2e-4),), (3, 4))(0), together(1))


def test_the_noise_of_a_path_is_standard_normal() -> None:
    z = BrownianNoise(tuple(range(4)), (2_000,), HALVES)
    columns = torch.stack([z(k).flatten() for k in range(3)])
    count = columns.shape[1]
    assert bool((columns.mean(1).abs() < 4 / count**0.5).all())
    error = (torch.cov(columns) - torch.eye(3)).abs()
    assert bool((error < 4 * (2 / count) ** 0.5).all())


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(ValueError, match="no interval"):
        path((None, (0.0, 1.0)), (3,))(0)
    with pytest.raises(ValueError, match="no interval"):
        path(((0.0, 1.0),), (3,))(-1)
    with pytest.raises(ValueError, match="beyond its end"):
        path(((0.0, 1e13),), (3,))
