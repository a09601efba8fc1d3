"""What makes a repeated evaluation of a network differ, for each adjoint: exact, or refused.

Exact adjoints are compared with plain backpropagation, those that approximate with themselves in a
run without the hazard. In float64, but for autocast.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from adjoint import (
    AbstractAdjoint,
    BacksolveAdjoint,
    CheckpointAdjoint,
    ContinuousAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
    TruncatedAdjoint,
)
from adjoint.autograd.evaluation import EvaluatedNetwork
from adjoint.autograd.recompute import Recomputed
from adjoint.autograd.used_tensors import HeldTensor, changed_content
from samplers import Denoiser, Unbatched, VPLinear, sample

SIZE, COUNT, STEPS = 5, 4, 4
ADJOINTS: dict[str, AbstractAdjoint] = {
    "direct": DirectAdjoint(),
    "checkpoint": CheckpointAdjoint(),
    "keep": CheckpointAdjoint(keep=2),
    "split": CheckpointAdjoint(split=2),
    "truncated": TruncatedAdjoint(STEPS),
    "reversible": ReversibleAdjoint(),
    "continuous": ContinuousAdjoint(),
    "backsolve": BacksolveAdjoint(),
}
EACH = pytest.mark.parametrize("name", ADJOINTS)
ODE = ("continuous", "backsolve")
TOLERANCE = 1e-6


class Net(nn.Module):
    """A network of a sample, a time and a condition, with a hazardous layer in its middle."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(2 * SIZE + 1, 8), nn.Linear(8, SIZE)
        self.middle = nn.Identity() if middle is None else middle
        self.double()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen = torch.cat([x, condition.to(x), t[:, None]], dim=1)
        output: Tensor = self.last(self.middle(torch.tanh(self.first(seen))))
        return output


class Moved(nn.Module):
    """Adds and multiplies by buffers."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.linspace(-0.5, 0.5, 8))
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.scale * x + self.shift)


def leaves(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Initial noise and a condition, which require a gradient."""
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(2, COUNT, SIZE, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), c.requires_grad_()


def run(
    network: Callable[..., Tensor],
    name: str,
    x: Tensor,
    condition: Any,
    direct: bool = False,
    reversible: str = "o-belm",
) -> Tensor:
    """By an adjoint, or its sampler with plain backpropagation."""
    return sample(
        Denoiser(network, VPLinear(), "v_prediction"),
        x,
        sampler=reversible if name == "reversible" else "ddim",
        steps=STEPS,
        conditions={"condition": condition},
        adjoint=DirectAdjoint() if direct else ADJOINTS[name],
    )


def gradients(finished: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, finished.numel()).to(finished).reshape(finished.shape)
    return list(torch.autograd.grad((weights * finished).sum(), tensors))


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def expected_of(network: Callable[..., Tensor], name: str, tensors: list[Tensor]) -> list[Tensor]:
    """The right gradients, where ``network`` is free of the hazard."""
    x, c, *_ = tensors
    return gradients(run(network, name, x, c, direct=name not in ODE), tensors)


# ------------------------------------------------------------------------ compiled networks


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# Dynamo looks at the gradients of what it is given, and most states of a run are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "module") for name in ADJOINTS), ("checkpoint", "function"), ("split", "forward")],
)
def test_compiled_networks(compiler: None, name: str, how: str) -> None:
    net, (x, c) = Net(), leaves()
    tensors = [x, c, *net.parameters()]
    expected = expected_of(net, name, tensors)
    network: Any = net
    if how == "module":
        net.compile(backend="aot_eager")
    elif how == "function":
        network = torch.compile(net, backend="aot_eager")
    else:
        net.forward = torch.compile(net.forward, backend="aot_eager")  # type: ignore[method-assign]
    assert error(gradients(run(network, name, x, c), tensors), expected) <= TOLERANCE


# --------------------------------------------------------------------------- random numbers


def in_halves(net: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What ``split=2`` computes, since the random numbers of a part are generated for it."""

    def call(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        parts = zip(*(tensor.chunk(2) for tensor in (x, t, condition)), strict=True)
        return torch.cat([net(*part) for part in parts])

    return call


@EACH
def test_dropout(name: str) -> None:
    net, (x, c) = Net(nn.Dropout(0.5)), leaves()
    tensors = [x, c, *net.parameters()]
    if name in ODE:
        with pytest.raises(ValueError, match=r"generates random numbers.*call eval\(\)"):
            run(net, name, x, c)
        return
    torch.manual_seed(3)
    plain = in_halves(net) if name == "split" else net
    expected = gradients(run(plain, name, x, c, direct=True), tensors)
    torch.manual_seed(3)
    finished = run(net, name, x, c)
    state = torch.get_rng_state()
    assert error(gradients(finished, tensors), expected) <= TOLERANCE
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------- changes in place


def ema(net: Net, x: Tensor, c: Tensor) -> None:
    """As optimisers and averages write weights."""
    for weight in net.parameters():
        weight.mul_(1.01)


def one_weight(net: Net, x: Tensor, c: Tensor) -> None:
    net.first.weight[0, 0] += 1e-3


def condition(net: Net, x: Tensor, c: Tensor) -> None:
    c.add_(1e-3)


def scale(net: Net, x: Tensor, c: Tensor) -> None:
    net.middle.scale.add_(1e-3)  # type: ignore[operator]


def shift(net: Net, x: Tensor, c: Tensor) -> None:
    net.middle.shift.add_(1e-3)  # type: ignore[operator]


def unseen(net: Net, x: Tensor, c: Tensor) -> None:
    """As the averages of diffusers write weights, past PyTorch's count of changes."""
    for weight in net.parameters():
        weight.data.copy_(1.01 * weight.data)


@contextmanager
def refused_unless(may_work: bool, match: str) -> Iterator[None]:
    """RuntimeError with this message; or, if it may work, no error."""
    with nullcontext() if may_work else pytest.raises(RuntimeError, match=match):
        try:
            yield
        except RuntimeError as error:
            if not may_work or not re.search(match, str(error)):
                raise


@EACH
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("change", [ema, one_weight, condition, scale, shift, unseen])
def test_changes_in_place(
    name: str, change: Callable[[Net, Tensor, Tensor], None], frozen: bool
) -> None:
    """Between the run and the backward pass."""
    net, (x, c) = Net(Moved()).requires_grad_(not frozen), leaves()
    if name == "direct" and change is unseen:
        pytest.skip("autograd itself does not notice it")
    finished = run(net, name, x, c)
    expected = gradients(run(copy.deepcopy(net), name, x, c), [x])
    with torch.no_grad():
        change(net, x, c)
    with refused_unless(name == "direct", r"changed in place|inplace operation|deviates by"):
        # Autograd saves what the gradient needs, and is exact if that is not what was changed.
        assert error(gradients(finished, [x]), expected) <= TOLERANCE


@EACH
def test_small_changes_past_the_count_in_low_precision(name: str) -> None:
    """Their effect is below the rounding of bfloat16, and above that of the gradient."""
    if name == "direct":
        pytest.skip("autograd itself does not notice it")
    net, (x, c) = Net().float().requires_grad_(False), leaves(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        finished = run(net, name, x, c)
    net.last.bias.data[0] += 1e-3
    with pytest.raises(RuntimeError, match=r"its 'bias' of shape \(5,\) was changed in place"):
        gradients(finished, [x])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8, torch.complex64])
def test_checksums_see_every_byte(dtype: torch.dtype) -> None:
    """Of tensors of odd sizes, in views, of any layout."""
    whole = torch.arange(3 * 7 * 5).reshape(3, 7, 5).to(dtype)
    for view in (whole, whole[1:, 2:], whole.permute(2, 0, 1), whole[0, 0, 1], whole[:, :0]):
        held = [HeldTensor.of(view)]
        assert changed_content(held) is None
        for place in torch.ones(view.shape).nonzero().tolist():
            before = view[tuple(place)].clone()
            view.data[tuple(place)] += 1
            assert changed_content(held) is held[0]
            view.data[tuple(place)] = before
    for view in (whole[0, 0, 1].expand(1), whole[0, 0, 1].expand(3), whole.to(torch.cfloat).conj()):
        assert changed_content([HeldTensor.of(view)]) is None


def test_what_was_changed_is_named() -> None:
    net, (x, c) = Net(Moved()), leaves()
    finished = run(net, "checkpoint", x, c)
    with torch.no_grad():
        shift(net, x, c)
    with pytest.raises(RuntimeError, match=r"its 'shift' of shape \(8,\) was changed in place"):
        gradients(finished, [x])


def test_a_run_after_a_change_is_another_run() -> None:
    net, (x, c) = Net(), leaves()
    gradients(run(net, "checkpoint", x, c), [x])
    with torch.no_grad():
        ema(net, x, c)
    found = gradients(run(net, "checkpoint", x, c), [x])
    assert error(found, gradients(run(net, "direct", x, c), [x])) <= TOLERANCE


# ------------------------------------------------------ networks behind functions and objects


class Pipe:
    """An object that holds a network and is none."""

    def __init__(self, net: nn.Module) -> None:
        self.parts = {"unet": net}
        self.net = net

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["parts"][name]


class Wrapper:
    def __init__(self, net: nn.Module) -> None:
        self.pipe = Pipe(net)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.predict(x, t, condition)

    def predict(self, *args: Tensor) -> Tensor:
        output: Tensor = self.pipe.net(*args)
        return output


def through_attribute(net: nn.Module) -> Callable[..., Tensor]:
    pipe = Pipe(net)
    return lambda x, t, condition: pipe.unet(x, t, condition)  # noqa: PLW0108


def through_weights(net: nn.Module) -> Callable[..., Tensor]:
    """A list of tensors alone, as of a functional network."""
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    values, names, empty = tuple(state.values()), tuple(state), copy.deepcopy(net)
    return lambda x, t, condition: torch.func.functional_call(
        empty, dict(zip(names, values, strict=True)), (x, t, condition)
    )


HIDDEN: dict[str, Callable[[nn.Module], Callable[..., Tensor]]] = {
    "object": Wrapper,
    "attribute": through_attribute,
    "weights": through_weights,
}
BEHIND = pytest.mark.parametrize("behind", HIDDEN)


@EACH
@BEHIND
@pytest.mark.parametrize("change", [one_weight, scale, shift, unseen])
def test_changes_of_hidden_networks(
    name: str, behind: str, change: Callable[[Net, Tensor, Tensor], None]
) -> None:
    """All of it is frozen, so that no gradient shows what is used."""
    if name == "direct":
        pytest.skip("plain backpropagation is not ours")
    net, (x, c) = Net(Moved()).requires_grad_(False), leaves()
    finished = run(HIDDEN[behind](net), name, x, c)
    with torch.no_grad():
        change(net, x, c)
    with pytest.raises(RuntimeError, match=r"changed in place|inplace operation"):
        gradients(finished, [x])


@EACH
@BEHIND
def test_hidden_networks_that_are_left_alone(name: str, behind: str) -> None:
    net, (x, c) = Net(Moved()), leaves()
    tensors = [x, c, *net.parameters()]
    expected = expected_of(net, name, tensors)
    assert error(gradients(run(HIDDEN[behind](net), name, x, c), tensors), expected) <= TOLERANCE


@EACH
@BEHIND
def test_hidden_normalisation_in_training_mode(name: str, behind: str) -> None:
    net, (x, c) = normalised("batch-norm"), leaves()
    if name == "direct":
        return
    with pytest.raises(ValueError, match=r"The network changes .*call eval\(\)"):
        run(HIDDEN[behind](net), name, x, c)


def test_constants_made_in_an_evaluation_are_not_held() -> None:
    """They belong to no later evaluation."""
    net, (x, _), table = Net(), leaves(), torch.ones(COUNT, SIZE)
    network = EvaluatedNetwork.of(lambda x, t: net(x, t, table) * torch.tensor(2.0))
    Recomputed(network).call((x, torch.ones(COUNT).double()), {})
    assert [held is table for held in network.modules.others] == [True]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_only_the_first_evaluation_is_not_compiled(compiler: None) -> None:
    """There the compiler would hide what is used."""
    net, (x, c), graphs = Net(Moved()).requires_grad_(False), leaves(), list[Any]()

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled: Any = torch.compile(net, backend=backend)
    finished = run(through_attribute(compiled), "checkpoint", x, c)
    assert graphs
    net.middle.shift.data.add_(1e-3)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="was changed in place"):
        gradients(finished, [x])


# ------------------------------------------------------------------------- shared conditions


@EACH
def test_a_shared_condition_as_long_as_the_batch(name: str) -> None:
    """A table of COUNT rows, of which each sample sees all."""
    net, (x, table) = Net(), leaves()

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        weights = torch.linspace(-1, 1, len(condition)).to(x)
        output: Tensor = net(x, t, (weights @ condition).expand(len(x), -1))
        return output

    tensors = [x, table, *net.parameters()]
    shared = Unbatched(table)
    expected = gradients(run(network, name, x, shared, direct=name not in ODE), tensors)
    assert error(gradients(run(network, name, x, shared), tensors), expected) <= TOLERANCE


def test_samples_that_depend_on_each_other_are_not_split() -> None:
    net, (x, c) = Net(), leaves()

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x - x.mean(0), t, condition)

    with pytest.raises(ValueError, match=r"split is 2, but .* take split=1"):
        run(network, "split", x, c)


def test_a_condition_of_no_sample_is_not_split_under_dropout() -> None:
    """A table of COUNT rows, of which each sample sees all: the parts see two of them."""
    net, (x, table) = Net(nn.Dropout(0.5)), leaves()

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x, t, condition.mean(0).expand(len(x), -1))

    with pytest.raises(ValueError, match=r"split is 2, but .* take split=1"):
        run(network, "split", x, table)
    assert net.training
    assert net.middle.training
    assert run(network, "split", x, Unbatched(table)).requires_grad


def test_networks_that_are_always_random_are_not_split() -> None:
    """Nothing can be compared."""
    net, (x, c) = Net(), leaves()

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return net(x + 0.1 * torch.randn_like(x), t, condition)

    with pytest.raises(ValueError, match=r"random numbers even in evaluation mode.*split=1"):
        run(network, "split", x, c)


# --------------------------------------------------------------------------------- autocast


@EACH
def test_runs_in_one_region_of_autocast(name: str) -> None:
    """A run for an image, then two for gradients; the backward pass is outside of the region.

    The reference casts the weights in each evaluation, as the adjoints do.
    """
    net, (x, c) = Net().float(), leaves(torch.float32)
    tensors = [x, c, *net.parameters()]
    plain = in_halves(net) if name == "split" else net
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        alone = run(plain, name, x, c, name not in (*ODE, "reversible"), "bdia")
    expected = gradients(alone, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        if name != "direct":  # whose gradients of weights autocast itself would lose
            with torch.no_grad():
                run(net, name, x, c, reversible="bdia")
        runs = [run(net, name, x, c, reversible="bdia") for _ in range(2)]
        image = sample(Denoiser(net, VPLinear()), x, steps=2, conditions={"condition": c})
    # Under its cache, autocast sums the gradients of weights in bfloat16.
    most = 1e-2 if name == "direct" else TOLERANCE
    assert all(error(gradients(finished, tensors), expected) <= most for finished in runs)
    assert all(float(g.norm()) > 0 for g in gradients(image, tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_amplified_rounding_of_a_reconstruction_is_refused(dtype: torch.dtype) -> None:
    """Each row of o-belm amplifies it; under autocast the gradient would be off by 0.1."""
    net, (x, c) = Net().float(), leaves(torch.float32)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        finished = sample(
            Denoiser(net, VPLinear(), "noise"),
            x,
            sampler="o-belm",
            steps=6,
            sigma_max=20.0,
            conditions={"condition": c},
            adjoint=ReversibleAdjoint(),
        )
    with pytest.raises(RuntimeError, match=r"reconstructed before row \d+ deviates by"):
        gradients(finished, [x])


# ---------------------------------------------------------------------------- two networks


@EACH
@pytest.mark.parametrize("how", ["function", "module", "object"])
def test_two_networks_by_noise_level(name: str, how: str) -> None:
    """Of which the first evaluation sees one."""
    noisy, clean = Net(), Net(Moved())

    def function(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        expert = noisy if float(t[0]) > 0.5 else clean
        output: Tensor = expert(x, t, condition)
        return output

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noisy, self.clean = noisy, clean

        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return function(x, t, condition)

    class Holder:
        def __init__(self) -> None:
            self.experts = {"noisy": noisy, "clean": clean}

        def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            expert = self.experts["noisy" if float(t[0]) > 0.5 else "clean"]
            output: Tensor = expert(x, t, condition)
            return output

    network: Any = {"function": function, "module": Experts(), "object": Holder()}[how]
    x, c = leaves()
    tensors = [x, c, *noisy.parameters(), *clean.parameters()]
    expected = expected_of(function, name, tensors)
    assert error(gradients(run(network, name, x, c), tensors), expected) <= TOLERANCE


# ------------------------------------------------------------ networks that change themselves

Kind = Literal["batch-norm", "instance-norm", "spectral-norm"]


def normalised(kind: Kind) -> Net:
    if kind == "batch-norm":
        return Net(nn.BatchNorm1d(8))
    if kind == "spectral-norm":
        return Net(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)))
    return Net(
        nn.Sequential(
            nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
        )
    )


@EACH
@pytest.mark.parametrize("kind", ["batch-norm", "instance-norm", "spectral-norm"])
def test_normalisation_in_training_mode(name: str, kind: Kind) -> None:
    net, (x, c) = normalised(kind), leaves()
    if name == "direct":
        assert run(net, name, x, c).requires_grad
        return
    with pytest.raises(ValueError, match=r"changes its '.*call eval\(\)"):
        run(net, name, x, c)


@EACH
@pytest.mark.parametrize("kind", ["batch-norm", "instance-norm", "spectral-norm"])
def test_normalisation_in_evaluation_mode(name: str, kind: Kind) -> None:
    net, (x, c) = normalised(kind).eval(), leaves()
    tensors = [x, c, *net.parameters()]
    expected = expected_of(net, name, tensors)
    assert error(gradients(run(net, name, x, c), tensors), expected) <= TOLERANCE


def test_state_that_is_no_buffer() -> None:
    """A counter in Python, which only the result shows."""
    net, (x, c), counter = Net(), leaves(), iter(range(100))

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        output: Tensor = net(x, t, condition) * (1 + 0.01 * next(counter))
        return output

    for name in ("checkpoint", "truncated", "reversible", "continuous", "backsolve"):
        with pytest.raises(RuntimeError, match="deviates by"):
            gradients(run(network, name, x, c), [x])
