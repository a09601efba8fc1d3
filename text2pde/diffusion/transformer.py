"""The network: a diffusion transformer over latents in space and time.

Its blocks are those of DiT (Peebles and Xie 2022, https://arxiv.org/abs/2212.09748) with
adaLN-Zero, and with attention to the tokens of a sentence between the two usual parts, as in
Text2PDE (Zhou et al. 2024, https://arxiv.org/abs/2410.01153).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange, repeat
from torch import Tensor, nn

from text2pde.diffusion.conditions import Conditions
from text2pde.scene import Scene

_OCTAVES = 4


class FlowTransformer(ModelMixin, ConfigMixin):
    """``network(x, t, conditions)``, for latents x [B, Z, F, rows, columns] and times t [B].

    Args:
        ranges: from where to where the numbers of a scene go in training, by their names.
        channels: Z of the latents. patch: how many frames, rows and columns make a token.
        text_width: of the states of a sentence.

    The buffers ``latent_mean`` and ``latent_std`` are of the latents before they are standardised.

    Any number of frames, rows and columns that the patch divides will do.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        ranges: Mapping[str, Sequence[float]],
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
        channels: int = 8,
        patch: Sequence[int] = (1, 2, 2),
        text_width: int = 384,
    ) -> None:
        super().__init__()
        if width < 12:
            raise ValueError(f"A width of {width} is too small to tell places; take 12 at least.")
        if width % heads:
            raise ValueError(f"A width of {width} can't be shared by {heads} heads.")
        a, b, c = size = tuple(patch)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.cut = nn.Conv3d(2 * channels + 1, width, (a, b, c), stride=(a, b, c))
        self.tell_time = _perceptron(width, width, width)
        self.tell_numbers = _perceptron(len(ranges) * (2 * _OCTAVES + 1), width, width)
        self.unstated = nn.Parameter(torch.zeros(width))
        self.tell_text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.silence = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.last = Modulation(width, 2)
        self.project = nn.Linear(width, channels * math.prod(size))
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    latent_mean: Tensor
    latent_std: Tensor

    def forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """What it predicts, like x.

        Raises ValueError for a latent that the patch does not divide.
        """
        told = conditions.to(x)
        tokens, grid = self._tokens(x, told)
        context, spoken = self._context(told)
        known = self._time(t, x) + self._numbers(told) + _mean(context, spoken)
        for block in self.blocks:
            tokens = block(tokens, known, context, spoken)
        shift, scale = self.last(known)
        return self._latent(self.project(_modulated(tokens, shift, scale)), grid)

    def scaled(self, scene: Scene) -> list[float]:
        """The numbers of a scene as the network is told them, from -1 to 1, in the order of their
        names.

        Raises ValueError for a scene of another subject, and for numbers that it was not trained
        with.
        """
        numbers, ranges = scene.numbers, self.config.ranges
        if set(numbers) != set(ranges):
            raise ValueError(f"This model knows {', '.join(ranges)}; it can't draw {scene}.")
        # A config that was saved has lost the order of its keys.
        return [_scaled(name, numbers[name], *ranges[name]) for name in sorted(ranges)]

    def _tokens(self, x: Tensor, told: Conditions) -> tuple[Tensor, torch.Size]:
        """The patches, each with where it lies [B, tokens, width], and their grid."""
        self._check(x)
        shown = told.shown.to(x)[:, None, None, None, None]
        frame = (told.frame[:, :, None] * shown).expand_as(x)
        flag = shown.expand(-1, 1, *x.shape[2:])
        patches = self.cut(torch.cat([x, frame, flag], dim=1))
        grid = patches.shape[2:]
        return rearrange(patches, "b c f h w -> b (f h w) c") + _places(grid, patches), grid

    def _latent(self, values: Tensor, grid: torch.Size) -> Tensor:
        """The inverse of cutting: [B, tokens, Z * patch] as [B, Z, F, rows, columns]."""
        sizes = dict(zip("fhwabc", (*grid, *self.config.patch), strict=True))
        return rearrange(values, "n (f h w) (z a b c) -> n z (f a) (h b) (w c)", **sizes)

    def _context(self, told: Conditions) -> tuple[Tensor, Tensor]:
        """The tokens of a sentence, after one that is always there, and which are spoken."""
        states = self.tell_text(told.states)
        first = self.silence.to(states).expand(len(states), 1, -1)
        always = torch.ones_like(told.spoken[:, :1])
        return torch.cat([first, states], dim=1), torch.cat([always, told.spoken], dim=1)

    def _time(self, t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = self.tell_time(get_timestep_embedding(t, self.config.width).to(x))
        return found

    def _numbers(self, told: Conditions) -> Tensor:
        angles = told.numbers[..., None] * (math.pi / 2 * 2.0 ** torch.arange(_OCTAVES)).to(
            told.numbers
        )
        waves = torch.cat([told.numbers[..., None], angles.sin(), angles.cos()], dim=2)
        return torch.where(told.stated[:, None], self.tell_numbers(waves.flatten(1)), self.unstated)

    def _check(self, x: Tensor) -> None:
        channels, patch = self.config.channels, tuple(self.config.patch)
        if x.ndim != 5 or x.shape[1] != channels:
            raise ValueError(
                f"The latent has shape {list(x.shape)}; it must be [B, {channels}, frames, rows, "
                "columns]."
            )
        if any(size % part for size, part in zip(x.shape[2:], patch, strict=True)):
            raise ValueError(
                f"A latent of {list(x.shape[2:])} frames, rows and columns can't be cut into "
                f"patches of {list(patch)}."
            )


class Attention(nn.Module):
    """Of tokens to others, by several heads; what is to be added begins at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.answer = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor, spoken: Tensor | None = None) -> Tensor:
        """x: [B, T, width]; others: [B, L, width]; spoken: which of them may be read [B, L]."""
        query = self._split(self.ask(x))
        key, value = map(self._split, self.answer(others).chunk(2, dim=-1))
        mask = None if spoken is None else spoken[:, None, None]
        found = F.scaled_dot_product_attention(query, key, value, mask)
        added: Tensor = self.out(rearrange(found, "b heads t w -> b t (heads w)"))
        return added

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (heads w) -> b heads t w", heads=self.heads)


class Modulation(nn.Module):
    """Numbers that a block is shifted, scaled and gated by; all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, known: Tensor) -> tuple[Tensor, ...]:
        """known: [B, width]; returns [B, 1, width] each."""
        every: Tensor = self.linear(F.silu(known))[:, None]
        return every.chunk(self.parts, dim=-1)


class Block(nn.Module):
    """Tokens attend to each other, read the sentence, and think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 6)
        self.attend = Attention(width, heads)
        self.read = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.think = _perceptron(width, 4 * width, width)
        nn.init.zeros_(self.read.out.weight)
        nn.init.zeros_(self.read.out.bias)

    def forward(self, x: Tensor, known: Tensor, context: Tensor, spoken: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(known)
        own = _modulated(x, shift, scale)
        x = x + gate * self.attend(own, own)
        x = x + self.read(self.norm(x), context, spoken)
        thought: Tensor = x + gate_2 * self.think(_modulated(x, shift_2, scale_2))
        return thought


def _scaled(name: str, value: float, low: float, high: float) -> float:
    room = 1e-6 * (high - low)
    if not low - room <= value <= high + room:
        raise ValueError(
            f"The {name} is {value:.4g}; this model was trained from {low:g} to {high:g}."
        )
    return 2 * (value - low) / (high - low) - 1


def _perceptron(before: int, hidden: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, hidden), nn.GELU("tanh"), nn.Linear(hidden, after))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _mean(context: Tensor, spoken: Tensor) -> Tensor:
    share = spoken.to(context)[..., None]
    return (context * share).sum(dim=1) / share.sum(dim=1)


def _places(grid: torch.Size, like: Tensor) -> Tensor:
    """Waves along each axis for each place of a grid, [places, width]."""
    width = like.shape[1]
    each = width // 6 * 2
    f, h, w = grid

    def waves(size: int) -> Tensor:
        places = torch.arange(size, dtype=torch.float32)
        found: Tensor = get_timestep_embedding(places, each, max_period=100)
        return found

    axes = [
        repeat(waves(f), "f c -> (f h w) c", h=h, w=w),
        repeat(waves(h), "h c -> (f h w) c", f=f, w=w),
        repeat(waves(w), "w c -> (f h w) c", f=f, h=h),
    ]
    padded: Tensor = F.pad(torch.cat(axes, dim=-1), (0, width - 3 * each))
    return padded.to(like)
