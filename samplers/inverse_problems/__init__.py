"""Layer 6. Linear inverse problems: images from measurements ``y = A x + noise``.

``operators`` has the linear operators, ``problem`` an operator with its measurement, ``guidance``
and ``replacement`` the two methods, and ``solve`` the function ``solve_inverse_problem``. Guidance
wraps the model, replacement edits the state between steps; nothing here depends on a particular
sampler or network.
"""

from samplers.inverse_problems.guidance import FromJacobian, Guidance, NormalData, guiding
from samplers.inverse_problems.operators import (
    Grey,
    LinearOperator,
    blurring,
    check_operator,
    colourisation,
    downsampling,
    inpainting,
    pseudo_inverse,
    unmeasured,
)
from samplers.inverse_problems.problem import (
    Agreement,
    InverseProblem,
    agreement,
    check_problem,
    project,
)
from samplers.inverse_problems.replacement import Replacement, replaced_run, replacing
from samplers.inverse_problems.solve import solve_inverse_problem

__all__ = [
    "Agreement",
    "FromJacobian",
    "Grey",
    "Guidance",
    "InverseProblem",
    "LinearOperator",
    "NormalData",
    "Replacement",
    "agreement",
    "blurring",
    "check_operator",
    "check_problem",
    "colourisation",
    "downsampling",
    "guiding",
    "inpainting",
    "project",
    "pseudo_inverse",
    "replaced_run",
    "replacing",
    "solve_inverse_problem",
    "unmeasured",
]
