"""Layer 2. Guidance: functions from a :class:`~samplers.Denoiser` to a guided one.

One module for each kind. A guided denoiser has the schedule, the prediction type and the correction
of the one that it wraps, so that it can be sampled, integrated and guided again like any other.
"""

from samplers.guidance.classifier import classifier_guidance
from samplers.guidance.classifier_free import classifier_free_guidance

__all__ = ["classifier_free_guidance", "classifier_guidance"]
