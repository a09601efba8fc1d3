"""What the adjoints build on PyTorch's autograd; no sampler by name and no user-facing function.

Here live one network evaluation with its graph and vector-Jacobian products (``evaluation``), what
it uses and whether that has changed (``used_tensors``, ``network_state``), the sums of gradients
over evaluations (``accumulate``), recomputation in the backward pass (``recompute``, ``context``),
runs that are one node of the graph (``trajectory``), and every private name of PyTorch that these
need (``torch_internals``).
"""
