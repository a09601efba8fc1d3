"""Which pipelines of diffusers work with which samplers, on tiny random components.

    python -m benchmarks.pipelines

Writes ``docs/pipelines.md``. ``tests/test_pipeline_table.py`` holds every cell of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import diffusers
from tqdm import tqdm

from benchmarks.report import table
from samplers.files import replacing
from tests import (
    pipeline_cases,
    pipeline_cases_flow,
    pipeline_cases_images,
    pipeline_cases_more,
    pipeline_cases_motion,
    pipeline_cases_stages,
    pipeline_cases_unets,
    pipeline_cases_videos,
)
from tests.pipeline_agreement import Case, Outcome, outcome

PAGE = Path(__file__).parent.parent / "docs" / "pipelines.md"
SAMPLERS = ("dpmpp-2m", "unipc-2", "heun", "sde-dpmpp-2m")
CASES: tuple[Case, ...] = (
    *pipeline_cases.CASES,
    *pipeline_cases_flow.CASES,
    *pipeline_cases_more.CASES,
    *pipeline_cases_unets.CASES,
    *pipeline_cases_stages.CASES,
    *pipeline_cases_motion.CASES,
    *pipeline_cases_images.CASES,
    *pipeline_cases_videos.CASES,
)

Outcomes = Mapping[tuple[str, str], Outcome]

INTRO = """# Pipelines

Pipelines of diffusers with `SamplerScheduler`, each built of random components of a few thousand weights and run for four steps. Written by `python -m benchmarks.pipelines`; a test runs every cell again.

**works** means that the run agrees with the library's own loop within 1e-5: on the default grid of the scheduler, the network is given the loop's own points and times at every evaluation, and every step ends at the loop's own point. **edits** is the same for a pipeline that changes the latents between steps (inpainting), where the own loop makes the same changes. **no** means that the call is refused or breaks, for the reason below the table. The samplers stand for all others of their kind: multistep, multistep with a corrector, several evaluations a step, stochastic.

Pipelines that are not in the table were not tried. Most are given embeddings in the place of text encoders; those that need a tokenizer of their own, or a package that is not installed here (Kolors: sentencepiece), are left out."""  # noqa: E501


def measured(cases: Iterable[Case]) -> Outcomes:
    return {(case.name, name): outcome(case, name) for case in cases for name in SAMPLERS}


def cell(found: Outcome) -> str:
    if not found.works:
        return "no"
    return "edits" if found.said else "works"


def page(outcomes: Outcomes) -> str:
    """The page of these outcomes."""
    names = list(dict.fromkeys(name for name, _ in outcomes))
    rows = [[_short(name), *(cell(outcomes[name, own]) for own in SAMPLERS)] for name in names]
    whole = sum(all(outcomes[name, own].works for own in SAMPLERS) for name in names)
    count = (
        f"{len(names)} pipelines of diffusers {diffusers.__version__}; {whole} work with all four "
        "samplers."
    )
    head = ["Pipeline", *(f"`{name}`" for name in SAMPLERS)]
    parts = [INTRO, count, table(head, rows), "## Why not", "\n".join(_reasons(outcomes))]
    return "\n\n".join(parts) + "\n"


def _short(name: str) -> str:
    return name.removesuffix("Pipeline")


def _reasons(outcomes: Outcomes) -> list[str]:
    """A line for each reason, with the pipelines and samplers that have it."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for pair, found in outcomes.items():
        if not found.works:
            reasons.setdefault(found.said, []).append(pair)
    return [f"- {_who(pairs)}: {said}" for said, pairs in reasons.items()]


def _who(pairs: list[tuple[str, str]]) -> str:
    names = list(dict.fromkeys(_short(name) for name, _ in pairs))
    samplers = list(dict.fromkeys(sampler for _, sampler in pairs))
    which = "" if len(samplers) == len(SAMPLERS) else f" ({', '.join(samplers)})"
    return f"{', '.join(names)}{which}"


def main() -> None:
    outcomes = measured(tqdm(CASES))
    with replacing(PAGE) as part:
        part.write_text(page(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
