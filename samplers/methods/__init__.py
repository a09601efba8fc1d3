"""Layer 3. One file per family of samplers; each method is a function from a grid to a tableau.

A method computes coefficients only: it has no access to networks, images or devices.
"""

from samplers.methods.interval import Interval, Predicting, finite_intervals

__all__ = ["Interval", "Predicting", "finite_intervals"]
