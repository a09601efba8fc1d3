"""The registry: a literal table of rewards, their options and sources.

To add a reward, write one function in a file of its family and one row here; the tests find it. A
custom function ``package.module:name`` is a reward as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from adjoint.options import did_you_mean, options_of, validated
from adjoint.rewards.classes import class_log_probability, class_surprisal
from adjoint.rewards.clip import clip_reward
from adjoint.rewards.custom import custom_reward
from adjoint.rewards.features import feature_reward, gram_reward
from adjoint.rewards.pixel import pixel_reward
from adjoint.rewards.reward import Placement, Reward, checked_reward


@dataclass(frozen=True)
class RewardKind:
    """A row of the registry.

    Attributes:
        name: as written by users.
        build: ``build(placement, **options)`` with typed options -> the reward.
        description: one line that completes "the reward is high if ...".
        reference: paper and equation.
    """

    name: str
    build: Callable[..., Reward]
    description: str
    reference: str

    @property
    def options(self) -> dict[str, FieldInfo]:
        """The options by name, as pydantic describes them."""
        return options_of(self.build, skip=1)

    def validated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, converted to their types; ValueError if one is unknown, missing or wrong."""
        return validated(f"The reward {self.name!r}", self.build, options, skip=1)


# fmt: off
_TABLE: tuple[RewardKind, ...] = (
    RewardKind("pixel", pixel_reward,
               "the image is near a target image, pixel by pixel",
               "mean squared error"),
    RewardKind("feature", feature_reward,
               "network features of the image are near those of a target image",
               "Johnson et al. 2016, arXiv:1603.08155, eq. 2"),
    RewardKind("gram", gram_reward,
               "the image has the style of a target image",
               "Gatys et al. 2016, arXiv:1508.06576, eq. 3-5"),
    RewardKind("class-log-probability", class_log_probability,
               "a classifier is certain of a class",
               "Dhariwal, Nichol 2021, arXiv:2105.05233, section 4"),
    RewardKind("class-surprisal", class_surprisal,
               "a classifier misclassifies a class",
               "Goodfellow et al. 2015, arXiv:1412.6572, section 4"),
    RewardKind("clip", clip_reward,
               "the image matches a text",
               "Radford et al. 2021, arXiv:2103.00020"),
)
# fmt: on


def list_rewards() -> list[str]:
    """The name of every reward in the registry."""
    return [kind.name for kind in _TABLE]


def get_reward(name: str) -> RewardKind:
    """The row of this name, or one for a custom function ``package.module:name``.

    Case and ``_`` do not matter. Raises ValueError for an unknown name, with a suggestion.
    """
    if ":" in name:
        return RewardKind(name, lambda _: custom_reward(name), "a custom function says so", name)
    table = {kind.name: kind for kind in _TABLE}
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    if plain in table:
        return table[plain]
    hint = did_you_mean(plain, table, f"take one of {', '.join(table)}.", cutoff=0.4)
    raise ValueError(
        f"There is no reward named {name!r}; {hint} A custom function is 'package.module:name'."
    )


def build_reward(
    name: str, options: Mapping[str, Any] | None = None, placement: Placement | None = None
) -> Reward:
    """The reward of this name with these options, as a :func:`checked_reward`.

    Args:
        name: of :func:`list_rewards`, or ``package.module:name``.
        options: by name; see :attr:`RewardKind.options`.
        placement: where it computes, float32 on the CPU if None; a custom function computes where
            the images are.

    Raises ValueError for a name or option that is unknown, for an option that is missing or of a
    wrong type, and for what the reward itself refuses, such as a missing file.
    """
    kind = get_reward(name)
    chosen = kind.validated(options or {})
    return checked_reward(kind.build(placement or Placement(), **chosen), kind.name)
