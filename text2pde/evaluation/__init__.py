"""How good a model is, on clips that it was not trained on.

Here live what is generated from prompts (``prompts``), what is generated from first frames, with
how well it obeys the equations (``first_frames``), and the autoencoder alone (``reconstruction``).
Each error stands beside that of a baseline without a model. Nothing here trains.
"""
