"""Layer 3. One file per family of samplers; each method is a function from a grid to a tableau.

A method knows numbers alone: no network, no image, no device.
"""
