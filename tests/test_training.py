"""The training loop: exact resume, the average, what is drawn, what is learned, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samplers.denoiser import Denoiser
from samplers.errors import FolderTakenError
from samplers.files import replacing
from samplers.prediction import EDMOutput, PredictionType, target, to_data
from samplers.schedule import (
    EDM,
    VE,
    FlowMatching,
    Point,
    Schedule,
    SubVP,
    VPDiscrete,
    VPLinear,
    shifted,
)
from samplers.training import (
    CHECKPOINT,
    LOG,
    SETTINGS,
    Every,
    TrainingConfig,
    average_decay,
    batch_indices,
    claim_folder,
    learning_rate,
    load_average,
    train,
)
from samplers.training.denoising import (
    LabelDropout,
    Weighting,
    denoising_loss,
    likelihood,
    sigma_squared,
    target_weight,
)
from samplers.training.learner import trained_state

CONFIG = TrainingConfig(
    steps=24,
    batch_size=8,
    learning_rate=1e-2,
    warmup=4,
    average_decay=0.6,
    precision="no",
    log_every=2,
    checkpoint_every=6,
)


class Killed(BaseException):
    """What the tests throw where a process would be killed; nothing catches it by accident."""


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(
        torch.randn(50, 4, generator=generator), torch.randn(50, 1, generator=generator)
    )


def network() -> nn.Module:
    """A network with everything that a resume could forget: dropout, statistics, weights."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def noisy_regression(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    x, y = batch
    noisy = x + torch.randn(x.shape, generator=generator)
    return nn.functional.mse_loss(model(noisy), y)


def regression(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    x, y = batch
    return nn.functional.mse_loss(model(x), y)


def size_of_weights(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    return torch.stack([p.square().sum() for p in model.parameters()]).sum()


def kill_at(step: int) -> Every:
    def call(done: int, average: nn.Module) -> None:
        if done == step:
            raise Killed

    return Every(1, call)


def everything(folder: Path) -> list[Tensor]:
    """All tensors of a checkpoint: weights, average and moments."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    moments = [v for slot in state["optimizer"]["state"].values() for v in slot.values()]
    return [*state["model"].values(), *state["average"].values(), *moments]


def logged(folder: Path) -> list[dict[str, float]]:
    """The log without the times."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "samples_per_second"} for line in lines]


def assert_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("killed_at", [3, 12, 17])
def test_a_killed_run_goes_on_bit_for_bit(
    tmp_path: Path, killed_at: int, accumulation: int
) -> None:
    config = dataclasses.replace(CONFIG, accumulation=accumulation)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    average = train(network(), data(), noisy_regression, config, whole)
    with pytest.raises(Killed):
        train(network(), data(), noisy_regression, config, parts, callback=kill_at(killed_at))
    torch.manual_seed(99)  # a new process starts from another global state
    resumed = train(network(), data(), noisy_regression, config, parts)
    assert_same(everything(parts), everything(whole))
    assert_same(list(resumed.state_dict().values()), list(average.state_dict().values()))
    assert logged(parts) == logged(whole)


def test_a_kill_between_write_and_rename_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(network(), data(), noisy_regression, CONFIG, whole)
    rename = Path.replace
    written: list[Path] = []

    def killed_at_the_second_checkpoint(part: Path, path: Path) -> Path:
        written.append(path)
        if written.count(parts / CHECKPOINT) == 2:
            raise Killed
        return rename(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_at_the_second_checkpoint)
        with pytest.raises(Killed):
            train(network(), data(), noisy_regression, CONFIG, parts)
    # What a process leaves that had no time to clean up.
    (parts / f".{CHECKPOINT}.0.part").write_bytes(b"half of a checkpoint")
    assert torch.load(parts / CHECKPOINT, weights_only=True)["step"] == CONFIG.checkpoint_every
    train(network(), data(), noisy_regression, CONFIG, parts)
    assert_same(everything(parts), everything(whole))


def test_a_line_of_the_log_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(network(), data(), noisy_regression, CONFIG, whole)
    with pytest.raises(Killed):
        train(network(), data(), noisy_regression, CONFIG, parts, callback=kill_at(9))
    with (parts / LOG).open("a") as file:
        file.write('{"step": 10, "lo')
    train(network(), data(), noisy_regression, CONFIG, parts)
    assert logged(parts) == logged(whole)


@pytest.mark.parametrize("left", [0, 100, 1000])
def test_a_torn_checkpoint_is_named(left: int, tmp_path: Path) -> None:
    train(network(), data(), noisy_regression, CONFIG, tmp_path)
    torn = tmp_path / CHECKPOINT
    torn.write_bytes(torn.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"{CHECKPOINT} can't be read; delete it"):
        train(network(), data(), noisy_regression, CONFIG, tmp_path)


def test_a_log_that_is_no_log_is_named(tmp_path: Path) -> None:
    train(network(), data(), noisy_regression, CONFIG, tmp_path)
    (tmp_path / LOG).write_text("nothing of the kind\n")
    with pytest.raises(ValueError, match=rf"The log .*{LOG} is broken"):
        train(network(), data(), noisy_regression, CONFIG, tmp_path)


def run_in(folder: Path, settings: dict[str, Any], steps: int = 2, **options: Any) -> None:
    """A whole run, which ends with a file of what it learned."""
    config = dataclasses.replace(CONFIG, steps=steps, warmup=0)
    with claim_folder(folder, settings, config, written=["result"], **options):
        train(network(), data(), noisy_regression, config, folder)
    (folder / "result").write_text(f"{settings} {steps}")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [SETTINGS, CHECKPOINT, LOG, "result"])
def test_a_fresh_run_replaces_no_file(name: str, tmp_path: Path) -> None:
    """Of each that it would, whatever it holds, until that is allowed."""
    for text in ("notes", "[]", '{"size": 1}'):
        (tmp_path / name).write_text(text)
        with pytest.raises(FolderTakenError, match=rf"{name} .*; choose another folder, .*resume"):
            run_in(tmp_path, {"size": 1})
        assert contents(tmp_path) == {name: text.encode()}
    run_in(tmp_path, {"size": 1}, overwrite=True)
    assert {*contents(tmp_path)} == {SETTINGS, CHECKPOINT, LOG, "result"}


def test_a_folder_that_would_be_replaced_counts_if_it_holds_files(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    with claim_folder(tmp_path, {}, CONFIG, written=["result"]):
        pass
    (tmp_path / SETTINGS).unlink()
    (tmp_path / "result" / "thesis.txt").write_text("precious")
    with (
        pytest.raises(FolderTakenError, match="result exists already"),
        claim_folder(tmp_path, {}, CONFIG, written=["result"]),
    ):
        pass


def test_a_run_with_other_settings_keeps_its_folder(tmp_path: Path) -> None:
    run_in(tmp_path, {"size": 1})
    before = contents(tmp_path)
    for settings, steps, why in (
        ({"size": 2}, 2, "size = 1, this one has 2"),
        ({"size": 1}, 3, "training.steps = 2, this one has 3"),
    ):
        with pytest.raises(FolderTakenError, match=f"{SETTINGS} is of a run with {why}"):
            run_in(tmp_path, settings, steps)
        assert contents(tmp_path) == before
        (tmp_path / CHECKPOINT).rename(tmp_path / "moved")
        with pytest.raises(FolderTakenError, match=why):  # its results are there still
            run_in(tmp_path, settings, steps)
        (tmp_path / "moved").rename(tmp_path / CHECKPOINT)
    run_in(tmp_path, {"size": 1})
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(FolderTakenError, match=f"{CHECKPOINT} exists already"):
        run_in(tmp_path, {"size": 1})


def test_a_run_that_takes_a_folder_over_begins_anew(tmp_path: Path) -> None:
    """And is resumed by the same settings, although it may replace others."""
    old, new = tmp_path / "old", tmp_path / "new"
    run_in(old, {"size": 1})
    run_in(old, {"size": 1}, steps=4, overwrite=True)
    run_in(new, {"size": 1}, steps=4)
    assert [line["step"] for line in logged(old)] == [line["step"] for line in logged(new)]
    assert_same(everything(old), everything(new))
    state = (old / CHECKPOINT).stat()
    run_in(old, {"size": 1}, steps=4, overwrite=True)
    assert (old / CHECKPOINT).stat().st_mtime_ns == state.st_mtime_ns  # it was finished


def test_a_run_that_fails_at_once_leaves_the_folder_to_another(tmp_path: Path) -> None:
    run_killed(tmp_path, {"size": 1}, LOG)
    assert not contents(tmp_path)
    run_killed(tmp_path, {"size": 2}, "result")
    assert {*contents(tmp_path)} == {SETTINGS, "result"}  # there is something to go on with
    run_in(tmp_path, {"size": 2})


def run_killed(folder: Path, settings: dict[str, Any], name: str) -> None:
    """A run of two steps that is killed when it has written a file."""
    config = dataclasses.replace(CONFIG, steps=2, warmup=0)
    with pytest.raises(Killed), claim_folder(folder, settings, config, written=["result"]):
        (folder / name).touch()
        raise Killed


def test_settings_are_what_their_file_gives_back(tmp_path: Path) -> None:
    settings = {"betas": (0.9, 0.99), "rows": [(1, 2)]}
    for _ in range(2):
        run_in(tmp_path, settings)


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    train(network(), data(), noisy_regression, CONFIG, tmp_path)
    before = everything(tmp_path)
    train(network(), data(), noisy_regression, CONFIG, tmp_path, callback=kill_at(CONFIG.steps))
    assert_same(everything(tmp_path), before)


def test_loading_in_other_processes_changes_nothing(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    train(network(), data(), noisy_regression, CONFIG, here)
    config = dataclasses.replace(CONFIG, workers=2)
    train(network(), data(), noisy_regression, config, there)
    assert_same(everything(there), everything(here))


def test_another_setting_is_refused_on_resume(tmp_path: Path) -> None:
    train(network(), data(), noisy_regression, CONFIG, tmp_path)
    other = dataclasses.replace(CONFIG, batch_size=16)
    with pytest.raises(ValueError, match="made with batch_size = 8, this run has 16"):
        train(network(), data(), noisy_regression, other, tmp_path)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    train(network(), data(), noisy_regression, CONFIG, tmp_path)
    other = network()
    other[0].requires_grad_(False)  # type: ignore[index]
    wide = nn.Sequential(*list(network().children())[:-1], nn.Linear(8, 2))
    for model in (other, wide):
        with pytest.raises(ValueError, match="trains other weights than this model does"):
            train(model, data(), noisy_regression, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="is of another model than this one"):
        load_average(tmp_path / CHECKPOINT, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="There is no checkpoint at"):
        load_average(tmp_path / "none.pt", network())
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no checkpoint of a training here"):
        load_average(tmp_path / "other.pt", network())


def test_what_is_not_trained_is_shared_and_in_no_checkpoint(tmp_path: Path) -> None:
    model = network()
    model[0].requires_grad_(False)  # type: ignore[index]
    before = model[0].weight.clone()  # type: ignore[index]
    average = train(model, data(), noisy_regression, CONFIG, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert not any(name.startswith("0.") for name in (*state["model"], *state["average"]))
    assert torch.equal(model[0].weight, before)  # type: ignore[index]
    assert average[0].weight is model[0].weight  # type: ignore[index]
    assert average[3].weight is not model[3].weight  # type: ignore[index]


def test_what_is_tied_to_the_untrained_is_not_trained() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_()
    assert list(trained_state(model)) == ["1.bias"]


def test_load_average_reads_what_train_returns(tmp_path: Path) -> None:
    average = train(network(), data(), noisy_regression, CONFIG, tmp_path)
    loaded = network()
    assert load_average(tmp_path / CHECKPOINT, loaded) == CONFIG.steps
    assert_same(list(loaded.state_dict().values()), list(average.state_dict().values()))


def test_replacing_keeps_the_old_if_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with replacing(path) as part:
            part.mkdir()
            (part / "file").write_text(content)
    with pytest.raises(Killed), replacing(path) as part:
        part.mkdir()
        raise Killed
    assert [file.read_text() for file in path.iterdir()] == ["new"]


def test_a_folder_that_holds_more_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "thesis.txt").write_text("precious")
    with (
        pytest.raises(ValueError, match=r"thesis\.txt, which would be lost"),
        replacing(path) as part,
    ):
        part.mkdir()
        (part / "model.json").touch()
    assert (path / "thesis.txt").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------- arithmetic


def test_the_average_is_its_closed_form(tmp_path: Path) -> None:
    r"""A_n = prod_k d_k w_0 + sum_k (1 - d_k) prod_{j > k} d_j w_k."""
    model = network().double()
    weights = [flat(model)]
    samples = TensorDataset(*(t.double() for t in data().tensors))
    record = Every(1, lambda step, average: weights.append(flat(model)))
    average = train(model, samples, regression, CONFIG, tmp_path, callback=record)
    decays = [average_decay(CONFIG, step) for step in range(CONFIG.steps)]
    expected = math.prod(decays) * weights[0]
    for k, decay in enumerate(decays):
        expected += (1 - decay) * math.prod(decays[k + 1 :]) * weights[k + 1]
    torch.testing.assert_close(flat(average), expected, rtol=1e-12, atol=1e-14)
    assert max(decays) == CONFIG.average_decay > min(decays)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(CONFIG.steps)]
    peak, warmup = CONFIG.learning_rate, CONFIG.warmup
    assert rates[: warmup + 1] == pytest.approx([peak / 4, peak / 2, peak * 3 / 4, peak, peak])
    assert rates[(warmup + CONFIG.steps) // 2] == pytest.approx(peak / 2)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert learning_rate(CONFIG, CONFIG.steps) == 0


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    samples = TensorDataset(*(t.double() for t in data().tensors))
    averages = []
    for accumulation in (1, 4):
        config = dataclasses.replace(CONFIG, accumulation=accumulation)
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        folder = tmp_path / str(accumulation)
        averages.append(flat(train(model, samples, regression, config, folder)))
    torch.testing.assert_close(averages[0], averages[1], rtol=1e-10, atol=1e-12)


def test_a_penalty_is_added_and_logged_apart(tmp_path: Path) -> None:
    def both(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        return regression(model, batch, generator) + size_of_weights(model, batch, generator)

    apart, together = tmp_path / "apart", tmp_path / "together"
    train(network(), data(), regression, CONFIG, apart, penalty=size_of_weights)
    train(network(), data(), both, CONFIG, together)
    assert_same(everything(apart), everything(together))
    for one, sum_ in zip(logged(apart), logged(together), strict=True):
        assert one["penalty"] > 0 == sum_["penalty"]
        assert one["loss"] + one["penalty"] == pytest.approx(sum_["loss"], rel=1e-5)


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    """Adam forgets the length of a gradient, so the test is on its second moment."""
    config = dataclasses.replace(CONFIG, gradient_clip=1e-3, steps=6)
    train(network(), data(), regression, config, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["optimizer"]["state"]
    second = torch.stack([slot["exp_avg_sq"].sum() for slot in state.values()]).sum()
    weight = 1 - config.betas[1] ** config.steps
    assert second / weight == pytest.approx(1e-6, rel=1e-2)


# --------------------------------------------------------------------------------- what is drawn


def test_an_epoch_holds_each_sample_once_and_epochs_differ() -> None:
    drawn = [i for step in range(25) for i in batch_indices(0, step, 8, 50)]
    epochs = [drawn[start : start + 50] for start in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert drawn != [i for step in range(25) for i in batch_indices(1, step, 8, 50)]


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert sorted(batch_indices(0, 0, 6, 3)) == [0, 0, 1, 1, 2, 2]


def test_labels_are_dropped_at_the_given_rate() -> None:
    count, rate = 20_000, 0.1
    labels = torch.arange(count) % 10
    kept = LabelDropout(rate, null=10)(labels, torch.Generator().manual_seed(0))
    dropped = kept == 10
    deviation = math.sqrt(count * rate * (1 - rate))
    assert abs(int(dropped.sum()) - count * rate) < 4 * deviation
    assert torch.equal(kept[~dropped], labels[~dropped])


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_labels_are_dropped_never_or_always(rate: float, share: float) -> None:
    kept = LabelDropout(rate, null=10)(torch.zeros(100).long(), torch.Generator())
    assert float((kept == 10).double().mean()) == share


# -------------------------------------------------------------------------------- what is learned

SCHEDULES: list[Schedule] = [
    VPDiscrete.linear(),
    VPLinear(),
    SubVP(),
    FlowMatching(shift=3.0),
    EDM(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_the_loss_of_a_perfect_network_is_zero(schedule: Schedule, kind: PredictionType) -> None:
    x0 = torch.randn(3, 2, dtype=torch.float64).expand(64, 3, 2)

    def knows_the_data(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level.reshape(-1, 1, 1) for level in schedule.point(t)[1:])
        return target(kind, x0, (x - alpha * x0) / sigma, alpha, sigma)

    objective = denoising_loss(Denoiser(nn.Identity(), schedule, kind, call=knows_the_data))
    loss = objective(nn.Identity(), (x0,), torch.Generator().manual_seed(0))
    assert float(loss) < 1e-16


@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_a_target_leads_back_to_the_data(kind: PredictionType) -> None:
    at = VPDiscrete.linear().point(torch.linspace(1, 999, 50, dtype=torch.float64))
    x0, eps = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = at.alpha * x0 + at.sigma * eps
    of_x, of_output = to_data(kind, at)
    back = of_x * x + of_output * target(kind, x0, eps, at.alpha, at.sigma)
    torch.testing.assert_close(back, x0, rtol=1e-9, atol=1e-9)


def test_velocity_is_the_derivative_along_the_circle() -> None:
    """With alpha = cos(a) and sigma = sin(a), v = dx/da."""
    a = torch.linspace(0, math.pi / 2, 20, dtype=torch.float64, requires_grad=True)
    x0, eps = torch.randn(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = a.cos() * x0 + a.sin() * eps
    (slope,) = torch.autograd.grad(x.sum(), a)
    torch.testing.assert_close(target("v_prediction", x0, eps, a.cos(), a.sin()), slope)


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_times_are_uniform_or_shifted_and_reach_the_network_with_the_conditions(
    shift: float,
) -> None:
    schedule, count = VPDiscrete.linear(), 20_000
    told: list[Tensor] = []

    def note(model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, image: Tensor) -> Tensor:
        told.extend([t, labels, image])
        return x

    x0, labels, image = torch.zeros(count, 1), torch.arange(count), torch.ones(count, 2)
    dropout = LabelDropout(0.5, null=-1)
    objective = denoising_loss(
        Denoiser(nn.Identity(), schedule, call=note), ("labels", "image"), dropout, time_shift=shift
    )
    objective(nn.Identity(), (x0, labels, image), torch.Generator().manual_seed(0))
    t, kept, same = told
    assert t.dtype == x0.dtype
    assert float(t.min()) >= 0
    assert float(t.max()) <= 999
    even = torch.tensor([0.25, 0.5, 0.75])
    quantiles = torch.quantile(t, even) / 999
    torch.testing.assert_close(quantiles, shifted(even, shift), rtol=0, atol=0.015)
    assert torch.equal(kept, torch.where(kept == -1, -1, labels))
    assert bool((kept == -1).any())
    assert same is image


def test_a_linear_denoiser_learns_the_posterior_mean(tmp_path: Path) -> None:
    """For data N(0, s^2) on the circle at 45 degrees, E[x_0 | x] = s^2 sqrt(2) / (s^2 + 1) x."""

    class HalfWay(VPLinear):
        def at_fraction(self, u: Tensor) -> Tensor:
            half = self.time_of_log_alpha(torch.tensor(0.5, dtype=u.dtype).log() / 2)
            return half.expand_as(u)

    s = 2.0
    x0 = s * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(1, 1, bias=False)
    objective = denoising_loss(
        Denoiser(model, HalfWay(), "sample", call=lambda model, x, t: model(x))
    )
    config = TrainingConfig(steps=150, batch_size=500, learning_rate=0.05, precision="no")
    average = train(model, TensorDataset(x0), objective, config, tmp_path)
    assert float(flat(average)) == pytest.approx(s**2 * math.sqrt(2) / (s**2 + 1), rel=0.02)


# ------------------------------------------------------------------- how the times are weighted

WEIGHTED: list[Schedule] = [VE(0.01, 10.0), VPLinear(), SubVP(), VPDiscrete.linear()]
STD = 0.7
"""Of the normal data with mean zero on which the score is exact."""

Network = Callable[[nn.Module, Tensor, Tensor], Tensor]


def schedule_name(schedule: Schedule) -> str:
    return type(schedule).__name__


def exact_network(kind: PredictionType, schedule: Schedule) -> Network:
    """The best network of this kind: E[x_0 | x] = STD^2 alpha / (STD^2 alpha^2 + sigma^2) x."""

    def network(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level.reshape(-1, 1) for level in schedule.point(t)[1:])
        x0 = STD**2 * alpha / variance(alpha, sigma) * x
        return target(kind, x0, (x - alpha * x0) / sigma, alpha, sigma)

    return network


def variance(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Of x_t, where the data are normal."""
    return STD**2 * alpha.square() + sigma.square()


def measured(kind: PredictionType, schedule: Schedule, weighting: Weighting, count: int) -> float:
    """The loss of the exact network on ``count`` samples, the same for every kind."""
    generator = torch.Generator().manual_seed(5)
    x0 = STD * torch.randn(count, 1, dtype=torch.float64, generator=generator)
    objective = denoising_loss(
        Denoiser(nn.Identity(), schedule, kind, call=exact_network(kind, schedule)),
        weighting=weighting,
    )
    return float(objective(nn.Identity(), (x0,), generator))


def midpoints(schedule: Schedule, count: int = 200_000) -> Point:
    """Points in the middle of equal parts of the trained range."""
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return schedule.point(schedule.at_fraction(u))


@pytest.mark.parametrize("weighting", ["sigma-squared", "likelihood"])
@pytest.mark.parametrize("schedule", WEIGHTED, ids=schedule_name)
def test_the_weighted_loss_of_the_exact_score_is_its_closed_form(
    schedule: Schedule, weighting: Weighting
) -> None:
    r"""At a time the error s + eps / sigma is normal with variance 1 / sigma^2 - 1 / var(x_t)."""
    count = 400_000
    at = midpoints(schedule)
    errors = 1 / at.sigma.square() - 1 / variance(at.alpha, at.sigma)
    lam = sigma_squared(schedule, at) if weighting == "sigma-squared" else likelihood(schedule, at)
    mean = float((lam * errors).mean())
    spread = float((3 * (lam * errors).square()).mean()) - mean**2
    loss = measured("score", schedule, weighting, count)
    assert abs(loss - mean) < 4 * math.sqrt(spread / count)
    assert math.sqrt(spread / count) < 0.02 * mean


@pytest.mark.parametrize("weighting", ["sigma-squared", "likelihood", lambda schedule, at: at.t])
@pytest.mark.parametrize("schedule", WEIGHTED, ids=schedule_name)
def test_a_weighting_is_the_same_for_every_kind_of_network(
    schedule: Schedule, weighting: Weighting
) -> None:
    losses = [measured(kind, schedule, weighting, 1000) for kind in get_args(PredictionType)]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-9)


@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_simple_weights_the_output_of_any_network_alike(kind: PredictionType) -> None:
    schedule = VPLinear()
    at = midpoints(schedule, 100)
    assert torch.equal(target_weight("simple", kind, schedule, at), torch.ones_like(at.t))


@pytest.mark.parametrize("schedule", WEIGHTED, ids=schedule_name)
def test_sigma_squared_is_the_plain_loss_of_the_noise(schedule: Schedule) -> None:
    at = midpoints(schedule, 100)
    weight = target_weight("sigma-squared", "epsilon", schedule, at)
    torch.testing.assert_close(weight, torch.ones_like(at.t), rtol=1e-12, atol=0)


def beta(t: Tensor) -> Tensor:
    """Of the VP and sub-VP SDEs with their usual settings."""
    return 0.1 + t * (20 - 0.1)


def alpha_squared(t: Tensor) -> Tensor:
    return torch.exp(-0.1 * t - (20 - 0.1) * t.square() / 2)


# Song et al. 2021, appendices B and C.
G_SQUARED_OVER_SIGMA_SQUARED: list[tuple[Schedule, Callable[[Tensor], Tensor]]] = [
    (VE(0.01, 10.0), lambda t: torch.full_like(t, 2 * math.log(10.0 / 0.01))),
    (VPLinear(), lambda t: beta(t) / (1 - alpha_squared(t))),
    (
        SubVP(),
        lambda t: beta(t) * (1 - alpha_squared(t).square()) / (1 - alpha_squared(t)).square(),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "ratio"), G_SQUARED_OVER_SIGMA_SQUARED, ids=["VE", "VP", "SubVP"]
)
def test_likelihood_weights_the_noise_by_g_squared_over_sigma_squared(
    schedule: Schedule, ratio: Callable[[Tensor], Tensor]
) -> None:
    at = midpoints(schedule, 1000)
    weight = target_weight("likelihood", "epsilon", schedule, at)
    torch.testing.assert_close(weight, ratio(at.t), rtol=1e-9, atol=0)


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"learning_rate": math.nan}, "learning_rate is nan; it must be positive"),
        ({"warmup": 24}, "warmup is 24; it must be less than 24 steps"),
        ({"average_decay": 1.0}, r"average_decay is 1.0; it must be in \[0, 1\)"),
        ({"betas": (0.9, 1.0)}, "betas is .*; it must be two numbers in"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0.0; it must be positive"),
        ({"precision": "half"}, "precision is 'half'; it must be None, 'no', 'fp16' or 'bf16'"),
        ({"checkpoint_every": 7}, "checkpoint_every is 7; it must be a multiple of log_every, 2"),
        ({"workers": -1}, "workers is -1; it must be zero or positive"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **setting)


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_other_impossible_requests_are_refused(tmp_path: Path) -> None:
    model = Denoiser(nn.Identity(), VPLinear(), "score")
    refused(lambda: LabelDropout(1.5, null=10), "label dropout is 1.5")
    refused(lambda: Every(0, lambda step, average: None), "every 0 steps")
    refused(
        lambda: denoising_loss(Denoiser(nn.Identity(), VPLinear(), EDMOutput(0.5))),
        "a conversion alone",
    )
    refused(
        lambda: denoising_loss(model, weighting="snr"),  # type: ignore[arg-type]
        "weighting is 'snr'; it must be one of simple, sigma-squared, likelihood, or a function",
    )
    refused(
        lambda: denoising_loss(model, time_shift=0),
        "time shift is 0; it must be positive",
    )
    config = dataclasses.replace(CONFIG, accumulation=3)
    refused(
        lambda: train(network(), data(), regression, config, tmp_path),
        "batch of 8 can't be shared out over 1 processes in 3 parts",
    )


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(tmp_path: Path) -> None:
    def broken(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        return regression(model, batch, generator) / 0 * 0

    with pytest.raises(FloatingPointError, match="At step 2 the loss is nan"):
        train(network(), data(), broken, CONFIG, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()
