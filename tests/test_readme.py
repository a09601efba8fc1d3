"""What the README and CONTRIBUTING print can be run as it is printed."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import samplers
from samplers.denoiser import Denoiser
from samplers.schedule import EDM
from tests.tiny_checkpoints import of_prompts

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


PROGRAMS = ("samplers ", "text2pde ")
LONG = {"compare", "tune"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "<documentation>", "exec"), names)
    return names


def commands() -> list[str]:
    """The lines that call a package, in the README and behind ``make``."""
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\t$(BIN)/", "")
    lines = (recipes + "".join(blocks(README, "sh"))).splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.startswith(PROGRAMS)]


def test_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block, with a tiny Stable Diffusion pipeline in place of that of the Hub."""
    of_prompts(tmp_path / "pipeline")
    monkeypatch.chdir(tmp_path)
    block = blocks(README, "python")[0]
    assert "hf-internal-testing/tiny-stable-diffusion-pipe" in block
    run(block.replace("hf-internal-testing/tiny-stable-diffusion-pipe", "pipeline"))
    assert (tmp_path / "heron.png").stat().st_size > 0


def test_own_score_network() -> None:
    x_0 = run(blocks(README, "python")[1])["x_0"]
    torch.testing.assert_close(x_0.mean(0), torch.full_like(x_0[0], 2), atol=0.05, rtol=0)
    torch.testing.assert_close(x_0.std(0), torch.full_like(x_0[0], 0.5), atol=0.05, rtol=0)


def test_equation_behind_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    run(blocks(README, "python")[2])
    printed = capsys.readouterr().out
    assert "arXiv:2211.01095" in printed
    assert ".. math::" in printed


def test_gradient() -> None:
    names = run(blocks(README, "python")[3])
    assert names["x_T"].grad.norm() > 0
    assert names["network"][0].weight.grad.norm() > 0


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=pytest.mark.slow if set(line.split()) & LONG else ())
        for line in commands()
    ],
)
def test_command(command: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "--output" in arguments:
        # Files of VTK are many, beside a series that is named as they are.
        stem = Path(arguments[arguments.index("--output") + 1]).stem
        written = list(tmp_path.glob(f"{stem}*"))
        assert written
        assert all(path.stat().st_size > 0 for path in written)


def test_names() -> None:
    table = README.partition("\n| Family |")[2].partition("\n## ")[0]
    named = {name for line in table.splitlines() if line[:1] == "|" for name in _quoted(line)}
    assert named
    assert named <= {*samplers.list_samplers(), *samplers.list_samplers("adaptive")}


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "sample_dpmpp_2m", "euler_a"])
def test_foreign_names(name: str) -> None:
    assert f"`{name}`" in README
    samplers.get_sampler(name)


def test_make_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", "".join(blocks(README, "sh")))) <= targets


def test_links() -> None:
    for text in (README, CONTRIBUTING):
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (ROOT / link).exists(), link


def test_worked_example() -> None:
    """CONTRIBUTING's sampler has the order that it claims, on data N(0, 1) whose flow is known."""
    method = run(blocks(CONTRIBUTING, "python")[0])["adams_bashforth_2"]
    schedule = EDM(sigma_min=0.1, sigma_max=10.0)
    x_T = torch.ones(1, 1, dtype=torch.float64)
    exact = math.sqrt((1 + 0.1**2) / (1 + 10.0**2))

    def error(steps: int) -> float:
        x = samplers.sample(
            Denoiser(lambda x, t: x / (1 + t.square()[:, None]), schedule, "sample"),
            x_T,
            sampler=method,
            steps=steps,
            final="sigma_min",
        )
        return abs(x.item() - exact)

    assert error(320) == pytest.approx(error(160) / 4, rel=0.1)


def _quoted(line: str) -> list[str]:
    return re.findall(r"`([^`]+)`", line)
