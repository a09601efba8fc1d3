"""The table of pipelines in the docs holds: every cell agrees with the library's own loop, or not.

Each pipeline runs with its network of random weights; :mod:`tests.pipeline_agreement` says what
"works" means. A few run always, all of them in the slow test.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.pipelines import CASES, PAGE, SAMPLERS, cell
from samplers import SamplerScheduler
from samplers.diffusers.config import read_config
from tests.pipeline_agreement import (
    Case,
    Disagreement,
    Recorder,
    check,
    outcome,
)

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = ("DDPM", "StableDiffusionXL", "StableDiffusion3", "Wan")


def documented(page: Path = PAGE) -> dict[str, list[str]]:
    """The cells of each pipeline in the docs."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    rows = [[entry.strip() for entry in line.strip("| ").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in rows}


def short(name: str) -> str:
    return name.removesuffix("Pipeline")


def test_the_docs_have_a_row_for_every_case() -> None:
    assert list(documented()) == [short(case.name) for case in CASES]


@pytest.mark.parametrize("case", [case for case in CASES if short(case.name) in QUICK], ids=str)
def test_a_few_pipelines_work_with_every_kind_of_sampler(case: Case) -> None:
    cells_hold(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_cell_of_the_docs_holds(case: Case) -> None:
    cells_hold(case)


def cells_hold(case: Case) -> None:
    found = [outcome(case, sampler) for sampler in SAMPLERS]
    said = [one.said for one in found]
    assert [cell(one) for one in found] == documented()[short(str(case))], said


def test_a_run_that_does_something_else_is_found() -> None:
    """The check of agreement itself: a step, a point or a time of the network that is changed."""
    case = next(case for case in CASES if case.name == "DDPMPipeline")
    recorder = recorded(case)
    settings = read_config(case.build().scheduler)
    assert check(recorder, settings) is False
    good, call = recorder.calls, recorder.calls[1]
    wrong = {
        "ends elsewhere": call._replace(result=1.001 * call.result),
        "not given the latents": call._replace(given=tuple(1.001 * t for t in call.given)),
        "not given the time": call._replace(given=call.given[:1]),
    }
    for said, changed in wrong.items():
        recorder.calls = [good[0], changed, *good[2:]]
        with pytest.raises(Disagreement, match=said):
            check(recorder, settings)
    recorder.calls = good[:-1]
    with pytest.raises(Disagreement, match="stopped after 3"):
        check(recorder, settings)


def recorded(case: Case) -> Recorder:
    pipe = case.build()
    scheduler = SamplerScheduler.from_config(pipe.scheduler)
    assert isinstance(scheduler, SamplerScheduler)
    pipe.scheduler, recorder = scheduler, Recorder(scheduler)
    recorder.watch(pipe.unet)
    with torch.no_grad():
        pipe(num_inference_steps=4, generator=torch.Generator().manual_seed(0))
    return recorder
