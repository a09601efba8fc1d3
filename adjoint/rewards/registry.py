"""The registry: a literal table of rewards, their options and sources.

Adding one is one function in a file of its family and one row here; the tests find it by
themselves. ``package.module:name`` is a reward as well, of whoever wrote it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adjoint.options import Option, chosen_options, options_of
from adjoint.rewards.classes import class_log_probability, class_surprisal
from adjoint.rewards.clip import clip
from adjoint.rewards.features import feature, gram
from adjoint.rewards.own import own_reward
from adjoint.rewards.pixel import pixel
from adjoint.rewards.reward import Place, Reward, checked


@dataclass(frozen=True)
class RewardKind:
    """A row of the registry.

    Attributes:
        name: what users write.
        build: a function of the place and of typed options that returns the reward.
        description: one line on what is high for which images.
        reference: paper and equation.
    """

    name: str
    build: Callable[..., Reward]
    description: str
    reference: str

    @property
    def options(self) -> dict[str, Option]:
        """What can be set, and what must be."""
        return options_of(self.build, skip=1)


# fmt: off
_TABLE: tuple[RewardKind, ...] = (
    RewardKind("pixel", pixel, "the image is near a picture, pixel by pixel", "mean squared error"),
    RewardKind("feature", feature, "the features of a network are near those of a picture",
               "Johnson et al. 2016, arXiv:1603.08155, eq. 2"),
    RewardKind("gram", gram, "the image has the style of a picture",
               "Gatys et al. 2016, arXiv:1508.06576, eq. 3-5"),
    RewardKind("class-log-probability", class_log_probability,
               "a classifier is sure of a class",
               "Dhariwal, Nichol 2021, arXiv:2105.05233, section 4"),
    RewardKind("class-surprisal", class_surprisal,
               "a classifier errs on a class",
               "Goodfellow et al. 2015, arXiv:1412.6572, section 4"),
    RewardKind("clip", clip, "the image fits a text", "Radford et al. 2021, arXiv:2103.00020"),
)
# fmt: on


def list_rewards() -> list[str]:
    """The name of every reward in the registry."""
    return [kind.name for kind in _TABLE]


def get_reward(name: str) -> RewardKind:
    """The row of this name, or one for a function ``package.module:name``.

    Case and ``_`` do not matter. Raises ValueError for an unknown name, with the nearest known one.
    """
    if ":" in name:
        return RewardKind(name, lambda _: own_reward(name), "a function of its own", name)
    table = {kind.name: kind for kind in _TABLE}
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    if plain in table:
        return table[plain]
    near = difflib.get_close_matches(plain, table, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"take one of {', '.join(table)}."
    raise ValueError(
        f"There is no reward named {name!r}; {hint} A function of your own is "
        "'package.module:name'."
    )


def build_reward(
    name: str, options: Mapping[str, Any] | None = None, place: Place | None = None
) -> Reward:
    """The reward of this name with these options, :func:`checked` at every call.

    Args:
        place: where it computes, float32 on the CPU if None; a function of the user computes where
            the images are.

    Raises ValueError for a name or option that is not known, for one that is missing or of a wrong
    type, and for what its builder refuses.
    """
    kind = get_reward(name)
    chosen = chosen_options(f"The reward {kind.name!r}", kind.options, options or {})
    return checked(kind.build(place or Place(), **chosen), kind.name)
