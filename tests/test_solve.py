r"""The executor: bitwise the same alone and in a batch, before and after a resume, in any process.

Also its invariances: the coordinates of a schedule, the parameterisation of the network and an
affine change of the data do not matter; edits between calls move what a step remembers; and a step
compiles whole, into at most three graphs for a run of twenty.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from samplers.grid import Grid, make_grid
from samplers.noise import RowNoise
from samplers.prediction import PredictionType, clip
from samplers.registry import Sampler, get_sampler, registry
from samplers.schedule import EDM, FlowMatching, Schedule, VPDiscrete, VPLinear
from samplers.solve import Model, Solver, State, step, working_dtype
from samplers.tableau import Tableau
from tests.convergence import finish
from tests.mixture import PLANE, Mixture

# Their jumps depend on the range that the schedule was trained in.
INTO_RANGE = ("tcd", "consistency")
EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
ALONE = pytest.mark.parametrize(
    "sampler",
    [s for s in registry().values() if s.tableau(make_grid(VPLinear(), 3)).batch_invariant],
    ids=lambda s: s.name,
)
KINDS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction", "flow", "score")
SEEDS = (11, 12, 13)


def grid(schedule: Schedule | None = None, steps: int = 6) -> Grid:
    return make_grid(schedule or VPLinear(), steps, sigma_max=8.0)


def solver_on(
    sampler: Sampler | str,
    on: Grid,
    prediction: PredictionType = "epsilon",
    seeds: tuple[int, ...] = SEEDS,
    shape: tuple[int, ...] = (2,),
) -> Solver:
    """A bound sampler; the noise is there whether it is needed or not."""
    known = get_sampler(sampler) if isinstance(sampler, str) else sampler
    return Solver(known.tableau(on), prediction, RowNoise(seeds, shape))


def start(count: int = len(SEEDS), dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 2, dtype=torch.float64, generator=generator).to(dtype)


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    """A network that treats samples, and even numbers, alike."""
    return torch.sin(2 * x + t[:, None].to(x.dtype)) + 0.3 * x


def same(a: State, b: State) -> bool:
    pairs = zip((*a.points, *a.predictions), (*b.points, *b.predictions), strict=True)
    return a.row == b.row and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


# Bitwise.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@ALONE
def test_a_sample_is_the_same_alone_and_in_a_batch(sampler: Sampler, dtype: torch.dtype) -> None:
    seeds = tuple(range(9))
    on, x = grid(), start(len(seeds), dtype)
    whole = solver_on(sampler, on, seeds=seeds)
    together = finish(whole, elementwise, whole.init(x))
    assert together.dtype == working_dtype(dtype)
    for i in (0, 4, 8):
        alone = solver_on(sampler, on, seeds=seeds[i : i + 1])
        assert torch.equal(finish(alone, elementwise, alone.init(x[i : i + 1]))[0], together[i])


@EACH
def test_a_state_resumed_before_any_row_goes_on_bit_for_bit(sampler: Sampler) -> None:
    on = grid()
    solver = solver_on(sampler, on)
    states = [solver.init(start())]
    states += solver.run(elementwise, states[0])
    assert [state.row for state in states] == list(range(len(solver.tableau.rows) + 1))
    for state in states:
        fresh = solver_on(sampler, on)
        read: State = pickle.loads(pickle.dumps(state))
        assert same(read, state)
        assert torch.equal(finish(fresh, elementwise, read), states[-1].x)


def test_a_state_resumed_in_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    on = grid()
    solver = solver_on("sde-dpmpp-3m", on)
    states = list(solver.run(elementwise, solver.init(start())))
    (tmp_path / "state").write_bytes(pickle.dumps(states[2]))
    (tmp_path / "tableau").write_text(solver.tableau.to_json())
    code = f"""
import pickle, torch
from pathlib import Path
from samplers.noise import RowNoise
from samplers.solve import Solver
from samplers.tableau import Tableau
folder = Path({str(tmp_path)!r})
tableau = Tableau.from_json((folder / "tableau").read_text())
solver = Solver(tableau, "epsilon", RowNoise({SEEDS}, (2,)))
state = pickle.loads((folder / "state").read_bytes())
model = lambda x, t: torch.sin(2 * x + t[:, None].to(x.dtype)) + 0.3 * x
for state in solver.run(model, state): pass
(folder / "end").write_bytes(pickle.dumps(state.x))
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    assert torch.equal(pickle.loads((tmp_path / "end").read_bytes()), states[-1].x)


@EACH
def test_advance_is_pure_so_a_state_can_be_forked(sampler: Sampler) -> None:
    solver = solver_on(sampler, grid())
    state = solver.init(start())
    for _ in range(min(3, len(solver.tableau.rows) - 1)):
        copy = pickle.dumps(state)
        output = elementwise(state.x, solver.time(state).expand(len(SEEDS)))
        one = solver.advance(state, output)
        other = solver.advance(state, output * 0)
        assert same(state, pickle.loads(copy))
        assert same(one, solver.advance(state, output))
        assert not torch.equal(one.predictions[0], other.predictions[0])
        state = one


@EACH
def test_the_network_is_called_once_a_row(sampler: Sampler) -> None:
    seen: list[float] = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(SEEDS),)
        assert t.dtype == x.dtype == torch.float64
        seen.append(float(t[0]))
        return elementwise(x, t)

    solver = solver_on(sampler, grid())
    finish(solver, counted, solver.init(start()))
    assert len(seen) == solver.tableau.calls
    assert seen == [float(row.at.t) for row in solver.tableau.rows]


def test_half_precision_is_accumulated_in_float32() -> None:
    solver = solver_on("dpmpp-2m", grid(steps=20))
    for dtype in (torch.bfloat16, torch.float16):
        x = start(dtype=dtype)
        found = finish(solver, elementwise, solver.init(x))
        exact = finish(solver, elementwise, solver.init(x.double()))
        assert found.dtype == torch.float32
        assert float((found - exact).abs().max()) < 1e-5 * float(exact.abs().max())


def test_noise_must_be_given_where_it_is_drawn() -> None:
    with pytest.raises(ValueError, match="seeds"):
        Solver(get_sampler("ancestral").tableau(grid()), "epsilon").init(start())


def test_a_correction_is_applied_to_every_prediction() -> None:
    tableau = get_sampler("dpmpp-2m").tableau(grid())
    solver = Solver(tableau, "sample", correct=clip(0.1))
    end = finish(solver, lambda x, t: x * 50, solver.init(start()))
    assert float(end.abs().max()) <= 0.1


# Invariances.


@EACH
def test_the_parameterisation_does_not_matter(sampler: Sampler) -> None:
    for schedule in (VPLinear(), EDM(), FlowMatching()):
        on = grid(schedule)
        x = start() * on.start.sigma
        ends = []
        for kind in KINDS:
            solver = solver_on(sampler, on, kind)
            ends.append(finish(solver, PLANE.model(schedule, kind), solver.init(x)))
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-10)


@EACH
def test_the_coordinates_of_the_schedule_do_not_matter(sampler: Sampler) -> None:
    """y = x / alpha solves one equation on every schedule; but for what is done to x itself, and
    for jumps into the trained range."""
    rho = torch.logspace(0.9, -1.5, 7, dtype=torch.float64)
    ends = []
    for schedule in (EDM(), VPLinear(), FlowMatching(), VPDiscrete.linear()):
        on = Grid(schedule, schedule.at_lam(-rho.log()))
        solver = solver_on(sampler, on, "sample")
        y = start() * rho[0]
        end = finish(solver, PLANE.model(schedule, "sample"), solver.init(on.start.alpha * y))
        ends.append(end / on.end.alpha)
    if not sampler.name.startswith(("euler-maruyama", "reverse-diffusion", "bdia", *INTO_RANGE)):
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "sampler", [s for s in registry().values() if s.name not in INTO_RANGE], ids=lambda s: s.name
)
def test_an_affine_change_of_the_data_changes_the_samples_alike(sampler: Sampler) -> None:
    """For data a x_0 + c, noise levels a rho and a start moved likewise: the samples a x + c, if
    the schedule knows the scale of the data."""
    scale, shift = 2.0, torch.tensor([0.7, -1.1], dtype=torch.float64)
    schedule = EDM(sigma_max=200.0)
    rho = torch.logspace(0.9, -1.1, 6, dtype=torch.float64)
    options = {"s_tmin": 0.0, "s_tmax": 1e9} if "s_tmin" in sampler.options else {}

    def run(data: Mixture, rho: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
        on = Grid(schedule.with_data_scale(scale), schedule.at_lam(-rho.log()))
        tableau = sampler.tableau(on, options)
        solver = Solver(tableau, "sample", RowNoise(SEEDS, (2,)))
        return finish(solver, data.model(schedule, "sample"), solver.init(x))

    x = start() * rho[0]
    plain = run(PLANE, rho, x)
    moved = run(PLANE.affine(scale, shift), scale * rho, scale * x + shift, scale)
    torch.testing.assert_close(moved, scale * plain + shift, rtol=0, atol=1e-10)


# Edits between calls.


@EACH
def test_an_edit_of_nothing_changes_nothing(sampler: Sampler) -> None:
    solver = solver_on(sampler, grid())
    state = solver.init(start())
    for after in solver.run(elementwise, state):
        if not solver.done(after):
            assert same(solver.moved(after, after.x.clone()), after)


@EACH
def test_an_edit_shifts_what_the_step_remembers(sampler: Sampler) -> None:
    """VE is translation-equivariant: a shift of a whole step's data by c moves its end by c."""
    on = Grid(EDM(), EDM().at_lam(torch.linspace(-1.5, 1.5, 6, dtype=torch.float64)))
    shift = torch.tensor([0.3, -0.2], dtype=torch.float64)
    solver = solver_on(sampler, on, "sample")
    model, other = (d.model(EDM(), "sample") for d in (PLANE, PLANE.affine(1.0, shift)))
    state = solver.init(start())
    for after in solver.run(model, state):
        if solver.done(after):
            break
        row = solver.tableau.rows[after.row]
        begins = row.step != solver.tableau.rows[after.row - 1].step
        rows = solver.tableau.rows
        alone = len({lag for r in rows for lag in r.prediction_lags}) == 1
        alone = alone and all(lag <= r.base for r in rows for lag in r.point_lags)
        if not begins or alone:
            moved = _to_the_end_of_the_step(solver, solver.moved(after, after.x + shift), other)
            plain = _to_the_end_of_the_step(solver, after, model)
            torch.testing.assert_close(moved.x, plain.x + shift, rtol=0, atol=1e-12)


def _to_the_end_of_the_step(solver: Solver, state: State, model: Model) -> State:
    step = solver.tableau.rows[state.row].step
    while not solver.done(state) and solver.tableau.rows[state.row].step == step:
        state = solver.advance(state, model(state.x, solver.time(state).expand(len(state.x))))
    return state


# Compilation.


def traced(graphs: list[int]) -> Callable[..., Callable[..., object]]:
    """A backend that runs a graph as it is and counts it."""

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(1)
        return module.forward

    return backend


@EACH
def test_a_step_compiles_whole_into_at_most_three_graphs(sampler: Sampler) -> None:
    torch._dynamo.reset()
    graphs: list[int] = []
    on = make_grid(VPLinear(), 20, sigma_max=8.0)
    compiled = torch.compile(step, fullgraph=True, backend=traced(graphs), dynamic=False)
    eager = solver_on(sampler, on)
    fast = Solver(eager.tableau, "epsilon", RowNoise(SEEDS, (2,)), step=compiled)
    x = start(dtype=torch.float32)
    found = finish(fast, elementwise, fast.init(x))
    assert torch.equal(found, finish(eager, elementwise, eager.init(x)))
    assert 1 <= len(graphs) <= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_the_real_compiler_gives_the_same_sample() -> None:
    torch._dynamo.reset()
    on = make_grid(VPLinear(), 8, sigma_max=8.0)
    eager = solver_on("dpmpp-2m", on)
    fast = Solver(eager.tableau, "epsilon", step=torch.compile(step, fullgraph=True))
    x = start(dtype=torch.float32)
    found = finish(fast, elementwise, fast.init(x))
    torch.testing.assert_close(found, finish(eager, elementwise, eager.init(x)))


def test_a_table_from_elsewhere_runs() -> None:
    """The executor needs the numbers only."""
    tableau = Tableau.from_json(get_sampler("unipc-3").tableau(grid()).to_json())
    solver, known = Solver(tableau, "epsilon"), solver_on("unipc-3", grid())
    one = finish(solver, elementwise, solver.init(start()))
    assert torch.equal(one, finish(known, elementwise, known.init(start())))
