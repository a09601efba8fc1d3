"""How good a model of flows is, on clips that it never saw.

Here live what is asked of sentences (``sentences``), of first frames (``frames``) and of the
autoencoder alone (``reconstruction``). Nothing here trains or draws pictures.
"""
