"""Gradients over processes: the mean of those of the processes, each weight reduced once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RANKS = 2

SCRIPT = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from adjoint import CheckpointAdjoint, ReversibleAdjoint
from tests.test_adjoint import draw, leaves, network


class Sampled(nn.Module):
    def __init__(self, sampler, adjoint):
        super().__init__()
        self.network, self.sampler, self.adjoint = network(), sampler, adjoint

    def forward(self, x, condition):
        return draw(self.adjoint, self.network, x, condition, self.sampler)


folder, alone = Path(sys.argv[1]), len(sys.argv) == 2
rank = 0 if alone else int(sys.argv[2])
if not alone:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=int(sys.argv[3])
    )
x, c = (tensor.detach()[:2] for tensor in leaves())
for sampler, adjoint in (("dpmpp-2m", CheckpointAdjoint()), ("o-belm", ReversibleAdjoint())):
    module = Sampled(sampler, adjoint)
    reduced = []
    if not alone:
        run = DistributedDataParallel(module)

        def hook(state, bucket):
            reduced.append(bucket.buffer().numel())
            return allreduce_hook(state, bucket)

        run.register_comm_hook(None, hook)
        x_own, c_own = x[rank : rank + 1], c[rank : rank + 1]
    else:
        run, x_own, c_own = module, x, c
    run(x_own, c_own).square().sum(dim=1).mean().backward()
    found = {name: weight.grad for name, weight in module.named_parameters()}
    torch.save((found, sum(reduced)), folder / f"{sampler}-{'alone' if alone else rank}.pt")
if not alone:
    dist.destroy_process_group()
"""


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    jobs = [
        subprocess.Popen(
            [*command, *own], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for own in ([], *([str(rank), str(RANKS)] for rank in range(RANKS)))
    ]
    for job in jobs:
        _, said = job.communicate()
        assert job.returncode == 0, said
    for sampler in ("dpmpp-2m", "o-belm"):
        expected, _ = torch.load(tmp_path / f"{sampler}-alone.pt")
        numbers = sum(gradient.numel() for gradient in expected.values())
        for rank in range(RANKS):
            found, reduced = torch.load(tmp_path / f"{sampler}-{rank}.pt")
            assert reduced == numbers  # each of the weights' numbers once
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    found[name], gradient, rtol=1e-12, atol=1e-12 * float(gradient.abs().max())
                )
