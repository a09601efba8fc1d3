r"""The sum over neighbours, with weights that a network makes of where they are.

.. math:: g(x) = \sum_{y \in B(x)} w_{xy} \, k_\theta(y - x, a_y, a_x) \odot f(y)

(a graph kernel, Li et al. 2020, https://arxiv.org/abs/2003.03485) with shares w of the area, so
that it is an integral over the neighbourhood, whatever the mesh.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from text2pde.autoencoder.batch import EdgeTensors


class KernelSum(nn.Module):
    """From values at sources to values at targets, for all frames alike.

    Args:
        channels: of the values. features: of the points that are known to the kernel, 0 for none.
    """

    def __init__(self, channels: int, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(2 + features, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, channels),
        )  # fmt: skip

    def forward(self, values: Tensor, edges: EdgeTensors, known: Tensor, count: int) -> Tensor:
        """values: at the sources [F, S, C]; known: of each edge [E, features]; count: of targets.

        Returns [F, count, C].
        """
        weights = self.kernel(torch.cat([edges.offset, known], dim=1)) * edges.share[:, None]
        messages = weights * values[:, edges.source]
        nothing = messages.new_zeros(len(values), count, values.shape[2])
        found: Tensor = nothing.index_add(1, edges.target, messages)
        return found
