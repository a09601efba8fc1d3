"""The incompressible Navier-Stokes equations on triangles, which make the data. Extra `pde`.

Here live the meshing of a channel (``meshing``), the discrete equations (``navier_stokes``), and
what is measured of a flow (``measures``). Nothing here knows networks.
"""
