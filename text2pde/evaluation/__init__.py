"""How good a model of flows is, on clips that it never saw.

Here live what is asked of sentences (``sentences``, ``smoke``), of first frames (``frames``), of
drawn frames and the equations (``continuation``), and of the autoencoder alone
(``reconstruction``). Nothing here trains or draws pictures.
"""
