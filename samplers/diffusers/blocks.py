r"""Layer 6. Custom denoising loops in modular pipelines of diffusers.

A pipeline evaluates the network once for each timestep of its scheduler. A method that rejects
steps, or has a separate step size for each sample, needs a loop of its own. In a modular pipeline
the loop is a block, with a part that prepares and evaluates the network, including guidance, and a
part that steps the scheduler. :class:`OwnLoop` keeps the first, drops the second, and passes the
network to a :data:`Loop` as a function.

    blocks = with_loop(StableDiffusionXLAutoBlocks(), adaptive_loop(Adaptive(rtol=0.02)))
    pipe = blocks.init_pipeline("path/to/a/checkpoint")
    pipe.load_components(torch_dtype=torch.float16)
    pipe.update_components(scheduler=SamplerScheduler.from_config(pipe.scheduler))
    image = pipe(prompt="a heron in the reeds", output="images")[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from diffusers.modular_pipelines.flux.denoise import FluxDenoiseStep
from diffusers.modular_pipelines.modular_pipeline import BlockState, LoopSequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import (
    InputParam,
    InsertableDict,
    OutputParam,
)
from diffusers.modular_pipelines.stable_diffusion_xl.denoise import StableDiffusionXLDenoiseStep
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.diffusers.scheduler import SamplerScheduler
from samplers.diffusers.settings import SchedulerSettings
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.probability_flow.integration import DEFAULT, Adaptive
from samplers.schedule import Point


class Task(NamedTuple):
    """The input of a :data:`Loop`.

    Attributes:
        model: with guidance; its condition ``places`` [b] has the indices of the samples x [b, ...]
            in the batch, so that each has its own prompt.
        x: the latents [B, ...] at ``start``, in the coordinates of the network.
        settings: the noise schedule, the prediction type, and the end of sampling.
    """

    model: Denoiser
    x: Tensor
    start: Point
    settings: SchedulerSettings


class Drawn(NamedTuple):
    """The output of a :data:`Loop`: samples [B, ...], with the cost of each [B].

    Attributes:
        nfe: network evaluations; a guided evaluation counts as one.
        within_tolerance: whether the sample is within the tolerance.
    """

    x: Tensor
    nfe: Tensor
    within_tolerance: Tensor


Loop = Callable[[Task], Drawn]


def adaptive_loop(settings: Adaptive = DEFAULT) -> Loop:
    """The loop of :func:`samplers.sample_adaptive`."""

    def loop(task: Task) -> Drawn:
        found = sample_adaptive(
            task.model,
            task.x,
            conditions={"places": torch.arange(len(task.x))},
            settings=settings,
            sigma_min=task.settings.sigma_min,
            sigma_max=None if task.start.pure_noise else float(task.start.rho),
            final=task.settings.final,
        )
        return Drawn(found.x, found.nfe, found.within_tolerance)

    return loop


class Family(NamedTuple):
    """The denoise step of one kind of network.

    Attributes:
        step: the loop block of diffusers that is replaced.
        of_samples: the inputs of the network that have a row for each sample.
        guided: whether a guider evaluates the network, several times for each output.
    """

    step: type
    of_samples: tuple[str, ...]
    guided: bool


FAMILIES: tuple[Family, ...] = (
    Family(
        StableDiffusionXLDenoiseStep,
        (
            *("prompt_embeds", "negative_prompt_embeds"),
            *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
            *("add_time_ids", "negative_add_time_ids"),
            *("ip_adapter_embeds", "negative_ip_adapter_embeds"),
            "timestep_cond",
        ),
        guided=True,
    ),
    Family(FluxDenoiseStep, ("prompt_embeds", "pooled_prompt_embeds", "guidance"), guided=False),
)


def with_loop(blocks: Any, loop: Loop) -> Any:
    """A copy of modular blocks with ``loop`` as the loop of every supported denoise step.

    Supported are text- and image-to-image of Stable Diffusion XL and of Flux; steps for inpainting
    and ControlNet, which edit the latents in between, are unchanged. Raises ValueError if no step
    is supported.
    """
    copied = deepcopy(blocks)
    found = list(_known_steps(copied))
    if not found:
        names = ", ".join(family.step.__name__ for family in FAMILIES)
        raise ValueError(
            f"{type(blocks).__name__} holds no denoise step whose loop can be replaced; known are "
            f"{names}."
        )
    for parent, name, family in found:
        parent.sub_blocks[name] = OwnLoop(parent.sub_blocks[name], family, loop)
    return copied


def _known_steps(blocks: Any) -> Iterator[tuple[Any, str, Family]]:
    for name, block in blocks.sub_blocks.items():
        families = [family for family in FAMILIES if type(block) is family.step]
        if families:
            yield blocks, name, families[0]
        else:
            yield from _known_steps(block)


class OwnLoop(LoopSequentialPipelineBlocks):  # type: ignore[misc]  # diffusers has no types
    """A denoise step whose loop is a function.

    The pipeline needs a :class:`SamplerScheduler`, which keeps the latents in the coordinates of
    the network. Its sampler is not used. Its first timestep gives the noise level of the latents
    (so ``strength`` works), and all timesteps give the beginning and end of a guider's window.

    Besides ``latents`` the step adds ``nfe`` and ``within_tolerance`` to the pipeline's state.
    Guiders with a memory of earlier evaluations (momentum) are not supported, since evaluations
    may be repeated and samples leave the batch.
    """

    def __init__(self, step: Any, family: Family, loop: Loop) -> None:
        self.sub_blocks = InsertableDict(
            (name, block) for name, block in step.sub_blocks.items() if name != "after_denoiser"
        )
        self.family, self._step, self._loop = family, step, loop

    @property
    def model_name(self) -> Any:
        return self._step.model_name

    @property
    def description(self) -> str:
        return "Denoise step with a custom loop, such as one with adaptive step size."

    @property
    def loop_expected_components(self) -> list[Any]:
        components: list[Any] = self._step.loop_expected_components
        return components

    @property
    def loop_inputs(self) -> list[Any]:
        return [
            *self._step.loop_inputs,
            InputParam("latents", required=True, type_hint=Tensor, description="Initial latents."),
        ]

    @property
    def loop_intermediate_outputs(self) -> list[Any]:
        return [
            OutputParam("latents", type_hint=Tensor, description="The denoised latents"),
            OutputParam("nfe", type_hint=Tensor, description="Network evaluations of each sample"),
            OutputParam(
                "within_tolerance",
                type_hint=Tensor,
                description="False where the maximum number of evaluations was reached",
            ),
        ]

    @property
    def outputs(self) -> list[Any]:
        return self.loop_intermediate_outputs

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        if self.family.guided:
            _switch_guider(components)
        scheduler = _scheduler(components)
        _check_end(block_state.timesteps, scheduler.timesteps)
        settings = scheduler.settings
        start = settings.schedule.point(block_state.timesteps[0].cpu() / settings.time_scale)
        network = _Network(self, components, block_state, settings.time_scale)
        model = replace(settings.denoiser(network), time_scale=1.0)  # the blocks scale it
        drawn = self._loop(Task(model, block_state.latents, start, settings))
        block_state.latents, block_state.nfe, block_state.within_tolerance = drawn
        self.set_block_state(state, block_state)
        return components, state


def steps_of(told: Tensor, timesteps: Tensor) -> list[int]:
    """The pipeline's step for each time: the last that begins at or before it."""
    begun = told[:, None] <= timesteps + 1e-6 * timesteps.abs()
    steps: list[int] = (begun.sum(dim=1) - 1).clamp(min=0).tolist()
    return steps


class _Network:
    """The blocks that prepare and evaluate the network, as a function of x, t and indices."""

    def __init__(self, step: OwnLoop, components: Any, block_state: Any, time_scale: float) -> None:
        self._step, self._components, self._state = step, components, block_state
        self._time_scale = time_scale
        self._timesteps = block_state.timesteps.cpu()

    def __call__(self, x: Tensor, t: Tensor, places: Tensor) -> Tensor:
        told = (self._time_scale * t).to(torch.float32)
        output = torch.empty_like(x)
        for index, rows in self._groups(told):
            output[rows] = self._ask(x[rows], told[rows], places[rows], index).to(x.dtype)
        return output

    def _groups(self, told: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Groups of samples with the same guidance, each with the index of one of its timesteps.

        Guidance depends on the timestep, since a guider has a window of steps.
        """
        indices = steps_of(told.cpu(), self._timesteps)
        calls = [self._calls(index) for index in indices]
        for number in dict.fromkeys(calls):
            rows = [row for row, own in enumerate(calls) if own == number]
            yield indices[rows[0]], torch.tensor(rows)

    def _calls(self, index: int) -> int:
        """The number of evaluations that the guider takes for one output at this timestep."""
        if not self._step.family.guided:
            return 1
        guider = self._components.guider
        guider.set_state(
            step=index,
            num_inference_steps=len(self._timesteps),
            timestep=self._timesteps[index],
        )
        calls: int = guider.num_conditions
        return calls

    def _ask(self, x: Tensor, told: Tensor, places: Tensor, index: int) -> Tensor:
        """The guided output for some samples, with the conditions of these."""
        state = BlockState(**self._state.as_dict())
        state.num_inference_steps = len(self._timesteps)
        state.latents = x.to(self._state.latents.dtype)
        for name in self._step.family.of_samples:
            state[name] = _rows(self._state[name], places)
        _, after = self._step.loop_step(self._components, state, i=index, t=told)
        output: Tensor = after.noise_pred
        return output


def _rows(value: Any, places: Tensor) -> Any:
    """The rows of a tensor, or of each tensor in a list."""
    match value:
        case None:
            return None
        case Tensor():
            return value[places.to(value.device)]
        case _:
            return [_rows(one, places) for one in value]


def _scheduler(components: Any) -> SamplerScheduler:
    scheduler = components.scheduler
    if not isinstance(scheduler, SamplerScheduler):
        raise ValueError(
            f"The pipeline's scheduler is {type(scheduler).__name__}; before a loop of one's own "
            "call pipe.update_components("
            "scheduler=SamplerScheduler.from_config(pipe.scheduler))."
        )
    return scheduler  # type: ignore[no-any-return]  # diffusers' base class has no types


def _check_end(timesteps: Tensor, scheduled: Tensor) -> None:
    if float(timesteps[-1]) != float(scheduled[-1]):
        raise ValueError(
            f"The pipeline would stop at timestep {float(timesteps[-1]):.6g} (denoising_end), but "
            "a loop of one's own goes to the end; leave denoising_end out."
        )


def _switch_guider(components: Any) -> None:
    """As in the loop of diffusers: a network that is conditioned on the guidance scale has no
    guider."""
    if components.unet.config.time_cond_proj_dim is None:
        components.guider.enable()
    else:
        components.guider.disable()
