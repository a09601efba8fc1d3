"""The module that pipelines saved by version 0.1 name; the class is in `samplers.diffusers`."""

from samplers.diffusers.restoration import RestorationPipeline

__all__ = ["RestorationPipeline"]
