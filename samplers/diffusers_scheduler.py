"""The module that pipelines saved by version 0.1 name; the class is in `samplers.diffusers`."""

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from samplers.diffusers.scheduler import SamplerScheduler

__all__ = ["SamplerScheduler", "SchedulerMixin"]
