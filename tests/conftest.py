"""What all tests share: one thread, so that the suite runs beside other work and never races."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
