"""Numerical solvers, which make the data. They need the extra `pde`.

Here live meshing (``meshing``), the incompressible Navier-Stokes equations by finite elements
(``navier_stokes``) and the Boussinesq equations of smoke on a staggered grid (``smoke``), forces on
a cylinder (``forces``), a simulation from the parameters to a clip (``simulation``), and data sets
simulated in parallel (``dataset``). No network belongs here.
"""
