r"""Layer 6. A loop of one's own in modular pipelines of diffusers.

A pipeline steps a scheduler: it calls the network once for each of its timesteps, whatever comes
out. What rejects a step, or gives each sample a step of its own, has to own the loop. In a modular
pipeline that is a block, made of a part that prepares and calls the network, guidance included,
and a part that steps the scheduler. :class:`OwnLoop` keeps the first, drops the second, and gives
the network to a :data:`Loop` as a plain function.

    blocks = with_loop(StableDiffusionXLAutoBlocks(), adaptive_loop(Adaptive(rtol=0.02)))
    pipe = blocks.init_pipeline("path/to/a/checkpoint")
    pipe.load_components(torch_dtype=torch.float16)
    pipe.update_components(scheduler=SamplerScheduler.from_config(pipe.scheduler.config))
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
    """What a loop is given.

    Attributes:
        model: with guidance; its condition ``places`` [b] says which samples of the batch x [b,
            ...] are, so that each has its own prompt.
        x: the latents [B, ...] at ``start``, in the coordinates of the network.
        settings: the noise schedule, what the network predicts, and where sampling ends.
    """

    model: Denoiser
    x: Tensor
    start: Point
    settings: SchedulerSettings


class Drawn(NamedTuple):
    """What a loop returns: the samples [B, ...] and, for each [B], what they cost.

    Attributes:
        nfe: network calls; a guided call is one.
        within_tolerance: whether the sample is what was asked for.
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
        guided: whether a guider calls the network, several times for each output.
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
    """A copy of modular blocks in which the loop of every known denoise step is ``loop``.

    Known are text- and image-to-image of Stable Diffusion XL and of Flux; steps for inpainting
    and ControlNet, which edit the latents in between, stay as they are. Raises ValueError if no
    step is known.
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
    the network. Its sampler is not used: of its timesteps the first says where the latents lie
    (so ``strength`` works), and all of them where a guider's window begins and ends.

    Besides ``latents`` the step puts ``nfe`` and ``within_tolerance`` into the pipeline's state.
    A guider that remembers earlier calls (momentum) does not fit, since calls may be repeated and
    samples come and go.
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
        return "Denoise step whose loop calls the network as often, and where, as it needs."

    @property
    def loop_expected_components(self) -> list[Any]:
        components: list[Any] = self._step.loop_expected_components
        return components

    @property
    def loop_inputs(self) -> list[Any]:
        return [
            *self._step.loop_inputs,
            InputParam("latents", required=True, type_hint=Tensor, description="Where to begin."),
        ]

    @property
    def loop_intermediate_outputs(self) -> list[Any]:
        return [
            OutputParam("latents", type_hint=Tensor, description="The denoised latents"),
            OutputParam("nfe", type_hint=Tensor, description="Network calls of each sample"),
            OutputParam("within_tolerance", type_hint=Tensor, description="False if calls ran out"),
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
    """The step of each time: the last that begins there or before."""
    begun = told[:, None] <= timesteps + 1e-6 * timesteps.abs()
    steps: list[int] = (begun.sum(dim=1) - 1).clamp(min=0).tolist()
    return steps


class _Network:
    """The blocks that prepare and call the network, as a function of x, t and places."""

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
        """The samples that are guided alike, and the index of a timestep that says how.

        A guider has a window of steps.
        """
        indices = steps_of(told.cpu(), self._timesteps)
        calls = [self._calls(index) for index in indices]
        for number in dict.fromkeys(calls):
            rows = [row for row, own in enumerate(calls) if own == number]
            yield indices[rows[0]], torch.tensor(rows)

    def _calls(self, index: int) -> int:
        """How often the guider calls the network for one output at this timestep."""
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
        """The guided output for some samples, whose conditions are picked out."""
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
            "scheduler=SamplerScheduler.from_config(pipe.scheduler.config))."
        )
    return scheduler  # type: ignore[no-any-return]  # diffusers' base class has no types


def _check_end(timesteps: Tensor, scheduled: Tensor) -> None:
    if float(timesteps[-1]) != float(scheduled[-1]):
        raise ValueError(
            f"The pipeline would stop at timestep {float(timesteps[-1]):.6g} (denoising_end), but "
            "a loop of one's own goes to the end; leave denoising_end out."
        )


def _switch_guider(components: Any) -> None:
    """As the loop of diffusers does: a network that is told the guidance scale has no guider."""
    if components.unet.config.time_cond_proj_dim is None:
        components.guider.enable()
    else:
        components.guider.disable()
