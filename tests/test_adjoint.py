r"""Ways back through a run: exact ones against autograd's own record, to rounding.

In float64, on every fixed-grid sampler, with respect to the starting noise, a condition, weights
and low-rank adapters of weights, without and with strong guidance. Then what is kept for the way
back, in bytes and in network calls, and what is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from adjoint import (
    AbstractAdjoint,
    CheckpointAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
    TruncatedAdjoint,
    estimate_cost,
    verify,
)
from adjoint.diagnostics import activation_bytes
from samplers import inversion, sample
from samplers.denoiser import Denoiser
from samplers.grid import make_grid
from samplers.guidance import classifier_free_guidance
from samplers.prediction import Correction, clip, dynamic_threshold
from samplers.registry import Sampler, get_sampler, registry
from samplers.schedule import VPLinear
from samplers.solve import Solver

EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
SCHEDULE = VPLinear()
SIZE, COUNT, STEPS = 5, 3, 6
SEEDS = range(COUNT)
REVERSIBLE = [
    s for s in registry().values() if inversion.refusal(s.tableau(make_grid(SCHEDULE, 4))) is None
]
EXACT: dict[str, AbstractAdjoint] = {
    "checkpoint": CheckpointAdjoint(),
    "keep": CheckpointAdjoint(keep=3),
    "keep-all": CheckpointAdjoint(keep=1000),
    "offload": CheckpointAdjoint(offload="cpu"),
    "split": CheckpointAdjoint(split=2),
    "truncated-nowhere": TruncatedAdjoint(STEPS),
}


class SmallNetwork(nn.Module):
    """A small network of a sample, a time and a condition, with a low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(2 * SIZE + 1, 8)
        self.last = nn.Linear(8, SIZE)
        self.down = nn.Linear(8, 2, bias=False)
        self.up = nn.Linear(2, SIZE, bias=False)
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls += 1
        seen = torch.cat([x, condition.to(x), t[:, None]], dim=1)
        hidden = torch.tanh(self.first(seen))
        output: Tensor = self.last(hidden) + self.up(self.down(hidden))
        return output


def network(dtype: torch.dtype = torch.float64) -> SmallNetwork:
    return SmallNetwork().to(dtype)


def leaves(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Starting noise and a condition, which require a gradient."""
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(2, COUNT, SIZE, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), c.requires_grad_()


def draw(
    adjoint: AbstractAdjoint | None,
    net: Callable[..., Tensor],
    x: Tensor,
    condition: Tensor | None = None,
    sampler: str = "dpmpp-2m",
    steps: int = STEPS,
    *,
    guidance: float = 1.0,
    correction: Correction | None = None,
    **kwargs: Any,
) -> Tensor:
    """Under classifier-free guidance, of which no condition is one of zeros."""
    model = Denoiser(net, SCHEDULE, "v_prediction", correction=correction)
    return sample(
        classifier_free_guidance(model, {"condition": 0.0}, guidance),
        x,
        sampler=sampler,
        steps=steps,
        seeds=range(len(x)),
        conditions={} if condition is None else {"condition": condition},
        adjoint=adjoint,
        **kwargs,
    )


def gradients(finished: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, finished.numel(), dtype=torch.float64).to(finished)
    loss = (weights.reshape(finished.shape) * finished).sum()
    return list(torch.autograd.grad(loss, list(tensors), retain_graph=True))


def error(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest relative deviation."""
    return max(
        float((x - y).double().norm() / y.double().norm()) for x, y in zip(a, b, strict=True)
    )


# ------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("scale", [1.0, 7.5])
@EACH
def test_checkpoints_give_the_gradient_of_the_record(sampler: Sampler, scale: float) -> None:
    """With respect to noise, condition, weights and adapter; the sample is the same, too."""
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    record = draw(None, net, x, c, sampler.name, guidance=scale)
    replayed = draw(CheckpointAdjoint(), net, x, c, sampler.name, guidance=scale)
    assert torch.equal(record, replayed)
    assert error(gradients(replayed, tensors), gradients(record, tensors)) <= 1e-12


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("sampler", REVERSIBLE, ids=lambda s: s.name)
def test_reversible_samplers_give_the_gradient_of_the_record(
    sampler: Sampler, steps: int, scale: float
) -> None:
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    record = draw(None, net, x, c, sampler.name, steps, guidance=scale)
    reversed_ = draw(ReversibleAdjoint(), net, x, c, sampler.name, steps, guidance=scale)
    torch.testing.assert_close(reversed_, record, rtol=0, atol=0)
    assert error(gradients(reversed_, tensors), gradients(record, tensors)) <= 1e-10


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "sde-dpmpp-2m", "ancestral+langevin"])
@pytest.mark.parametrize("adjoint", EXACT.values(), ids=EXACT)
def test_every_setting_is_exact(adjoint: AbstractAdjoint, sampler: str) -> None:
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    expected = gradients(draw(None, net, x, c, sampler), tensors)
    assert error(gradients(draw(adjoint, net, x, c, sampler), tensors), expected) <= 1e-12


@pytest.mark.parametrize("adjoint", EXACT.values(), ids=EXACT)
def test_every_pass_back_begins_anew(adjoint: AbstractAdjoint) -> None:
    """Of one record: a pass for the noise alone, then two for everything."""
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    expected = gradients(draw(None, net, x, c), tensors)
    finished = draw(adjoint, net, x, c)
    torch.autograd.grad(finished.square().sum(), x, retain_graph=True)
    for _ in range(2):
        assert error(gradients(finished, tensors), expected) <= 1e-12


@EACH
def test_in_float32_the_latents_gradient_is_bitwise_the_same(sampler: Sampler) -> None:
    """The products are those of the record, in its order; those of weights are summed likewise."""
    net, (x, c) = network(torch.float32), leaves(torch.float32)
    expected = gradients(draw(None, net, x, c, sampler.name), [x, *net.parameters()])
    found = gradients(draw(CheckpointAdjoint(), net, x, c, sampler.name), [x, *net.parameters()])
    assert torch.equal(found[0], expected[0])
    assert error(found, expected) <= 1e-6


@pytest.mark.parametrize(
    "correction", [clip(0.3), dynamic_threshold(0.8, 1.5)], ids=["clip", "own"]
)
def test_corrections_bring_their_own_jacobian(correction: Correction) -> None:
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    free = gradients(draw(None, net, x, c), tensors)
    expected = gradients(draw(None, net, x, c, correction=correction), tensors)
    assert error(free, expected) > 1e-3
    for adjoint in (CheckpointAdjoint(), CheckpointAdjoint(split=3)):
        found = gradients(draw(adjoint, net, x, c, correction=correction), tensors)
        assert error(found, expected) <= 1e-12


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "unipc-2", "o-belm"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradcheck(sampler: str, steps: int) -> None:
    """Against finite differences of the sample."""
    net, (x, c) = network(), leaves()
    if get_sampler(sampler).steps_within(steps) < 1:
        pytest.skip("fewer calls than a step")

    def finished(x: Tensor, c: Tensor) -> Tensor:
        return draw(CheckpointAdjoint(), net, x, c, sampler, steps)

    assert torch.autograd.gradcheck(finished, (x[:1], c[:1]))


def test_a_condition_for_each_call_and_a_graph_before_the_run() -> None:
    """A condition that is computed gets its gradient, and hands it on to what it comes from."""
    net, (x, c) = network(), leaves()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    expected = gradients(draw(None, net, x, scale * c), [scale, c, x])
    found = gradients(draw(CheckpointAdjoint(), net, x, scale * c), [scale, c, x])
    assert error(found, expected) <= 1e-12


def test_runs_do_not_disturb_each_other() -> None:
    """Two runs of one network, passed back in the order of their making."""
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    expected = [gradients(draw(None, net, k * x, c), tensors) for k in (1.0, 0.5)]
    runs = [draw(CheckpointAdjoint(), net, k * x, c) for k in (1.0, 0.5)]
    for run, own in zip(runs, expected, strict=True):
        assert error(gradients(run, tensors), own) <= 1e-12
    both = gradients(
        draw(CheckpointAdjoint(), net, x, c) + draw(CheckpointAdjoint(), net, 0.5 * x, c), tensors
    )
    assert error(both, [a + b for a, b in zip(*expected, strict=True)]) <= 1e-12


def test_random_numbers_of_the_network_are_the_same_again() -> None:
    """Dropout in a training network, and those outside are left as they are."""
    net, (x, c) = network(), leaves()
    model = nn.ModuleDict({"net": net, "drop": nn.Dropout(0.5)}).train()

    def dropping(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        output: Tensor = model["net"](x, t, model["drop"](condition))
        return output

    found = []
    for adjoint in (None, CheckpointAdjoint(), CheckpointAdjoint(keep=2)):
        torch.manual_seed(3)
        finished = draw(adjoint, dropping, x, c)
        state = torch.get_rng_state()
        found.append(gradients(finished, [x, c, *net.parameters()]))
        assert torch.equal(torch.get_rng_state(), state)
    assert error(found[1], found[0]) <= 1e-12


def test_autocast_is_the_same_again() -> None:
    net, (x, c) = network(torch.float32), leaves(torch.float32)
    found = []
    for adjoint in (None, CheckpointAdjoint()):
        with torch.autocast("cpu", torch.bfloat16):
            finished = draw(adjoint, net, x, c)
        found.append(gradients(finished, [x, c]))
    assert error(found[1], found[0]) <= 1e-2
    plain = gradients(draw(CheckpointAdjoint(), net, x, c), [x, c])
    assert error(found[1], plain) > 1e-4


def test_half_precision_sums_in_float32() -> None:
    """The sum over calls is rounded once: nearer to the exact one than a sum in bfloat16."""
    net, (x, c) = network(torch.bfloat16), leaves(torch.bfloat16)
    exact = copy.deepcopy(net).double()
    weights, precise = list(net.parameters()), list(exact.parameters())

    def half(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x.to(torch.bfloat16), t.to(torch.bfloat16), condition)

    steps = 60
    expected = gradients(draw(None, exact, x.double(), c.double(), steps=steps), precise)
    summed = gradients(draw(CheckpointAdjoint(), half, x, c, steps=steps), weights)
    record = gradients(draw(None, half, x, c, steps=steps), weights)
    assert all(gradient.dtype == torch.bfloat16 for gradient in summed)
    for a, b in zip(summed, expected, strict=True):
        cosine = (a.double() * b).sum() / (a.double().norm() * b.norm())
        assert float(cosine) >= 0.999
    assert error(summed, expected) < error(record, expected)


# ------------------------------------------------------------------------------------ cost


def small_unet() -> tuple[Any, Callable[[Tensor, Tensor], Tensor]]:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )

    def model(x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = unet(x, 999 * t).sample
        return output

    return unet, model


def bytes_kept(run: Callable[[], Tensor], weights: Sequence[Tensor]) -> int:
    """The bytes of all storages that autograd saves until the way back, but for weights."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}
    saved = []

    def pack(tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        saved.append(tensor)
        return len(saved) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda place: saved[place]):
        finished = run()
    assert finished.requires_grad
    return sum(kept.values())


def test_bytes_grow_by_the_latents_alone() -> None:
    unet, model = small_unet()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latent = x.numel() * x.element_size()
    own = list(unet.parameters())
    for steps in (10, 50):
        kept = bytes_kept(partial(draw, CheckpointAdjoint(), model, x, steps=steps), own)
        assert kept <= 1.02 * steps * latent
    record = bytes_kept(lambda: draw(None, model, x, steps=10), own)
    assert record > 20 * 10 * latent


def test_the_estimate_is_what_is_kept() -> None:
    unet, model = small_unet()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    own = list(unet.parameters())
    tableau = get_sampler("dpmpp-2m").tableau(make_grid(SCHEDULE, 10))
    calls = 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return model(x, t)

    denoiser = Denoiser(counted, SCHEDULE, "v_prediction")
    direct = estimate_cost(denoiser, x, DirectAdjoint(), tableau)
    kept = bytes_kept(lambda: draw(None, model, x, steps=10), own)
    assert direct.bytes == pytest.approx(kept, rel=0.05)
    assert calls == 1  # on tensors without data
    checkpoint = estimate_cost(denoiser, x, CheckpointAdjoint(), tableau)
    one = activation_bytes(denoiser, x, tableau.start.t, {})
    assert checkpoint.activations == one
    assert checkpoint.samples == 10 * x.numel() * 4
    assert "10 network evaluations" in str(checkpoint)
    halves = estimate_cost(denoiser, x, CheckpointAdjoint(split=2), tableau)
    assert halves.activations == pytest.approx(one / 2)


@EACH
def test_network_calls_are_counted_exactly(sampler: Sampler) -> None:
    """As the cost says: N forwards, N again."""
    net, (x, c) = network(), leaves()
    tableau = sampler.tableau(make_grid(SCHEDULE, STEPS))
    finished = draw(CheckpointAdjoint(), net, x, c, sampler.name)
    cost = CheckpointAdjoint().cost(tableau)
    assert net.calls == cost.forward == tableau.calls
    gradients(finished, [x])
    assert net.calls == cost.forward + cost.recomputed


@pytest.mark.parametrize(
    ("adjoint", "sampler"),
    [
        (CheckpointAdjoint(keep=2), "dpmpp-2m"),
        (CheckpointAdjoint(keep=100), "dpmpp-2m"),
        (TruncatedAdjoint(2), "heun"),
        (TruncatedAdjoint(2, inner=CheckpointAdjoint(keep=1)), "dpmpp-2m"),
        (ReversibleAdjoint(), "o-belm"),
        (DirectAdjoint(), "dpmpp-2m"),
    ],
    ids=str,
)
def test_the_cost_of_other_ways(adjoint: AbstractAdjoint, sampler: str) -> None:
    net, (x, c) = network(), leaves()
    cost = adjoint.cost(get_sampler(sampler).tableau(make_grid(SCHEDULE, STEPS)))
    finished = draw(adjoint, net, x, c, sampler)
    assert net.calls == cost.forward
    gradients(finished, [c])
    assert net.calls == cost.forward + cost.recomputed


def test_frozen_weights_cost_nothing() -> None:
    net, (x, _) = network(), leaves()
    net.requires_grad_(False)
    finished = draw(CheckpointAdjoint(), net, x, torch.zeros(COUNT, SIZE))
    assert finished.requires_grad
    finished.sum().backward()
    assert all(weight.grad is None for weight in net.parameters())


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    net, (x, c) = network(), leaves()
    for adjoint, sampler in ((CheckpointAdjoint(), "dpmpp-2m"), (ReversibleAdjoint(), "o-belm")):
        with torch.no_grad():
            finished = draw(adjoint, net, x, c, sampler)
            assert torch.equal(finished, draw(None, net, x, c, sampler))
        assert not finished.requires_grad
    net.requires_grad_(False)
    assert not draw(CheckpointAdjoint(), net, x.detach(), c.detach()).requires_grad


# ------------------------------------------------------------------------------- truncation


def test_truncation_is_the_gradient_of_the_last_steps() -> None:
    """Those of a run that begins where the truncated one starts to record."""
    net, (x, c) = network(), leaves()
    solver = Solver(get_sampler("heun").tableau(make_grid(SCHEDULE, STEPS)), "v_prediction")
    tensors = [c, *net.parameters()]
    with torch.no_grad():
        states = list(solver.run(lambda x, t: net(x, t, c), solver.init(x)))
    begin = next(s for s in states if solver.tableau.rows[s.row].step == STEPS - 2)
    late = solver.finish(lambda x, t: net(x, t, c), begin)
    expected = gradients(late.x, tensors)
    truncated = draw(TruncatedAdjoint(2), net, x, c, "heun")
    assert error(gradients(truncated, tensors), expected) <= 1e-12
    (of_noise,) = torch.autograd.grad(
        draw(TruncatedAdjoint(2), net, x, c, "heun").sum(), x, allow_unused=True
    )
    assert of_noise is None


def test_a_random_truncation_follows_its_seed() -> None:
    net, (x, c) = network(), leaves()
    again = []
    for seed in range(40):
        net.calls = 0
        finished = draw(TruncatedAdjoint((1, 4), seed=seed), net, x, c)
        gradients(finished, [c])
        again.append(net.calls - STEPS)
    assert set(again) == {1, 2, 3, 4}
    net.calls = 0
    gradients(draw(TruncatedAdjoint((1, 4), seed=0), net, x, c), [c])
    assert net.calls - STEPS == again[0]


# ---------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("sampler", REVERSIBLE, ids=lambda s: s.name)
@pytest.mark.parametrize("steps", [3, 20])
def test_reversible_samplers_find_their_way_back(sampler: Sampler, steps: int) -> None:
    """To the starting noise, bit for bit through the states that the way there had."""
    net, (x, c) = network(), leaves()
    solver = Solver(sampler.tableau(make_grid(SCHEDULE, steps)), "v_prediction")

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t, c)

    with torch.no_grad():
        there = [solver.init(x), *solver.run(model, solver.init(x))]
        back = list(inversion.run_back(solver, model, there[-1]))
    assert [state.row for state in back] == list(range(len(there) - 2, -1, -1))
    for one, other in zip(reversed(there[:-1]), back, strict=True):
        torch.testing.assert_close(other.x, one.x, rtol=0, atol=1e-9)


@EACH
def test_what_has_no_way_back_says_why(sampler: Sampler) -> None:
    tableau = sampler.tableau(make_grid(SCHEDULE, 4))
    reason = ReversibleAdjoint().refusal(tableau)
    assert (reason is None) == (sampler in REVERSIBLE)
    if reason is not None:
        net, (x, c) = network(), leaves()
        with pytest.raises(ValueError, match=r"inverted|previous point"):
            draw(ReversibleAdjoint(), net, x, c, sampler.name, 4)


# ----------------------------------------------------------------------------------- refusals


def test_a_hidden_tensor_with_a_graph_is_an_error() -> None:
    """Its gradient would be lost without a word."""
    net, (x, c) = network(), leaves()
    hidden = 2 * c

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t, hidden)

    with pytest.raises(ValueError, match="pass it in `conditions`"):
        draw(CheckpointAdjoint(), model, x)
    with pytest.raises(ValueError, match="pass it in `conditions`"):
        draw(ReversibleAdjoint(), model, x, None, "o-belm")


def test_a_hidden_leaf_is_found() -> None:
    net, (x, c) = network(), leaves()

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t, c)

    expected = gradients(draw(None, model, x), [c])
    assert error(gradients(draw(CheckpointAdjoint(), model, x), [c]), expected) <= 1e-12


def test_a_leaf_that_shows_up_later_is_an_error() -> None:
    net, (x, c) = network(), leaves()
    late = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)

    def model(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x, t, condition) + (late if float(t[0]) < 0.3 else 0)

    finished = draw(CheckpointAdjoint(), model, x, c)
    with pytest.raises(ValueError, match="its first evaluation did not use"):
        gradients(finished, [x])


def test_a_second_derivative_is_an_error() -> None:
    net, (x, c) = network(), leaves()
    finished = draw(CheckpointAdjoint(), net, x, c)
    with pytest.raises(RuntimeError, match="only adjoint with second derivatives"):
        torch.autograd.grad(finished.square().sum(), x, create_graph=True)


def test_passing_back_twice_needs_a_graph_that_is_retained() -> None:
    net, (x, c) = network(), leaves()
    finished = draw(CheckpointAdjoint(), net, x, c).sum()
    tensors = [x, c, *net.parameters()]
    first = torch.autograd.grad(finished, tensors, retain_graph=True)
    second = torch.autograd.grad(finished, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(finished, tensors)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CheckpointAdjoint(keep=-1), "keep is -1"),
        (lambda: CheckpointAdjoint(split=0), "split is 0"),
        (lambda: CheckpointAdjoint(keep=1, split=2), "not both"),
        (lambda: CheckpointAdjoint(offload="disk"), "'none' or 'cpu'"),  # type: ignore[arg-type]
        (lambda: TruncatedAdjoint(0), "last is 0"),
        (lambda: TruncatedAdjoint((3, 2)), "or a range"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_more_steps_than_there_are_can_not_be_passed_through() -> None:
    net, (x, c) = network(), leaves()
    with pytest.raises(ValueError, match="this run has 6 steps"):
        draw(TruncatedAdjoint(7), net, x, c)
    tableau = get_sampler("dpmpp-2m").tableau(make_grid(SCHEDULE, STEPS))
    with pytest.raises(ValueError, match="this run has 6 steps"):
        estimate_cost(Denoiser(lambda x, t: x, SCHEDULE), x, TruncatedAdjoint(7), tableau)


def test_a_network_that_fails_is_named_with_its_call() -> None:
    net, (x, c) = network(), leaves()

    def broken(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x, t, condition) * (math.nan if float(t[0]) < 0.5 else 1)

    for adjoint, sampler in ((CheckpointAdjoint(), "dpmpp-2m"), (ReversibleAdjoint(), "o-belm")):
        with pytest.raises(ArithmeticError, match=r"NaN or infinity at evaluation \d of 6"):
            draw(adjoint, broken, x, c, sampler)


# --------------------------------------------------------------------------------- agreement


def test_verify_compares_with_the_record() -> None:
    net, (x, c) = network(), leaves()
    tensors = [x, c, *net.parameters()]
    model = Denoiser(net, SCHEDULE, "v_prediction")

    def deviations(adjoint: AbstractAdjoint) -> list[float]:
        given = {"condition": c[:1]}
        return verify(model, x[:1], tensors, steps=STEPS, conditions=given, adjoint=adjoint)

    assert max(deviations(CheckpointAdjoint())) <= 1e-12
    cut = deviations(TruncatedAdjoint(2))
    assert cut[0] == 1  # the noise gets none
    assert min(cut) > 1e-3
