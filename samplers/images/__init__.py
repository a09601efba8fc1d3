"""Layer 6. Images as tensors, files, sheets, films and figures.

Nothing here knows a network, a sampler or the command line.

- ``pixels``: tensors to 8-bit images and back;
- ``files``: reading image files, writing PNG files with their parameters;
- ``inputs``: images that a network is given, checked against what it takes;
- ``sheets``: images side by side, pixel for pixel (Pillow);
- ``films``: frames as GIF or MP4 (Pillow, PyAV);
- ``figures``: curves, histograms, tables of labelled images (matplotlib);
- ``plots``: what a tableau, a grid and a trajectory look like (matplotlib).

The public names are listed in ``__init__.pyi``, and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
