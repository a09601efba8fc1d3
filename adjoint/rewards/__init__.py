"""Rewards: what a finished image is worth, as numbers that gradients pass through.

Here live the metrics, one file a family, their table, and what is read from disk for them. What is
done with a gradient stands beside this folder: no sampler, no schedule and no optimiser in here.
"""

from adjoint.rewards.registry import RewardKind, build_reward, get_reward, list_rewards
from adjoint.rewards.reward import Place, Reward, checked

__all__ = [
    "Place",
    "Reward",
    "RewardKind",
    "build_reward",
    "checked",
    "get_reward",
    "list_rewards",
]
