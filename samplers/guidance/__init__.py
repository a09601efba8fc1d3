"""Layer 2. Guidance: functions from a :class:`~samplers.Denoiser` to a guided one.

One module for each kind. A guided denoiser has the schedule, the prediction type and the correction
of the one that it wraps, so that it can be sampled, integrated and guided again like any other; it
also knows how many network evaluations it makes at each noise level. ``scale`` has the scales that
depend on the noise level, ``contrast`` what guidance by two predictions has in common.
"""

from samplers.guidance.classifier import classifier_guidance
from samplers.guidance.classifier_free import classifier_free_guidance
from samplers.guidance.projected import adaptive_projected_guidance
from samplers.guidance.scale import CFGPlusPlus, GuidanceInterval, GuidanceScale
from samplers.guidance.weaker import autoguidance

__all__ = [
    "CFGPlusPlus",
    "GuidanceInterval",
    "GuidanceScale",
    "adaptive_projected_guidance",
    "autoguidance",
    "classifier_free_guidance",
    "classifier_guidance",
]
