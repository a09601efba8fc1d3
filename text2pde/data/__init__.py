"""Solutions as data.

Here live a clip, which is a solution at several times, and its file (``clip``), the formats of
other programs (``mesh_files``), what is measured of a clip (``statistics``), and checksums of
weights, by which files know their model (``digests``). Nothing here solves equations, and no
network belongs here.
"""
