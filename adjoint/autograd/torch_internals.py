"""The private names of PyTorch that this package uses; nothing else in it may use one.

PyTorch promises nothing about them. Tested with 2.13, the lower bound in ``pyproject.toml``:

=============================================  =======  ==========================================
name                                           since    used for
=============================================  =======  ==========================================
``torch._C._current_graph_task_id``            2.0      telling one backward pass from the next
``Node._sequence_nr``                          2.1      which nodes of a graph are older than a call
``Tensor._base``                               1.0      recognising views of parameters
``Tensor._version``                            1.0      noticing what was changed in place
``Module._compiled_call_impl``                 2.1      what a call of a compiled module runs
``UntypedStorage._cdata``                      2.0      counting a storage once; fake tensors have
                                                        no ``data_ptr``
``torch._subclasses.fake_tensor``              2.0      evaluating a network on tensors without data
``torch.utils._pytree``                        1.8      arguments as a flat list
``torch.utils._python_dispatch``               2.0      seeing every operation of an evaluation
=============================================  =======  ==========================================

``AccumulateGrad.variable`` is undocumented as well, and has no type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

__all__ = [
    "FakeTensorMode",
    "TorchDispatchMode",
    "TreeSpec",
    "backward_pass",
    "entry_point",
    "is_older",
    "is_parameter",
    "leaf_of",
    "next_sequence_number",
    "storage_key",
    "tree_flatten",
    "tree_leaves",
    "tree_unflatten",
    "version_of",
]


def backward_pass() -> int:
    """A number for the backward pass that is running; -1 outside of one."""
    return torch._C._current_graph_task_id()


def next_sequence_number() -> int:
    """A lower bound for the sequence numbers of all operations recorded from now on."""
    node = torch.zeros((), requires_grad=True).clone().grad_fn
    assert node is not None  # a clone of what requires a gradient has one
    return int(node._sequence_nr())


def is_older(node: Node, sequence_number: int) -> bool:
    """Whether the operation was recorded before :func:`next_sequence_number` gave this number."""
    return node._sequence_nr() < sequence_number


def leaf_of(node: Node) -> Tensor | None:
    """The leaf tensor whose gradient the node accumulates; None for any other node."""
    if not node.name().endswith("AccumulateGrad"):
        return None
    leaf: Tensor = node.variable  # type: ignore[attr-defined]
    return leaf


def is_parameter(tensor: Tensor) -> bool:
    """Whether it is a parameter, or a view of one."""
    return isinstance(tensor, Parameter) or isinstance(tensor._base, Parameter)


def storage_key(tensor: Tensor) -> int:
    """The identity of the tensor's storage, also for a fake tensor."""
    return int(tensor.untyped_storage()._cdata)


def version_of(tensor: Tensor) -> int:
    """How often the tensor was changed in place; tensors of inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def entry_point(module: nn.Module) -> str:
    """The attribute that a call of the module runs: another one after ``module.compile()``."""
    return "forward" if module._compiled_call_impl is None else "_compiled_call_impl"
