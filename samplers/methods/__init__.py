"""Layer 3. One file per family of samplers; each method is a function from a grid to a tableau.

A method knows numbers alone: no network, no image, no device.
"""

from samplers.methods.interval import Interval, Predicting, finite_intervals

__all__ = ["Interval", "Predicting", "finite_intervals"]
