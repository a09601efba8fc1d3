"""Quality by NFE on the bundled digits, six samplers of this package and six of diffusers.

    python -m benchmarks.digits --data data/mnist

Three measurements, all without guidance but the last:

- error: root mean square distance of 128 images to a 200-NFE solution from the same noise;
- Fréchet distance between 2,000 images and the 10,000 real test images, in the penultimate
  features of the digit classifier, and how often the classifier sees the class asked for;
- the same at 15 NFE with classifier-free guidance.

A setting is measured once and kept in ``docs/benchmarks/digits.json``, so a run that was
interrupted goes on; the file belongs to the weights whose hash it names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple, Protocol

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.files import replacing
from samplers.grid import Spacing, make_grid
from samplers.guidance import classifier_free_guidance
from samplers.noise import RowNoise, initial_noise
from samplers.registry import get_sampler
from samplers.schedule import VPDiscrete
from samplers.solve import Model, Solver

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "digits"))
from classifier import DigitClassifier, load_classifier  # noqa: E402  a script's neighbour
from mnist import digits  # noqa: E402

CHECKPOINT = ROOT / "assets" / "digits"
KEPT = ROOT / "docs" / "benchmarks" / "digits.json"
SCHEDULE = VPDiscrete.linear()
SHAPE = (1, 28, 28)
CPU = torch.device("cpu")
NULL = 10
IMAGES, PAIRED, BATCH = 2000, 128, 100
PARTS_KEPT = ROOT / "runs" / "benchmarks"
ERROR_NFE, LAW_NFE = (5, 10, 15, 20), (5, 10, 15)
REFERENCE = 200
GUIDANCE = 2.0


@dataclass(frozen=True)
class Ours:
    """One of our samplers on one grid."""

    name: str
    spacing: Spacing
    sigma_min: float | None = None
    options: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        last = "" if self.sigma_min is None else f" to {self.sigma_min}"
        options = "".join(f", {key}={value:g}" for key, value in self.options)
        return f"`{self.name}`, {self.spacing}{last}{options}"

    def draw(self, model: Model, x: Tensor, seeds: tuple[int, ...], nfe: int) -> Tensor:
        sampler, options = get_sampler(self.name), dict(self.options)
        steps = sampler.steps_within(nfe, options)
        grid = make_grid(SCHEDULE, steps, self.spacing, sigma_min=self.sigma_min)
        solver = Solver(sampler.tableau(grid, options), "v_prediction", RowNoise(seeds, SHAPE))
        return solver.finish(model, solver.init(x)).x


class Theirs(NamedTuple):
    """A scheduler of diffusers in one setting."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        options = ", ".join(f"{k.removeprefix('use_')}={v}" for k, v in self.options.items())
        return f"{self.name.removesuffix('Scheduler')} ({options})"

    def draw(self, model: Model, x: Tensor, seeds: tuple[int, ...], nfe: int) -> Tensor:
        make = getattr(diffusers, self.name)
        scheduler = make.from_pretrained(CHECKPOINT, subfolder="scheduler", **self.options)
        for steps in range(nfe, 0, -1):
            scheduler.set_timesteps(steps)
            if len(scheduler.timesteps) <= nfe:
                break
        generator = torch.Generator().manual_seed(seeds[0])
        named = {"generator": generator} if self.name == "DDPMScheduler" else {}
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = model(scheduler.scale_model_input(x, t), t.to(x).expand(len(x)))
            x = scheduler.step(output, t, x, **named)[0]
        return x


class Setting(Protocol):
    """What images are drawn by; its text names it in the file of results."""

    def draw(self, model: Model, x: Tensor, seeds: tuple[int, ...], nfe: int) -> Tensor: ...


OURS = [
    Ours("ddim", "trailing"),
    Ours("dpmpp-2m", "trailing"),
    Ours("dpmpp-3m-corrected", "trailing"),
    Ours("unipc-2", "trailing"),
    Ours("unipc-3", "quadratic", 0.05),
    Ours("sde-dpmpp-2m", "trailing"),
]
_TRAILING = {"timestep_spacing": "trailing"}
THEIRS = [
    Theirs("DDIMScheduler", _TRAILING),
    Theirs("DPMSolverMultistepScheduler", _TRAILING),
    Theirs("DPMSolverMultistepScheduler", {**_TRAILING, "solver_order": 3}),
    Theirs("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    Theirs("UniPCMultistepScheduler", _TRAILING),
    Theirs("DEISMultistepScheduler", _TRAILING),
]
GUIDED = [OURS[1], OURS[3]]
BEST = Ours("dpmpp-3m-corrected", "log-snr")


class Judge:
    """The classifier, and the features of the real images."""

    def __init__(self, classifier: DigitClassifier, real: Tensor) -> None:
        self.classifier = classifier
        self.real = torch.cat([classifier.features(batch) for batch in torch.split(real, 500)])

    def law(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        features = self.classifier.features(images)
        seen = self.classifier(images).argmax(dim=1)
        return {
            "frechet": frechet_distance(features, self.real),
            "agreement": float((seen == labels).double().mean()),
        }


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2})`` of two sets of features.

    (Heusel et al. 2017, https://arxiv.org/abs/1706.08500)
    """
    a, b = a.double(), b.double()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    # The eigenvalues of C_a C_b are those of a positive matrix, up to rounding.
    values = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0)
    trace = covariance_a.trace() + covariance_b.trace() - 2 * values.sqrt().sum()
    return float(mean + trace)


def load_unet() -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel.from_pretrained(CHECKPOINT, subfolder="unet").eval()


def load_model(device: torch.device = CPU) -> tuple[Denoiser, str]:
    """The bundled network, with the condition ``class_labels``, and the hash of its weights."""
    weights = CHECKPOINT / "unet" / "diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Denoiser(load_unet().to(device), SCHEDULE, "v_prediction"), digest


def guided(model: Denoiser, labels: Tensor, scale: float) -> Model:
    towards = classifier_free_guidance(model, {"class_labels": NULL}, scale)
    return lambda x, t: towards(x, t, class_labels=labels)


def images(
    model: Denoiser,
    setting: Setting,
    nfe: int,
    count: int,
    scale: float,
    device: torch.device = CPU,
    parts: Path | None = None,
) -> Tensor:
    """Images with seeds 0 to ``count`` - 1, of classes 0 to 9 in turn; they end on the CPU.

    parts: a folder that keeps the batches, so that a long measurement goes on where it stopped.
    """
    drawn = []
    for batch in _batches(count):
        path = None if parts is None else parts / f"{setting}, {nfe}, {scale}, {batch[0]}.pt"
        if path is not None and path.exists():
            drawn.append(torch.load(path, weights_only=True))
            continue
        x = initial_noise(batch, SHAPE).float() * float(SCHEDULE.noisiest.sigma)
        labels = (torch.tensor(batch) % 10).to(device)
        towards = guided(model, labels, scale)
        drawn.append(setting.draw(towards, x.to(device), tuple(batch), nfe).cpu())
        if path is not None:
            with replacing(path) as part:
                torch.save(drawn[-1], part)
    return torch.cat(drawn).clamp(-1, 1)


def _batches(count: int) -> Iterator[list[int]]:
    for first in range(0, count, BATCH):
        yield list(range(first, min(first + BATCH, count)))


class Kept:
    """Measurements by name, written after each, so that a run goes on where another stopped."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.fresh = path, {"weights": digest}

    def read(self) -> dict[str, Any]:
        """The stored results of these weights; other processes may have added some."""
        found = json.loads(self.path.read_text()) if self.path.exists() else self.fresh
        return found if found["weights"] == self.fresh["weights"] else dict(self.fresh)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        found = self.read()
        if name in found:
            return found[name]
        value = measure()
        with replacing(self.path) as part:
            part.write_text(json.dumps({**self.read(), name: value}, indent=1) + "\n")
        return value


class Bench:
    """The network, the judge, and every measurement that a report needs."""

    def __init__(self, data: Path, kept: Path = KEPT, device: torch.device = CPU) -> None:
        self.model, self.digest = load_model(device)
        self.data, self.kept, self.device = data, Kept(kept, self.digest), device
        self.labels = torch.arange(IMAGES) % 10
        torch.backends.cudnn.allow_tf32 = False  # a GPU rounds as the CPU does

    @cached_property
    def judge(self) -> Judge:
        classifier = load_classifier(ROOT / "assets" / "digits-classifier")
        return Judge(classifier, real_images(self.data, "test"))

    @cached_property
    def solution(self) -> Tensor:
        return images(self.model, BEST, REFERENCE, PAIRED, 1.0, self.device)

    def law(self, setting: Setting, nfe: int, scale: float = 1.0) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            parts = PARTS_KEPT / self.digest[:12]
            drawn = images(self.model, setting, nfe, IMAGES, scale, self.device, parts)
            return {**self.judge.law(drawn, self.labels), **_measured_by(self.device)}

        found: dict[str, Any] = self.kept.get(f"law {setting} {nfe} {scale}", measure)
        return found

    def error(self, setting: Setting, nfe: int) -> float:
        def measure() -> float:
            found = images(self.model, setting, nfe, PAIRED, 1.0, self.device)
            return float((found - self.solution).square().mean().sqrt())

        value: float = self.kept.get(f"error {setting} {nfe}", measure)
        return value

    def floor(self) -> str:
        """The distance of random sets of real training images to the test images."""

        def measure() -> list[float]:
            real = torch.split(real_images(self.data, "train"), 500)
            features = torch.cat([self.judge.classifier.features(batch) for batch in real])
            order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
            sets = torch.split(features[order], IMAGES)
            return [frechet_distance(each, self.judge.real) for each in sets]

        found = self.kept.get("real sets", measure)
        return (
            f"{len(found)} sets of {IMAGES} real training images have {mean(found):.2f} ± "
            f"{stdev(found):.2f} (standard deviation)"
        )


def _measured_by(device: torch.device) -> dict[str, str]:
    """The metadata of a measurement that was not made on the CPU."""
    if device.type == "cpu":
        return {}
    return {"device": f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"}


def guided_rows(bench: Bench) -> list[list[str]]:
    laws = [(setting, bench.law(setting, 15, GUIDANCE)) for setting in tqdm(GUIDED, "guided")]
    return [[str(s), f"{law['agreement']:.1%}", f"{law['frechet']:.2f}"] for s, law in laws]


def error_rows(bench: Bench) -> list[list[str]]:
    return [
        [str(setting), *(f"{bench.error(setting, nfe):.3f}" for nfe in ERROR_NFE)]
        for setting in tqdm([*OURS, *THEIRS], "error")
        if "sde" not in str(setting)
    ]


def law_rows(bench: Bench) -> tuple[list[list[str]], list[list[str]]]:
    frechet, agreement = [], []
    for setting in tqdm([*OURS, *THEIRS], "law"):
        laws = [bench.law(setting, nfe) for nfe in LAW_NFE]
        frechet.append([str(setting), *(f"{law['frechet']:.2f}" for law in laws)])
        agreement.append([str(setting), *(f"{law['agreement']:.1%}" for law in laws)])
    return frechet, agreement


PARTS: dict[str, Callable[[Bench], object]] = {
    "reference": lambda bench: bench.law(BEST, REFERENCE),
    "guided": guided_rows,
    "error": error_rows,
    "law": law_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--part", choices=PARTS, help="measure this part alone, write no report")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with torch.no_grad():
        bench = Bench(arguments.data)
        if arguments.part is None:
            print(report(bench).read_text())
        else:
            PARTS[arguments.part](bench)


def report(bench: Bench) -> Path:
    reference, floor = bench.law(BEST, REFERENCE), bench.floor()
    errors, guided = error_rows(bench), guided_rows(bench)
    frechet, agreement = law_rows(bench)
    return write(
        "digits",
        "Quality by NFE on `assets/digits`",
        f"Weights `{bench.digest[:12]}…`. The classes are sampled in turn, all settings from the "
        "same initial noise. The columns are NFE; a singlestep method takes as many steps as fit. "
        "Names in code are samplers of this package with their grid, the others schedulers of "
        "diffusers.",
        f"## Error to a {REFERENCE}-NFE solution",
        f"Root mean square over {PAIRED} images in [-1, 1]; no guidance. The solution is "
        f"{BEST}. Stochastic samplers give other images and have no error of this kind.",
        table(["sampler", *map(str, ERROR_NFE)], errors),
        "## Fréchet distance to the real test images",
        f"In the classifier's penultimate features, {IMAGES} images; no guidance. "
        f"{floor}; {BEST} with {REFERENCE} NFE has {reference['frechet']:.2f}.",
        table(["sampler", *map(str, LAW_NFE)], frechet),
        "## Class agreement",
        "The share of images that the classifier assigns to the class that they were conditioned "
        f"on. No guidance; {reference['agreement']:.1%} with {REFERENCE} NFE.",
        table(["sampler", *map(str, LAW_NFE)], agreement),
        f"## With guidance {GUIDANCE} at 15 steps",
        "Each step evaluates the network with and without the class, in one batch.",
        table(["sampler", "class agreement", "Fréchet distance"], guided),
        "Written by `python -m benchmarks.digits`.",
    )


def real_images(data: Path, split: Literal["train", "test"] = "test") -> Tensor:
    images: Tensor = digits(data, split).tensors[0]
    return images


if __name__ == "__main__":
    main()
