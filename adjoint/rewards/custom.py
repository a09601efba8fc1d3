"""A custom function as a reward."""

from __future__ import annotations

import inspect

from adjoint.rewards.networks import load_function
from adjoint.rewards.reward import Reward, of_images


def custom_reward(name: str) -> Reward:
    """The function ``package.module:name``, of the images, or of the images and their condition."""
    function = load_function(name)
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > 1:
        reward: Reward = function
        return reward
    return of_images(function)
