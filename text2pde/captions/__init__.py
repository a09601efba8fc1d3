"""Sentences about what is simulated: written from its numbers, and read back into them.

Here live the reading of numbers with units (``reading``), sentences about flows past cylinders
(``channel``) and about smoke (``plume``).
"""

from text2pde.captions.channel import VISCOSITY, caption, flow_of, read_numbers

__all__ = ["VISCOSITY", "caption", "flow_of", "read_numbers"]
