"""Rewards: differentiable metrics of finished images, higher is better.

``build_reward(name, options)`` builds one of :func:`list_rewards`, or a custom function
``package.module:name``. A reward maps images [B, C, H, W] in [-1, 1], and what each was conditioned
on, to one number an image, [B].

Here live the metrics, one file a family, their registry, and what they load from disk. Samplers,
schedules and optimisers do not belong here.
"""

from adjoint.rewards.features import gram_matrix
from adjoint.rewards.registry import RewardKind, build_reward, get_reward, list_rewards
from adjoint.rewards.reward import Placement, Reward, checked_reward

__all__ = [
    "Placement",
    "Reward",
    "RewardKind",
    "build_reward",
    "checked_reward",
    "get_reward",
    "gram_matrix",
    "list_rewards",
]
