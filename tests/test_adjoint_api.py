"""The package as a user sees it: what its names are, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import adjoint
from adjoint.autograd import torch_internals

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "adjoint").rglob("*.py"))
PRIVATE = re.compile(r"torch\._|torch\.utils\._|\._(base|cdata|sequence_nr)\b|AccumulateGrad")


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after the code."""
    show = "print(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{show}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_import_is_light() -> None:
    assert not {"torch", "diffusers", "pydantic"} & imported_by("import adjoint")


@pytest.mark.parametrize("words", [[], ["finetune"], ["rewards"], ["residual"], ["gap"]])
def test_help_imports_neither_torch_nor_diffusers(words: list[str]) -> None:
    code = f"from adjoint.cli import main; assert main({[*words, '--help']!r}) == 0"
    assert not {"torch", "diffusers"} & imported_by(code)


def test_every_public_name_is_there() -> None:
    names: list[str] = getattr(adjoint, "__all__")  # noqa: B009  lazy_loader has no types
    assert "CheckpointAdjoint" in names
    for name in names:
        assert getattr(adjoint, name) is not None
        assert name in dir(adjoint)
    with pytest.raises(AttributeError, match="Checkpoint"):
        getattr(adjoint, "Checkpoint")  # noqa: B009


def test_private_names_of_pytorch_stand_in_one_module() -> None:
    home = ROOT / "adjoint" / "autograd" / "torch_internals.py"
    found = [p for p in SOURCES if PRIVATE.search(p.read_text())]
    assert found == [home]


def test_the_private_names_mean_what_they_are_used_for() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    old = weight.exp()
    number = torch_internals.next_sequence_number()
    new = weight.exp()
    assert old.grad_fn is not None
    assert new.grad_fn is not None
    assert torch_internals.is_older(old.grad_fn, number)
    assert not torch_internals.is_older(new.grad_fn, number)
    assert torch_internals.leaf_of(new.grad_fn) is None
    (leaf, _), *_ = new.grad_fn.next_functions
    assert leaf is not None
    assert torch_internals.leaf_of(leaf) is weight
    assert torch_internals.is_parameter(weight[:1])
    assert not torch_internals.is_parameter(new)
    assert torch_internals.storage_key(new) == torch_internals.storage_key(new[:1])
    passes = []
    new.register_hook(lambda gradient: passes.append(torch_internals.backward_pass()))
    for _ in range(2):
        new.sum().backward(retain_graph=True)
    assert len(set(passes)) == 2
    assert torch_internals.backward_pass() == -1 not in passes
