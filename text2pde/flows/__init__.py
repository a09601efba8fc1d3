"""Flows as data: clips of them, and the families they are drawn from.

Here live a clip and its file (``clip``), the families of flows around cylinders (``cylinder``) and
of smoke (``smoke``), simulations one by one and by many workers (``simulate``, ``generate``), and
what is measured of a clip (``statistics``). Equations live in
``text2pde/solver/``; no network belongs here.
"""
