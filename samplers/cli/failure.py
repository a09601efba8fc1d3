"""Until all programs are on click: the errors under their former name."""

from samplers.cli.common.errors import Failure, is_of_memory, named_failures, smaller_batches

__all__ = ["Failure", "is_of_memory", "named_failures", "smaller_batches"]
