"""Layer 4. The registry: tables of samplers with their names, claimed orders and references.

A sampler is a method with its settings. To add one, write a function in ``samplers/methods`` and
one row here; the tests find it. Other packages add theirs through the entry-point group
``samplers``, whose entry points are objects of :class:`Sampler`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any, Literal, get_args, get_origin

from samplers.grid import Grid, make_grid
from samplers.methods import (
    adams,
    ancestral,
    consistency,
    deis,
    dpm_solver,
    edm,
    linear_multistep,
    pf_ode,
    predictor_corrector,
    reverse_sde,
    reversible,
    seeds,
    unipc,
)
from samplers.methods.embedded import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    Trial,
    dpm_solver_12,
    dpm_solver_23,
    runge_kutta,
)
from samplers.methods.interval import Interval
from samplers.schedule import VPLinear
from samplers.spacings import find_spacing
from samplers.tableau import Tableau

Method = Callable[[Grid], Tableau]

ENTRY_POINT_GROUP = "samplers"


@dataclass(frozen=True)
class Sampler:
    """A fixed-grid sampler: a row of the registry.

    Attributes:
        name: its name for users.
        method: a function of a grid and of options with defaults.
        order: the order of convergence of the method without its noise, on the probability-flow
            ODE; 0 if it does not solve that.
        calls: network evaluations of a full step with the default options; a step to sigma = 0
            takes one.
        reference: paper and equation or algorithm.
        weak_order, strong_order: of stochastic methods, for the distribution and for the paths; a
            weak order of 0 means that a bias remains, a strong order of None that the noise is not
            a function of a path.
        aliases: other names of it.
        distilled: whether the network has to be distilled to jump along the trajectory, see
            :mod:`samplers.methods.consistency`; the orders are then 0.
    """

    name: str
    method: Callable[..., Tableau]
    order: int
    calls: int
    reference: str
    weak_order: float | None = None
    strong_order: float | None = None
    aliases: tuple[str, ...] = field(default=())
    distilled: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.description)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def description(self) -> str:
        """A description: order, evaluations per step, reference, options and equations."""
        method = self.method.func if isinstance(self.method, partial) else self.method
        settings = self.method.keywords if isinstance(self.method, partial) else {}
        functions = [method, *filter(inspect.isfunction, settings.values())]
        if "{decay}" in (method.__doc__ or ""):
            functions.append(Interval)  # which explains the symbols
        equations = "\n\n".join(inspect.getdoc(function) or "" for function in functions)
        cost = "1 network evaluation" if self.calls == 1 else f"{self.calls} network evaluations"
        facts = {
            "Reference": self.reference,
            "Also known as": ", ".join(self.aliases),
            "Method": f"{method.__module__}.{method.__qualname__}({_listed(settings)})",
            "Options": _listed(self.options),
        }
        return (
            f"{self.name}: order {self.order}, {cost} a step"
            f"{', stochastic' if self.stochastic else ''}"
            f"{', for distilled networks' if self.distilled else ''}.\n\n"
            + "".join(f"{what}: {fact}.\n" for what, fact in facts.items() if fact)
            + f"\n{equations}"
        ).rstrip()

    @property
    def stochastic(self) -> bool:
        return self.weak_order is not None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the sampler with their defaults."""
        parameters = list(inspect.signature(self.method).parameters.values())[1:]
        fixed = self.method.keywords if isinstance(self.method, partial) else {}
        return {p.name: p.default for p in parameters if p.name not in _IDENTITY & set(fixed)}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The allowed values of options that are strings."""
        words = [name for name, default in self.options.items() if isinstance(default, str)]
        if not words:
            return {}  # and the types of the method are not read: they may exist for checkers only
        parameters = inspect.signature(self.method, eval_str=True).parameters
        kinds = {name: parameters[name].annotation for name in words}
        return {name: get_args(kind) for name, kind in kinds.items() if get_origin(kind) is Literal}

    def calls_with(self, options: Mapping[str, Any] | None = None) -> int:
        """Network evaluations of a full step with these options."""
        return self.tableau(make_grid(VPLinear(), 3), options).calls_per_step

    def steps_within(self, nfe: int, options: Mapping[str, Any] | None = None) -> int:
        """The largest number of steps that take at most ``nfe`` network evaluations.

        The grid starts at a finite log-SNR and ends at sigma = 0.
        """
        return (nfe - 1) // self.calls_with(options) + 1

    def tableau(self, grid: Grid, options: Mapping[str, Any] | None = None) -> Tableau:
        """The tableau of this sampler on ``grid``.

        Raises ValueError for an unknown option, a value that the option does not allow, or a grid
        that is too short for a singlestep method.
        """
        chosen = dict(options or {})
        unknown = sorted(set(chosen) - set(self.options))
        if unknown:
            raise ValueError(
                f"The sampler {self.name!r} has no option {unknown[0]!r}; "
                f"it has {', '.join(self.options) or 'none'}."
            )
        for name, allowed in self.choices.items():
            if chosen.get(name, allowed[0]) not in allowed:
                raise ValueError(
                    f"The option {name} of {self.name!r} is {chosen[name]!r}; it must be "
                    f"{' or '.join(map(repr, allowed))}."
                )
        tableau = self.method(grid, **chosen)
        if tableau.calls < self.calls:
            raise ValueError(
                f"The sampler {self.name!r} takes {self.calls} network evaluations in a full "
                f"step, but this grid has room for {tableau.calls}; take at least 2 steps, or a "
                "grid that ends at sigma_min."
            )
        return tableau


def _listed(settings: Mapping[str, Any]) -> str:
    words = {
        name: value.__name__ if inspect.isfunction(value) else repr(value)
        for name, value in settings.items()
    }
    return ", ".join(f"{name}={word}" for name, word in words.items())


@dataclass(frozen=True)
class AdaptiveSampler(Sampler):
    """A sampler with adaptive step size: a row of the registry, with an embedded pair of methods.

    The lower order serves to estimate the error. ``method(slope, known, angle)`` tries a step to
    the angles [b], see :mod:`samplers.methods.embedded`.

    Attributes:
        order: q; the error estimate falls with the q-th power of the step.
        calls: network evaluations of a trial step, the one at its beginning included.
        keeps_last: whether the last slope of a step is the first of the next one.
        in_log_snr: whether the method expands in the log-SNR, which is infinite at both ends.
    """

    method: Callable[..., Trial]  # type: ignore[assignment]
    keeps_last: bool = False
    in_log_snr: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """It has no options: the tolerances are settings of :class:`samplers.Adaptive`."""
        return {}

    @property
    def least_nfe(self) -> int:
        """The evaluations of one trial step, with a DDIM step before and after it if needed."""
        return self.calls if self.keeps_last else self.calls + 2

    def tableau(self, grid: Grid, options: Mapping[str, Any] | None = None) -> Tableau:
        raise ValueError(
            f"The sampler {self.name!r} has adaptive step sizes, so it has no tableau on a fixed "
            "grid and can't be a diffusers scheduler; use samplers.sample_adaptive, or `samplers "
            "sample`."
        )


# Options that determine which member of a family a row is; users cannot change them.
_IDENTITY = {
    *("order", "predicting", "variant", "second_order", "third_order"),
    *("predictor", "corrector", "clock"),
}

_SONG = "Song et al. 2021, arXiv:2011.13456"
_DDIM = "Song, Meng, Ermon 2021, arXiv:2010.02502"
_DDPM = "Ho et al. 2020, arXiv:2006.11239"
_EDM = "Karras et al. 2022, arXiv:2206.00364"
_DPM = "Lu et al. 2022, arXiv:2206.00927"
_DPMPP = "Lu et al. 2022, arXiv:2211.01095"
_DEIS = "Zhang, Chen 2023, arXiv:2204.13902"
_MR = "Li et al. 2025, arXiv:2502.07856"
_RES = "Zhang et al. 2023, arXiv:2308.02157"
_GE = "Permenter, Yuan 2024, arXiv:2306.04848"
_UNIPC = "Zhao et al. 2023, arXiv:2302.04867"
_SEEDS = "Gonzalez et al. 2023, arXiv:2305.14267"
_CROWSON = "Crowson 2022, k-diffusion"

_single_2, _single_3 = dpm_solver.singlestep_2, dpm_solver.singlestep_3
_res_2s = partial(_single_2, predicting="data", second_order="exact")
_data = partial(dpm_solver.multistep, predicting="data", third_order="corrected")
_noise = partial(dpm_solver.multistep, predicting="noise", third_order="corrected")
_mr_data, _mr_noise = (partial(f, order=2, second_order="exact") for f in (_data, _noise))
_ab = linear_multistep.adams_bashforth
_abm = adams.adams_bashforth_moulton
_deis, _deis_data = partial(deis.deis, predicting="noise"), partial(deis.deis, predicting="data")
_seeds_2 = seeds.seeds_2
_unipc, _unipc_b1 = partial(unipc.unipc, variant="b2"), partial(unipc.unipc, variant="b1")
_ABM = "Adams-Bashforth-Moulton on the flow of Liu et al. 2022, arXiv:2209.03003"
_HALVED = "the authors' code, with half the second difference"


def _predictor(predictor: reverse_sde.Predictor) -> Callable[..., Tableau]:
    return partial(reverse_sde.reverse_sde, predictor=predictor)


def _corrected(
    predictor: reverse_sde.Predictor, corrector: predictor_corrector.Corrector
) -> Callable[..., Tableau]:
    return partial(
        predictor_corrector.predictor_corrector, predictor=predictor, corrector=corrector
    )


_langevin, _annealed = (
    partial(_corrected, corrector="langevin"),
    partial(_corrected, corrector="annealed-langevin"),
)
_PC = f"{_SONG}, algorithm 1"
_ALD = "Song, Ermon 2019, arXiv:1907.05600, algorithm 1"

_LU = "Lu et al. 2022, arXiv:2206.00927, adaptive step size"
_BS = "Bogacki, Shampine 1989, A 3(2) pair of Runge-Kutta formulas"
_DP = "Dormand, Prince 1980, A family of embedded Runge-Kutta formulae"

# fmt: off
_TABLE: tuple[Sampler, ...] = (
    # The probability-flow ODE in rho = sigma / alpha.
    Sampler("ddim", pf_ode.ddim, 1, 1, f"{_DDIM}, eq. 13", aliases=(
        "euler", "dpmpp-1", "dpm-solver-1", "dpm-1", "dpm-solver++-1", "euler-discrete",
        "mr-ode-n-1", "mr-ode-d-1",
        "ddim-parallel", "cogvideox-ddim", "edm-euler", "flow-match-euler-discrete")),
    Sampler("heun", pf_ode.heun, 2, 2, f"{_EDM}, algorithm 1", aliases=(
        "edm", "heun-discrete")),
    Sampler("midpoint", pf_ode.midpoint, 2, 2, f"{_EDM}, eq. 1", aliases=("rk2",)),
    Sampler("rk4", pf_ode.rk4, 4, 4, f"{_EDM}, eq. 1", aliases=("runge-kutta",)),
    Sampler("lms-2", partial(_ab, order=2), 2, 1, f"{_EDM}, eq. 1"),
    Sampler("lms-3", partial(_ab, order=3), 3, 1, f"{_EDM}, eq. 1"),
    Sampler("lms-4", partial(_ab, order=4), 4, 1, f"{_EDM}, eq. 1",
            aliases=("lms", "lms-discrete")),
    # Linear multistep methods in rho with other weights.
    Sampler("ipndm", linear_multistep.ipndm, 2, 1, f"{_DEIS}, iPNDM"),
    Sampler("gradient-estimation", linear_multistep.gradient_estimation, 1, 1, _GE),
    # Predictor and corrector of Adams on the rectified flow.
    Sampler("abm-2", partial(_abm, order=2), 2, 1, _ABM),
    Sampler("abm-3", partial(_abm, order=3), 3, 1, _ABM),
    Sampler("abm-4", partial(_abm, order=4), 4, 1, _ABM),
    Sampler("abm", adams.of_fitting_order, 4, 1, f"{_ABM}; order 3 below 12 steps"),
    # DPM-Solver: noise prediction.
    Sampler("dpm-solver-2", partial(_single_2, predicting="noise"), 2, 2, f"{_DPM}, algorithm 1",
            aliases=("dpm-2", "kdpm2", "kdpm2-discrete")),
    Sampler("dpm-solver-3", partial(_single_3, predicting="noise"), 3, 3, f"{_DPM}, algorithm 2",
            aliases=("dpm-3",)),
    Sampler("dpm-solver-2m", partial(_noise, order=2), 2, 1,
            f"{_DPMPP}, 2M of eps", aliases=("dpm-2m",)),
    Sampler("dpm-solver-3m-corrected", partial(_noise, order=3), 3, 1,
            f"{_DPMPP}, 3M of eps", aliases=("dpm-solver-3m", "dpm-3m")),
    Sampler("dpm-solver-3m-reference",
            partial(_noise, order=3, third_order="reference"), 2, 1, _HALVED),
    # DPM-Solver++: data prediction.
    Sampler("dpmpp-2s", partial(_single_2, predicting="data"), 2, 2, f"{_DPMPP}, algorithm 1",
            aliases=("dpm-solver++-2s", "dpm-solver-singlestep")),
    Sampler("dpmpp-3s", partial(_single_3, predicting="data"), 3, 3, f"{_DPMPP}, third order",
            aliases=("dpm-solver++-3s",)),
    Sampler("res-2s", partial(_res_2s, r=0.5), 2, 2, f"{_RES}, singlestep"),
    Sampler("exponential-heun", partial(_res_2s, r=1.0), 2, 2, f"{_RES}, singlestep with c_2 = 1",
            aliases=("exp-heun", "exp-heun-2-x0")),
    Sampler("dpmpp-2m", partial(_data, order=2), 2, 1, f"{_DPMPP}, algorithm 2", aliases=(
        "dpm-solver++", "dpm-solver++-2m", "dpm-solver-multistep", "edm-dpm-solver-multistep")),
    Sampler("dpmpp-3m-corrected", partial(_data, order=3), 3, 1,
            f"{_DPMPP}, third order", aliases=("dpmpp-3m", "dpm-solver++-3m")),
    Sampler("dpmpp-3m-reference", partial(_data, order=3, third_order="reference"), 2, 1, _HALVED),
    # UniPC: its order is one more than its name says.
    Sampler("unipc-1", partial(_unipc, order=1), 2, 1, f"{_UNIPC}, B2"),
    Sampler("unipc-2", partial(_unipc, order=2), 3, 1, f"{_UNIPC}, B2",
            aliases=("unipc", "unipc-multistep")),
    Sampler("unipc-3", partial(_unipc, order=3), 4, 1, f"{_UNIPC}, B2", aliases=("uni-pc-bh2",)),
    Sampler("unipc-1-b1", partial(_unipc_b1, order=1), 2, 1,
            f"{_UNIPC}, B1"),
    Sampler("unipc-2-b1", partial(_unipc_b1, order=2), 3, 1,
            f"{_UNIPC}, B1"),
    Sampler("unipc-3-b1", partial(_unipc_b1, order=3), 4, 1,
            f"{_UNIPC}, B1"),
    # Exponential Adams-Bashforth.
    Sampler("deis-1", partial(_deis, order=1), 1, 1, _DEIS),
    Sampler("deis-2", partial(_deis, order=2), 2, 1, _DEIS,
            aliases=("deis", "deis-multistep")),
    Sampler("deis-3", partial(_deis, order=3), 3, 1, _DEIS),
    Sampler("deis-4", partial(_deis, order=4), 4, 1, _DEIS),
    Sampler("deis-data-2", partial(_deis_data, order=2), 2, 1,
            f"{_DEIS}, of x_0"),
    Sampler("deis-data-3", partial(_deis_data, order=3), 3, 1,
            f"{_DEIS}, of x_0"),
    Sampler("deis-data-4", partial(_deis_data, order=4), 4, 1,
            f"{_DEIS}, of x_0"),
    # Algebraically reversible methods.
    Sampler("o-belm", reversible.o_belm, 2, 1, "Wang et al. 2024, arXiv:2410.07273, O-BELM", aliases=("belm",)),
    Sampler("bdia", reversible.bdia, 2, 1, "Zhang et al. 2023, arXiv:2307.10829, BDIA-DDIM", aliases=("bdia-ddim",)),
    # The reverse SDE: predictors, alone and with a Langevin corrector.
    Sampler("euler-maruyama", _predictor(reverse_sde.euler_maruyama), 1, 1, f"{_SONG}, eq. 6", 1, 1,
            aliases=("em", "reverse-sde")),
    Sampler("reverse-diffusion", _predictor(reverse_sde.reverse_diffusion), 1, 1, f"{_SONG}, eq. 46", 1, 1),
    Sampler("ancestral", reverse_sde.ancestral_sampling, 1, 1, f"{_DDPM}, eq. 6-7", 1, 1, aliases=(
        "ddpm", "ddim-eta", "euler-a", "euler-ancestral", "euler-ancestral-discrete")),
    Sampler("euler-maruyama+langevin", _langevin(reverse_sde.euler_maruyama), 1, 2, _PC, 0),
    Sampler("reverse-diffusion+langevin", _langevin(reverse_sde.reverse_diffusion), 1, 2, _PC, 0),
    Sampler("ancestral+langevin", _langevin(reverse_sde.ancestral), 1, 2, _PC, 0),
    Sampler("euler-maruyama+annealed-langevin", _annealed(reverse_sde.euler_maruyama), 1, 2, _PC, 1),
    Sampler("reverse-diffusion+annealed-langevin", _annealed(reverse_sde.reverse_diffusion), 1, 2, _PC, 1),
    Sampler("ancestral+annealed-langevin", _annealed(reverse_sde.ancestral), 1, 2, _PC, 1),
    Sampler("none+langevin", _langevin(reverse_sde.none), 0, 2, _ALD, 0),
    Sampler("none+annealed-langevin", _annealed(reverse_sde.none), 0, 2, _ALD, 0, aliases=(
        "annealed-langevin", "ald")),
    # SDE-DPM-Solver, in noise and in data prediction.
    Sampler("sde-dpm-solver-1", partial(_noise, order=1, eta=1.0), 1, 1,
            f"{_DPMPP}, SDE-DPM-Solver-1", 1, 1, aliases=("sde-dpm-1", "mr-sde-n-1")),
    Sampler("sde-dpm-solver-2m", partial(_noise, order=2, eta=1.0), 2, 1,
            f"{_DPMPP}, SDE-DPM-Solver(2M)", 2, 1, aliases=("sde-dpm-2m",)),
    Sampler("sde-dpm-solver-3m", partial(_noise, order=3, eta=1.0), 3, 1,
            f"{_DPMPP}, SDE, third order", 2, 1, aliases=("sde-dpm-3m",)),
    Sampler("sde-dpmpp-1", partial(_data, order=1, eta=1.0), 1, 1,
            f"{_DPMPP}, SDE-DPM-Solver++1", 1, 1, aliases=("dpmpp-1-sde", "sde-dpm-solver++-1", "mr-sde-d-1")),
    Sampler("sde-dpmpp-2m", partial(_data, order=2, eta=1.0), 2, 1, f"{_DPMPP}, SDE-DPM-Solver++(2M)", 2, 1,
            aliases=("dpmpp-2m-sde", "sde-dpm-solver++", "sde-dpm-solver++-2m")),
    Sampler("sde-dpmpp-3m", partial(_data, order=3, eta=1.0), 3, 1, f"{_DPMPP}, SDE, third order", 2, 1,
            aliases=("dpmpp-3m-sde", "sde-dpm-solver++-3m")),
    # An ancestral version of a solver: down to a lower noise level, then up with noise.
    Sampler("res-multistep-ancestral", ancestral.multistep_2, 2, 1,
            "Zhang et al. 2023, arXiv:2308.02157, with ancestral noise", 2, 1),
    # Singlestep methods for the reverse SDE, with noise in their stages.
    Sampler("dpmpp-sde", partial(_seeds_2, second_order="midpoint", clock="rho"), 2, 2, f"{_CROWSON}, DPM++ SDE", 2, 1,
            aliases=("dpm-solver-sde", "dpm-solver++-sde")),
    Sampler("seeds-2", partial(_seeds_2, second_order="midpoint", clock="snr"), 2, 2, f"{_SEEDS}, SEEDS-2", 2, 1),
    Sampler("exp-heun-2-x0-sde", partial(_seeds_2, r=1.0, second_order="exact", clock="snr"), 2, 2,
            f"{_SEEDS}, SEEDS-2 with the stage at the end", 2, 1),
    Sampler("seeds-3", seeds.seeds_3, 3, 3, f"{_SEEDS}, SEEDS-3", 2, 1),
    # MR Sampler, which is DPM-Solver with the exact integral of the line through two predictions.
    Sampler("mr-ode-n-2", _mr_noise, 2, 1, f"{_MR}, MR-ODE-n-2"),
    Sampler("mr-ode-d-2", _mr_data, 2, 1, f"{_MR}, MR-ODE-d-2; {_RES}, multistep",
            aliases=("res-multistep", "res-2m")),
    Sampler("mr-sde-n-2", partial(_mr_noise, eta=1.0), 2, 1, f"{_MR}, MR-SDE-n-2", 2, 1),
    Sampler("mr-sde-d-2", partial(_mr_data, eta=1.0), 2, 1, f"{_MR}, MR-SDE-d-2", 2, 1,
            aliases=("dpmpp-2m-sde-heun",)),
    Sampler("edm-churn", edm.churn, 2, 2, f"{_EDM}, algorithm 2", 2,
            aliases=("edm-stochastic",)),
    # Distilled networks, which jump along the trajectory.
    Sampler("consistency", consistency.consistency, 0, 1, "Song et al. 2023, arXiv:2303.01469, algorithm 1", 0,
            aliases=("cm", "cm-stochastic-iterative"), distilled=True),
    Sampler("lcm", consistency.lcm, 0, 1, "Luo et al. 2023, arXiv:2310.04378, algorithm 2", 0,
            aliases=("flow-match-lcm",), distilled=True),
    Sampler("tcd", consistency.tcd, 0, 1, "Zheng et al. 2024, arXiv:2402.19159, algorithm 4", 0, distilled=True),
)
_ADAPTIVE_TABLE: tuple[AdaptiveSampler, ...] = (
    # Runge-Kutta pairs in the angle.
    AdaptiveSampler("bogacki-shampine", partial(runge_kutta, pair=BOGACKI_SHAMPINE), order=3, calls=4,
         keeps_last=True, in_log_snr=False, reference=_BS, aliases=("rk23", "bosh3", "ode23")),
    AdaptiveSampler("dormand-prince", partial(runge_kutta, pair=DORMAND_PRINCE), order=5, calls=7,
         keeps_last=True, in_log_snr=False, reference=_DP, aliases=("rk45", "dopri5", "ode45")),
    # DPM-Solver: noise prediction, as published.
    AdaptiveSampler("dpm-solver-12", partial(dpm_solver_12, predicting="noise"), order=2, calls=2,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-12",)),
    AdaptiveSampler("dpm-solver-23", partial(dpm_solver_23, predicting="noise"), order=3, calls=3,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-23", "dpm-adaptive")),
    # The same formulas on the prediction of x_0.
    AdaptiveSampler("dpmpp-12", partial(dpm_solver_12, predicting="data"), order=2, calls=2,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-solver++-12",)),
    AdaptiveSampler("dpmpp-23", partial(dpm_solver_23, predicting="data"), order=3, calls=3,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-solver++-23",)),
)
# fmt: on


Kind = Literal["all", "fixed-grid", "adaptive"]


def list_samplers(kind: Kind = "all") -> list[str]:
    """The names of all samplers, including those of other packages.

    Args:
        kind: ``fixed-grid`` for samplers that have a tableau, ``adaptive`` for those with adaptive
            step size.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"The kind is {kind!r}; it must be one of {', '.join(get_args(Kind))}.")
    fixed = [] if kind == "adaptive" else list(registry())
    return fixed if kind == "fixed-grid" else [*fixed, *adaptive_registry()]


@cache
def registry() -> dict[str, Sampler]:
    """Every fixed-grid sampler by name, in the order of the table; those of other packages last."""
    table = {sampler.name: sampler for sampler in _TABLE}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        sampler = entry.load()
        if not isinstance(sampler, Sampler):
            raise TypeError(
                f"The entry point {entry.name!r} of group {ENTRY_POINT_GROUP!r} gave a "
                f"{type(sampler).__name__}; it must give a samplers.Sampler."
            )
        if sampler.name in table:
            raise ValueError(f"A sampler named {sampler.name!r} is in the registry already.")
        table[sampler.name] = sampler
    return table


@cache
def adaptive_registry() -> dict[str, AdaptiveSampler]:
    """Every sampler with adaptive step sizes by name, in the order of the table."""
    return {sampler.name: sampler for sampler in _ADAPTIVE_TABLE}


@cache
def _names() -> dict[str, Sampler]:
    """Every name and alias; a name takes precedence over an alias."""
    samplers = [*registry().values(), *adaptive_registry().values()]
    names = {alias: sampler for sampler in samplers for alias in sampler.aliases}
    return names | {sampler.name: sampler for sampler in samplers}


def get_sampler(name: str) -> Sampler:
    """Look up a sampler by name or alias; case, ``_``, prefixes and suffixes do not matter.

    ``DPMSolverMultistepScheduler``, ``sample_dpmpp_2m`` and ``DPM++ 2M`` all give ``dpmpp-2m``. A
    sampler with adaptive step sizes is an :class:`AdaptiveSampler`. Raises ValueError for an
    unknown name, and suggests the nearest known one.
    """
    names, plain = _names(), _plain(name)
    squeezed = {_squeezed(known): sampler for known, sampler in names.items()}
    found = names.get(name) or names.get(plain) or squeezed.get(_squeezed(plain))
    if found is None:
        raise ValueError(f"There is no sampler named {name!r}; {_hint(name, plain, names)}")
    return found


def _hint(name: str, plain: str, names: Mapping[str, Sampler]) -> str:
    if name.endswith(".json"):
        return "a file of a tuned one is no name: load_sampler reads it."
    words = plain.replace("++", "pp").split("-")
    for end in range(1, len(words)):  # as in "DPM++ 2M Karras" and "Euler SGM Uniform"
        bare, spacing = "-".join(words[:end]), find_spacing("-".join(words[end:]))
        if spacing and bare in names:
            return f"did you mean {names[bare].name!r} on the grid {spacing!r}?"
    near = difflib.get_close_matches(plain, names, n=1)
    return f"did you mean {near[0]!r}?" if near else "see `samplers list`."


def get_adaptive_sampler(name: str) -> AdaptiveSampler:
    """Look up a sampler with adaptive step size; ValueError if the name is of another one."""
    sampler = get_sampler(name)
    if not isinstance(sampler, AdaptiveSampler):
        raise ValueError(
            f"The sampler {sampler.name!r} runs on a fixed grid; a sampler with adaptive step "
            f"sizes is needed here: {', '.join(adaptive_registry())}."
        )
    return sampler


def _plain(name: str) -> str:
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    return plain.removeprefix("sample-").removesuffix("scheduler").removesuffix("-gpu")


def _squeezed(plain: str) -> str:
    """The name without what programs write differently, as in ``DPM++ 2M`` and ``dpmpp-2m``."""
    return plain.replace("++", "pp").replace("-", "")
