"""Flows as data: clips of them, the families they are drawn from, and how they are captioned.

Here live a clip and its file (``clip``), the family of flows around cylinders (``cylinder``), their
simulation one by one and by many workers (``simulate``, ``generate``). Equations live in
``text2pde/solver/``; no network belongs here.
"""
