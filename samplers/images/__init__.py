"""Layer 6. Images as files and figures: pixels, sheets and tables of images.

Nothing here knows a network, a sampler or the command line.
"""
