r"""Tuned samplers: their tables, gradients, gains on held-out noise, files and errors.

The data are the mixture in the plane, whose denoiser is exact and whose probability flow has no
other error than that of the sampler.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adjoint import CheckpointAdjoint
from samplers import (
    EDM,
    Denoiser,
    FlowMatching,
    Guidance,
    InverseProblem,
    NotFiniteError,
    Schedule,
    Start,
    TunedSampler,
    TuningConfig,
    VPDiscrete,
    VPLinear,
    inpainting,
    load_sampler,
    make_grid,
    sample,
    solve_inverse_problem,
    tune,
    tune_family,
)
from samplers.prediction import PredictionType, clip, target
from samplers.registry import Sampler, registry
from samplers.solve import Solver
from samplers.tableau import Tableau
from samplers.tuning.config import PARTS, Part
from samplers.tuning.file import TunedError
from samplers.tuning.learner import TableLearner
from samplers.tuning.objective import DISTANCES, Score
from samplers.tuning.parameters import Parameters, bounds_of
from samplers.tuning.problem import Problem
from samplers.tuning.table import Table, resampled, table_of
from samplers.tuning.teacher import named
from tests.mixture import PLANE, Flow
from tests.tuning_process import join_and_learn, learn

SCHEDULES: tuple[tuple[Schedule, PredictionType], ...] = (
    (VPDiscrete.linear(), "epsilon"),
    (FlowMatching(), "flow"),
    (EDM(), "sample"),
)
ON_EACH = pytest.mark.parametrize(("schedule", "prediction"), SCHEDULES, ids=lambda v: str(v)[:12])
START = Start("unipc-2", "quadratic", 0.1)
QUICK = TuningConfig(
    iterations=15, batch_size=32, held_out=32, learning_rate=0.4, check_every=5, teacher_steps=60
)


def plane(schedule: Schedule, prediction: PredictionType = "epsilon") -> Denoiser:
    """The exact denoiser of the plane, differentiable in the time that it is given, too."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        at = schedule.point(t.unsqueeze(-1))
        x0 = PLANE.denoise(x.double(), at.alpha.unsqueeze(-1), at.sigma.unsqueeze(-1))
        eps = (x - at.alpha * x0) / at.sigma
        return target(prediction, x0, eps, at.alpha, at.sigma).to(x.dtype)

    return Denoiser(network, schedule, prediction)


DDPM = plane(VPDiscrete.linear())


def noise(model: Denoiser, count: int) -> Tensor:
    return model.initial((2,), range(count), dtype=torch.float64)


def finish(tableau: Tableau, model: Denoiser, x: Tensor) -> Tensor:
    solver = Solver(tableau, model.prediction)
    with torch.no_grad():
        return solver.finish(model, solver.init(x)).x


@pytest.fixture(scope="module")
def tuned() -> TunedSampler:
    return tune(DDPM, noise(DDPM, 96), 5, config=replace(QUICK, iterations=40), start=START)


# Tables.


def _has_table(sampler: Sampler) -> bool:
    return not sampler.stochastic and sampler.name not in ("heun", "exponential-heun", "rk4")


@ON_EACH
@pytest.mark.parametrize(
    "sampler", [s for s in registry().values() if _has_table(s)], ids=lambda s: s.name
)
def test_every_deterministic_sampler_of_the_registry_is_such_a_table(
    sampler: Sampler, schedule: Schedule, prediction: PredictionType
) -> None:
    model = plane(schedule, prediction)
    tableau = sampler.tableau(make_grid(schedule, 5))
    again = table_of(tableau).tableau(schedule)
    x = noise(model, 3)
    expected, found = (finish(one, model, x) for one in (tableau, again))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert again.calls == tableau.calls


@pytest.mark.parametrize(
    "name", ["heun", "exponential-heun", "rk4", "ancestral", "lcm", "edm-churn"]
)
def test_other_samplers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="be tuned"):
        table_of(registry()[name].tableau(make_grid(VPLinear(), 4)))


def random_table(nfe: int, columns: int, first: float = -4.0, last: float = math.inf) -> Table:
    generator = torch.Generator().manual_seed(nfe)
    inner = -3 + torch.rand(nfe - 1, generator=generator).double().cumsum(0)
    ends = torch.tensor([first, last], dtype=torch.float64)
    levels = torch.cat([ends[:1], inner, ends[1:]])
    times = levels[:-1] + 0.1 * torch.rand(nfe, generator=generator).double()
    times[0] = first
    weights = torch.randn(nfe, columns, generator=generator).double().tril()
    weights[:, 0] += 1 - weights.sum(dim=1)
    return Table(levels, times, weights)


@ON_EACH
@pytest.mark.parametrize("memory", [1, 2, 6])
def test_any_numbers_pass_the_check_of_a_tableau(
    schedule: Schedule, prediction: PredictionType, memory: int
) -> None:
    first = -math.inf if schedule.noisiest.pure_noise else float(schedule.noisiest.lam)
    for last in (math.inf, 5.0):
        tableau = random_table(6, memory, first, last).tableau(schedule)
        assert tableau.calls == 6
        assert not tableau.stochastic


@pytest.mark.parametrize("first", [-4.0, -math.inf])
@pytest.mark.parametrize("last", [math.inf, 5.0])
@pytest.mark.parametrize("learn", [PARTS, ("grid",), ("times",), ("weights",)])
def test_parameters_give_back_their_table(
    learn: tuple[Part, ...], first: float, last: float
) -> None:
    table = random_table(6, 4, first, last)
    parameters = Parameters.of(table, FlowMatching(), learn)
    parameters.hold()
    for expected, found in zip(table, parameters.table, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("last", [math.inf, 4.0])
def test_levels_and_times_stay_in_the_trained_range(last: float) -> None:
    schedule = VPLinear()
    table = random_table(6, 3, float(schedule.noisiest.lam), last)
    parameters = Parameters.of(table, schedule, PARTS)
    with torch.no_grad():
        parameters.grid.add_(torch.linspace(3, 0, len(parameters.grid)))
        parameters.times.add_(torch.tensor([-30.0, 30, -30, 30, 0, 0]))
    parameters.hold()
    low, high = bounds_of(schedule)
    levels, times, weights = parameters.table.detached
    assert bool((levels.diff() > 0).all())
    assert levels[-1] == last
    assert float(levels[-2]) <= min(high, last) + 1e-9
    assert low - 1e-9 <= float(times.min())
    assert float(times.max()) <= high + 1e-9
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6).double())


def test_less_memory_keeps_the_sum_of_the_weights() -> None:
    table = random_table(6, 6)
    for memory in (1, 3, 6, 9, None):
        less = table.remembering(memory)
        assert less.weights.shape == (6, min(memory or 6, 6))
        torch.testing.assert_close(less.weights.sum(dim=1), torch.ones(6).double())
    assert torch.equal(table.remembering(None).weights, table.weights)


def test_a_table_interpolated_to_its_own_length_is_the_same() -> None:
    for first in (-4.0, -math.inf):
        table = random_table(5, 3, first)
        for expected, found in zip(table, resampled(table, 5), strict=True):
            torch.testing.assert_close(found, expected)
        assert resampled(table, 9).tableau(FlowMatching()).calls == 9
        assert resampled(table, 3).tableau(FlowMatching()).calls == 3


# Samples and gradients of a table.


@ON_EACH
def test_the_samples_of_tuning_are_those_of_the_executor(
    schedule: Schedule, prediction: PredictionType
) -> None:
    model = plane(schedule, prediction)
    first = -math.inf if schedule.noisiest.pure_noise else float(schedule.noisiest.lam)
    table, x = random_table(6, 3, first), noise(model, 4)
    found = Problem(model, x, {}, x).samples(table, 3)
    torch.testing.assert_close(found, finish(table.tableau(schedule), model, x))


def test_gradients_of_a_table_are_exact() -> None:
    table, x = random_table(4, 3, float(VPDiscrete.linear().noisiest.lam)), noise(DDPM, 2)
    parameters = Parameters.of(table, DDPM.schedule, PARTS)
    leaves = list(parameters.moving.values())

    def solved(grid: Tensor, times: Tensor, weights: Tensor) -> Tensor:
        moved = replace(parameters, grid=grid, times=times, weights=weights)
        return Problem(DDPM, x, {}, x).solved(moved.table)

    assert torch.autograd.gradcheck(solved, leaves)


@pytest.mark.parametrize("nfe", [3, 6, 12])
def test_no_activation_of_a_network_is_kept(nfe: int) -> None:
    """What waits for the backward pass has the size of samples, however wide the network is."""
    wide = torch.nn.Sequential(torch.nn.Linear(2, 1000), torch.nn.Tanh(), torch.nn.Linear(1000, 2))
    model = replace(DDPM, network=lambda x, t: wide.double()(x))
    table, x, kept = random_table(nfe, nfe, float(DDPM.schedule.noisiest.lam)), noise(DDPM, 50), []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    parameters = Parameters.of(table, DDPM.schedule, PARTS)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        found = Problem(model, x, {}, x).solved(parameters.table)
    assert max(kept) <= max(x.numel(), nfe**2)  # samples, and the weights of the table
    found.sum().backward()


def test_gradients_pass_through_a_tableau_to_its_numbers() -> None:
    table, x = random_table(4, 3, float(VPDiscrete.linear().noisiest.lam)), noise(DDPM, 2)
    parameters = Parameters.of(table, DDPM.schedule, PARTS)
    leaves = list(parameters.moving.values())
    solver = Solver(parameters.table.tableau(DDPM.schedule))
    by_executor = torch.autograd.grad(solver.finish(DDPM, solver.init(x)).x.sum(), leaves)
    by_tuning = torch.autograd.grad(Problem(DDPM, x, {}, x).solved(parameters.table).sum(), leaves)
    torch.testing.assert_close(by_executor, by_tuning)


# What tuning gains.


@pytest.fixture(scope="module")
def exact() -> tuple[Tensor, Tensor]:
    """The held-out noise and as much that is new, and the end points of the probability flow."""
    x = torch.cat([noise(DDPM, 96)[-32:], noise(DDPM, 128)[-32:]])
    start, end = DDPM.schedule.noisiest, 12.0
    flow = Flow(PLANE, x / start.alpha, float(start.lam), float(start.lam), end)
    one = torch.ones((), dtype=torch.float64)
    return x, PLANE.denoise(flow(end), one, torch.exp(-end * one))


def test_a_tuned_sampler_errs_less_on_new_noise(
    tuned: TunedSampler, exact: tuple[Tensor, Tensor]
) -> None:
    # New to the training and to the choice of the iterate; the teacher has no say either.
    x, wanted = (values[32:] for values in exact)
    with torch.no_grad():
        found = sample(DDPM, x, sampler=tuned)
        grid = make_grid(DDPM.schedule, 5, START.grid, sigma_min=START.sigma_min)
        before = sample(DDPM, x, sampler=START.sampler, grid=grid)
    after, untuned = Score.of(found, wanted), Score.of(before, wanted)
    assert after.geometric_mean < 0.7 * untuned.geometric_mean
    assert after.rms < untuned.rms


def test_it_says_what_it_was_tuned_for_and_how_well_it_did(
    tuned: TunedSampler, exact: tuple[Tensor, Tensor]
) -> None:
    about, (x, wanted) = tuned.about, (values[:32] for values in exact)
    assert about["base"] == str(START)
    assert about["learned"] == ["grid", "times", "weights"]
    found = Score.of(sample(DDPM, x, sampler=tuned), wanted)
    # The targets are those of a teacher of 60 steps.
    assert about["after"]["geometric_mean"] == pytest.approx(found.geometric_mean, rel=0.02)
    assert about["after"]["geometric_mean"] < about["before"]["geometric_mean"]
    assert about["after"]["rms"] <= about["before"]["rms"]
    assert about["teacher_error"] < 1e-3


@pytest.mark.parametrize("learn", [("grid",), ("times",), ("weights",)])
def test_parts_that_are_not_learned_stay(learn: tuple[Part, ...]) -> None:
    config = replace(QUICK, learn=learn, memory=None)
    found = tune(DDPM, noise(DDPM, 64), 4, config=config, start=START).table.remembering(None)
    start = START.table(DDPM.schedule, 4)
    # Weights that are not learned are those of the untuned sampler on the new levels.
    weights = START.weights(DDPM.schedule, found.levels)
    start = start._replace(weights=weights).remembering(None)
    same = {
        "grid": torch.allclose(found.levels, start.levels),
        "times": torch.allclose(
            found.times - found.levels[:-1], start.times - start.levels[:-1], atol=1e-6
        ),
        "weights": torch.allclose(found.weights, start.weights),
    }
    assert same == {part: part not in learn for part in PARTS}


def test_a_family_starts_from_its_neighbours() -> None:
    family = tune_family(DDPM, noise(DDPM, 64), [5, 4], config=QUICK, start=START)
    assert {nfe: tuned.nfe for nfe, tuned in family.items()} == {4: 4, 5: 5}


def test_a_family_begins_with_the_better_of_a_start_and_its_neighbour(
    tuned: TunedSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a poor start, that is the neighbour, interpolated."""
    poor = Start("dpmpp-2m", "uniform", None)
    begun: dict[int, Table] = {}

    class Watched(TableLearner):
        def learn(self, *given: Any) -> Any:
            begun[self.start.nfe] = self.start
            return super().learn(*given)

    monkeypatch.setattr("samplers.tuning.loop.TableLearner", Watched)
    found = tune_family(DDPM, noise(DDPM, 96), [6, 4], config=QUICK, start=poor)
    assert list(found) == [4, 6]
    for own, expected in zip(begun[6], found[4].resampled(6).table.remembering(None), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("nfe", [4, 6, 7])
def test_interpolated_it_errs_less_than_its_start(
    nfe: int, tuned: TunedSampler, exact: tuple[Tensor, Tensor]
) -> None:
    between = tuned.resampled(nfe)
    assert (between.nfe, between.about["interpolated_from"]) == (nfe, 5)
    assert "Interpolated from 5 evaluations" in between.description
    assert TunedSampler.from_json(between.to_json()).about == between.about
    grid = make_grid(DDPM.schedule, nfe, START.grid, sigma_min=START.sigma_min)
    with torch.no_grad():
        found = sample(DDPM, exact[0], sampler=between)
        before = sample(DDPM, exact[0], sampler=START.sampler, grid=grid)
    errors = [Score.of(x, exact[1]).geometric_mean for x in (found, before)]
    assert errors[0] < 0.7 * errors[1]
    with pytest.raises(ValueError, match="between two rows or more"):
        tuned.resampled(1)


def test_training_noise_may_move_within_a_radius() -> None:
    found = tune(DDPM, noise(DDPM, 64), 4, config=replace(QUICK, radius=0.1), start=START)
    assert found.about["after"]["geometric_mean"] < found.about["before"]["geometric_mean"]


def test_several_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Up to rounding: they sum gradients in another order. All return the same sampler."""
    make = multiprocessing.get_context("spawn").Process
    processes = [make(target=join_and_learn, args=(rank, 2, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    of_each = [(tmp_path / f"{rank}.json").read_text() for rank in range(2)]
    assert of_each[0] == of_each[1]
    one, both = learn(), load_sampler(tmp_path / "0.json")
    for ours, theirs in zip(one.table, both.table, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-8)


def test_a_custom_loss_is_minimised() -> None:
    def first_coordinate(x: Tensor, target: Tensor) -> Tensor:
        return (x - target)[:, 0].square()

    found = tune(DDPM, noise(DDPM, 64), 4, config=QUICK, start=START, loss=first_coordinate)
    assert found.about["objective"].endswith("first_coordinate")


# Resume.


def test_a_run_that_was_killed_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    calls = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == limit:
            raise Killed
        return DDPM(x, t)

    model, x = replace(DDPM, network=network), noise(DDPM, 64)
    config = replace(QUICK, radius=0.05)

    def run(folder: Path | None) -> str:
        return tune(model, x, 4, config=config, start=START, folder=folder).to_json()

    limit = 0
    whole, total = run(None), calls
    calls, limit = 0, total - 25
    with pytest.raises(Killed):
        run(tmp_path)
    assert (tmp_path / "state-4.pt").exists()
    calls, limit = 0, 0
    assert run(tmp_path) == whole
    assert calls < total / 2  # neither the teacher nor the first iterations again


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    config = replace(QUICK, iterations=10)
    tune(DDPM, noise(DDPM, 64), 4, config=config, start=START, folder=tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        tune(DDPM, noise(DDPM, 64), 4, config=replace(config, seed=1), start=START, folder=tmp_path)
    with pytest.raises(ValueError, match="other settings"):  # or another loss
        loss = DISTANCES["rms"]
        tune(DDPM, noise(DDPM, 64), 4, config=config, start=START, loss=loss, folder=tmp_path)
    (tmp_path / "state-4.pt").write_bytes(b"torn")
    with pytest.raises(ValueError, match="can't be read"):
        tune(DDPM, noise(DDPM, 64), 4, config=config, start=START, folder=tmp_path)


def test_a_function_is_known_by_its_name_in_every_process() -> None:
    def corrected(data: Tensor) -> Tensor:
        return data.clamp(-3, 3)

    assert "0x" not in repr(named(corrected))
    assert named(corrected) != named(lambda data: data)
    assert named(clip(3.0)) == clip(3.0)


def test_a_torn_file_of_the_teacher_is_computed_again(tmp_path: Path) -> None:
    config = replace(QUICK, iterations=10)
    whole = tune(DDPM, noise(DDPM, 64), 4, config=config, start=START, folder=tmp_path).to_json()
    (path,) = tmp_path.glob("teacher-*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert tune(DDPM, noise(DDPM, 64), 4, config=config, start=START).to_json() == whole
    assert tune(
        DDPM, noise(DDPM, 64), 4, config=config, start=START, folder=tmp_path
    ).to_json() == (whole)


# Files.


def test_a_file_gives_back_the_sampler(tuned: TunedSampler, tmp_path: Path) -> None:
    path = tmp_path / "plane-5.json"
    tuned.save(path)
    again = load_sampler(path)
    assert again.about == tuned.about
    assert all(torch.equal(a, b) for a, b in zip(again.table, tuned.table, strict=True))
    assert again.to_json() == tuned.to_json()
    assert path.stat().st_size < 4096
    x = noise(DDPM, 3)
    assert torch.equal(sample(DDPM, x, sampler=again), sample(DDPM, x, sampler=tuned))


def test_pure_noise_and_clean_data_have_no_number_in_a_file() -> None:
    model = plane(FlowMatching(), "flow")
    found = tune(model, noise(model, 64), 4, config=QUICK, start=Start("dpmpp-2m", "uniform", None))
    data = json.loads(found.to_json())
    assert data["levels"][0] is data["levels"][-1] is data["times"][0] is None
    assert TunedSampler.from_json(found.to_json()).to_json() == found.to_json()


_LEVELS = ("levels", "times")
BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda data: data.update(format="samplers.tuned/9"),
    "no levels": lambda data: data.pop("levels"),
    "text for a number": lambda data: data["levels"].__setitem__(1, "0"),
    "noise that rises": lambda data: data["levels"].__setitem__(1, -9.0),
    "too few times": lambda data: data["times"].pop(),
    "a level that is missing": lambda data: data["levels"].__setitem__(2, None),
    "weights of another sum": lambda data: data["weights"][2].__setitem__(0, 7.0),
    "weights before the first": lambda data: data["weights"].__setitem__(
        0, [0.5, 0.5, *data["weights"][0][2:]]
    ),
    "rows of two lengths": lambda data: data["weights"][0].append(0.0),
    "another number of evaluations": lambda data: data.update(nfe=9),
    "rows without weights": lambda data: data.update(weights=[[]] * len(data["weights"])),
    "a start of less noise": lambda data: [data[k].__setitem__(0, -1.0) for k in _LEVELS],
    "a time that was not trained on": lambda data: data["times"].__setitem__(1, 50.0),
    "no rows": lambda data: data.update(weights=[], times=[], levels=[None]),
    "a foreign key": lambda data: data.update(more=1),
    "no scores": lambda data: data["about"].pop("after"),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused(
    tuned: TunedSampler, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path, data = tmp_path / "sampler.json", json.loads(tuned.to_json())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(TunedError, match="not the file of a tuned sampler"):
        load_sampler(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_a_torn_or_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sampler.json"
    path.write_bytes(content)
    with pytest.raises(TunedError, match="not the file of a tuned sampler"):
        load_sampler(path)
    with pytest.raises(TunedError, match="no such file"):
        load_sampler(tmp_path / "absent.json")


# Use.


def test_its_own_grid_is_used(tuned: TunedSampler) -> None:
    x = noise(DDPM, 3)
    info = sample(DDPM, x, sampler=tuned, return_info=True)
    assert info.nfe == 5
    own = tuned.grid(DDPM.schedule)
    assert torch.equal(sample(DDPM, x, sampler=tuned, steps=5), info.x_0)
    assert torch.equal(sample(DDPM, x, sampler=tuned, grid=own), info.x_0)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 6},
        {"grid": "karras"},
        {"sigma_min": 0.1},
        {"sigma_max": 3.0},
        {"final": "zero"},
        {"options": {"eta": 0.5}},
        {"grid": make_grid(VPDiscrete.linear(), 5)},
        {"grid": make_grid(VPDiscrete.linear(), 6)},
    ],
    ids=str,
)
def test_settings_of_a_grid_are_refused(tuned: TunedSampler, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"own grid|options"):
        sample(DDPM, noise(DDPM, 1), sampler=tuned, **settings)


def test_a_schedule_of_another_range_is_refused(tuned: TunedSampler) -> None:
    for schedule in (FlowMatching(), EDM(), VPLinear(t_min=0.1)):
        with pytest.raises(ValueError, match="was tuned for a network trained from"):
            tuned.tableau(schedule)


def test_it_is_the_same_in_other_coordinates_of_the_network(tuned: TunedSampler) -> None:
    low, high = (float(at.rho) for at in (DDPM.schedule.cleanest, DDPM.schedule.noisiest))
    exploding = plane(EDM(low, high))
    x = noise(DDPM, 3)
    y = x / DDPM.schedule.noisiest.alpha
    found = sample(exploding, y, sampler=tuned)
    torch.testing.assert_close(found, sample(DDPM, x, sampler=tuned), rtol=1e-6, atol=1e-6)


def test_gradients_through_a_tuned_sampler_are_exact(tuned: TunedSampler) -> None:
    x = noise(DDPM, 2).requires_grad_()
    by_autograd, by_adjoint = (
        torch.autograd.grad(sample(DDPM, x, sampler=tuned, adjoint=how).sum(), x)[0]
        for how in (None, CheckpointAdjoint())
    )
    torch.testing.assert_close(by_adjoint, by_autograd)
    assert torch.autograd.gradcheck(lambda x: sample(DDPM, x, sampler=tuned), x)


def test_inverse_problems_take_a_tuned_sampler(tuned: TunedSampler) -> None:
    mask = torch.tensor([True, False])
    known = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    problem = InverseProblem(inpainting(mask, (2,)), (known * mask).expand(4, 2))
    with torch.no_grad():
        found = solve_inverse_problem(
            DDPM, noise(DDPM, 4), problem, sampler=tuned, method=Guidance()
        )
    assert bool(found.isfinite().all())


# Errors.


def test_impossible_settings_are_refused_in_one_sentence() -> None:
    x = noise(DDPM, 64)
    with pytest.raises(ValueError, match="can be tuned from 2 on"):
        tune(DDPM, x, 1, config=QUICK, start=START)
    with pytest.raises(ValueError, match="be tuned"):
        tune(DDPM, x, 4, config=QUICK, start=Start("heun", "karras", None))
    with pytest.raises(ValueError, match="held out"):
        tune(DDPM, x[:32], 4, config=QUICK, start=START)
    with pytest.raises(ValueError, match="stochastic"):
        tune(DDPM, x, 4, config=replace(QUICK, teacher="ancestral"), start=START)
    with pytest.raises(ValueError, match="has not converged"):
        tune(DDPM, x, 4, config=replace(QUICK, teacher="ddim", teacher_steps=2), start=START)
    with pytest.raises(ValueError, match="near that of the teacher"):
        slow = replace(QUICK, teacher="ddim", teacher_steps=20, teacher_tolerance=0.5)
        tune(DDPM, x, 12, config=slow, start=START)


@pytest.mark.parametrize(
    "blind",
    [
        lambda x, t: DDPM(x.detach(), t),
        torch.no_grad()(DDPM.network),
        torch.inference_mode()(DDPM.network),
        lambda x, t: torch.zeros_like(x),
    ],
    ids=["detach", "no_grad", "inference_mode", "constant"],
)
def test_a_network_without_gradients_is_refused(blind: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="no gradient in x, and tuning needs it"):
        tune(replace(DDPM, network=blind), noise(DDPM, 64), 4, config=QUICK, start=START)


@pytest.mark.parametrize("factor", [1e200, math.inf, math.nan])
def test_a_teacher_that_diverges_is_refused(factor: float) -> None:
    wild = replace(DDPM, network=lambda x, t: factor * DDPM(x, t))
    with pytest.raises((ValueError, NotFiniteError), match=r"not converged|NaN or infinity"):
        tune(wild, noise(DDPM, 64), 4, config=QUICK, start=START)


def test_gradients_are_computed_whatever_the_mode_of_the_caller(tuned: TunedSampler) -> None:
    with torch.no_grad():
        found = tune(DDPM, noise(DDPM, 96), 5, config=replace(QUICK, iterations=40), start=START)
    assert found.to_json() == tuned.to_json()


def test_nothing_is_returned_that_is_worse_than_its_start() -> None:
    wild = replace(QUICK, learning_rate=1e3, iterations=2, check_every=1)
    with pytest.raises(ValueError, match="nothing better"):
        tune(DDPM, noise(DDPM, 64), 5, config=wild, start=START)


@pytest.mark.parametrize(
    "setting",
    [
        {"learn": ()},
        {"learn": ("nodes",)},
        {"memory": 0},
        {"distance": "lpips"},
        {"radius": -1.0},
        {"iterations": 0},
        {"learning_rate": 0.0},
        {"teacher_tolerance": math.nan},
    ],
    ids=str,
)
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|give one"):
        TuningConfig(**setting)


def test_weights_of_the_network_are_left_alone() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.scale * DDPM(x, t)

    network = Scaled()
    config = replace(QUICK, iterations=10)
    tune(replace(DDPM, network=network), noise(DDPM, 64), 4, config=config, start=START)
    assert network.scale.grad is None
    assert network.scale == 1
