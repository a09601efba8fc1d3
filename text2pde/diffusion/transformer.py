"""The network: a diffusion transformer over latents in space and time.

Its blocks are those of DiT (Peebles and Xie 2022, https://arxiv.org/abs/2212.09748) with
adaLN-Zero, with cross-attention to the prompt's tokens after self-attention, as in Text2PDE (Zhou
et al. 2024, https://arxiv.org/abs/2410.01153).

Saved pipelines name this module, and their weights its attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange, repeat
from torch import Tensor, nn

from samplers.files import checked
from text2pde.diffusion.conditions import Conditions
from text2pde.subject import Scene

_OCTAVES = 4


class Size(NamedTuple):
    """Of a transformer."""

    width: int
    depth: int
    heads: int


PRESETS = {
    "tiny": Size(192, 6, 6),
    "base": Size(384, 12, 6),
    "small": Size(512, 24, 16),
    "medium": Size(1024, 28, 16),
    "large": Size(2304, 28, 32),
}
"""From what two CPU cores train to the three sizes of the paper."""


class FlowTransformer(ModelMixin, ConfigMixin):
    """``network(x, t, **conditions)``, for latents x [B, Z, F, rows, columns] and times t [B].

    Args:
        ranges: of the scene's parameters in training, by name.
        channels: Z of the latents.
        patch: frames, rows and columns of a token.
        text_width: D of the text encoder's states.

    The buffers ``latent_mean`` and ``latent_std`` are those by which latents are standardised.

    It takes any number of frames, rows and columns that the patch divides.
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
        _check_ranges(ranges)
        if width < 12:
            raise ValueError(
                f"A width of {width} is too small for the positional encoding; take at least 12."
            )
        if width % heads:
            raise ValueError(f"A width of {width} can't be divided among {heads} heads.")
        a, b, c = size = tuple(patch)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.cut = nn.Conv3d(2 * channels + 1, width, (a, b, c), stride=(a, b, c))
        self.tell_time = _perceptron(width, width, width)
        self.tell_numbers = _perceptron(len(ranges) * (2 * _OCTAVES + 1), width, width)
        self.unstated = nn.Parameter(torch.zeros(width))
        self.tell_text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.silence = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.last = Modulation(width, 2)
        self.project = nn.Linear(width, channels * math.prod(size))
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    latent_mean: Tensor
    latent_std: Tensor

    def forward(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        """The prediction, of the shape and dtype of x, computed in the dtype of the weights.

        Args:
            conditions: the fields of :class:`~text2pde.diffusion.conditions.Conditions`.

        Raises:
            ValueError: for a latent that the patch does not divide.
        """
        given = Conditions(**conditions).to(self.cut.weight)
        tokens, grid = self._tokens(x.to(self.cut.weight), given)
        context, mask = self._context(given)
        embedding = (
            self._embed_time(t, tokens) + self._embed_parameters(given) + _mean(context, mask)
        )
        for block in self.blocks:
            tokens = block(tokens, embedding, context, mask)
        shift, scale = self.last(embedding)
        return self._latent(self.project(_modulated(tokens, shift, scale)), grid).to(x)

    def scaled(self, scene: Scene) -> list[float]:
        """The parameters of a scene, scaled from their ranges to [-1, 1], sorted by name.

        Raises:
            ValueError: for a scene of another subject, and for parameters outside the ranges.
        """
        parameters, ranges = scene.parameters, self.config.ranges
        if set(parameters) != set(ranges):
            raise ValueError(
                f"This model is conditioned on {', '.join(ranges)}; it can't generate {scene}."
            )
        # A saved config has lost the order of its keys.
        return [_scaled(name, parameters[name], *ranges[name]) for name in sorted(ranges)]

    def _tokens(self, x: Tensor, given: Conditions) -> tuple[Tensor, torch.Size]:
        """The patches with their positional encoding [B, tokens, width], and their grid."""
        self._check(x)
        has_frame = given.has_frame.to(x)[:, None, None, None, None]
        frame = (given.frame[:, :, None] * has_frame).expand_as(x)
        flag = has_frame.expand(-1, 1, *x.shape[2:])
        patches = self.cut(torch.cat([x, frame, flag], dim=1))
        grid = patches.shape[2:]
        return rearrange(patches, "b c f h w -> b (f h w) c") + _positions(grid, patches), grid

    def _latent(self, values: Tensor, grid: torch.Size) -> Tensor:
        """The inverse of patching: [B, tokens, Z * patch] as [B, Z, F, rows, columns]."""
        sizes = dict(zip("fhwabc", (*grid, *self.config.patch), strict=True))
        return rearrange(values, "n (f h w) (z a b c) -> n z (f a) (h b) (w c)", **sizes)

    def _context(self, given: Conditions) -> tuple[Tensor, Tensor]:
        """The tokens of the prompt, after one that is always present, and their mask."""
        states = self.tell_text(given.text)
        first = self.silence.to(states).expand(len(states), 1, -1)
        present = torch.ones_like(given.text_mask[:, :1])
        return torch.cat([first, states], dim=1), torch.cat([present, given.text_mask], dim=1)

    def _embed_time(self, t: Tensor, like: Tensor) -> Tensor:
        found: Tensor = self.tell_time(get_timestep_embedding(t, self.config.width).to(like))
        return found

    def _embed_parameters(self, given: Conditions) -> Tensor:
        """By Fourier features, since encoders of text represent numbers poorly."""
        values = given.parameters[..., None]
        angles = values * (math.pi / 2 * 2.0 ** torch.arange(_OCTAVES)).to(values)
        features = torch.cat([values, angles.sin(), angles.cos()], dim=2)
        embedded = self.tell_numbers(features.flatten(1))
        return torch.where(given.has_parameters[:, None], embedded, self.unstated)

    def _check(self, x: Tensor) -> None:
        channels, patch = self.config.channels, tuple(self.config.patch)
        if x.ndim != 5 or x.shape[1] != channels:
            raise ValueError(
                f"The latent has shape {list(x.shape)}; it must be [B, {channels}, frames, rows, "
                "columns]."
            )
        if any(size % part for size, part in zip(x.shape[2:], patch, strict=True)):
            raise ValueError(
                f"A latent of {list(x.shape[2:])} frames, rows and columns can't be divided into "
                f"patches of {list(patch)}."
            )


class Attention(nn.Module):
    """Multi-head attention, to the tokens themselves or to others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.answer = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """From queries x [B, T, width] to others [B, L, width], where the mask [B, L] is True."""
        query = self._split(self.ask(x))
        key, value = map(self._split, self.answer(others).chunk(2, dim=-1))
        visible = None if mask is None else mask[:, None, None]
        found = F.scaled_dot_product_attention(query, key, value, visible)
        output: Tensor = self.out(rearrange(found, "b heads t w -> b t (heads w)"))
        return output

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (heads w) -> b heads t w", heads=self.heads)


class Modulation(nn.Module):
    """Shifts, scales and gates of a block (adaLN-Zero), which start at zero."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """From an embedding [B, width] to [B, 1, width] each."""
        every: Tensor = self.linear(F.silu(embedding))[:, None]
        return every.chunk(self.parts, dim=-1)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, and a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 6)
        self.attend = Attention(width, heads)
        self.read = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.think = _perceptron(width, 4 * width, width)
        nn.init.zeros_(self.read.out.weight)
        nn.init.zeros_(self.read.out.bias)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(embedding)
        own = _modulated(x, shift, scale)
        x = x + gate * self.attend(own, own)
        x = x + self.read(self.norm(x), context, mask)
        output: Tensor = x + gate_2 * self.think(_modulated(x, shift_2, scale_2))
        return output


def _check_ranges(ranges: Mapping[str, Sequence[float]]) -> None:
    """Raise ValueError for a range that is not two rising numbers, such as in a broken config."""
    for name, ends in checked(dict[str, list[float] | tuple[float, ...]], dict(ranges)).items():
        if len(ends) != 2 or not -math.inf < ends[0] < ends[1] < math.inf:
            raise ValueError(f"The range of {name} is {ends}; it must be two rising numbers.")


def _scaled(name: str, value: float, low: float, high: float) -> float:
    room = 1e-6 * (high - low)
    if not low - room <= value <= high + room:
        raise ValueError(
            f"The {name} is {value:.4g}; this model was trained from {low:g} to {high:g}, so take "
            "one in this range."
        )
    return 2 * (value - low) / (high - low) - 1


def _perceptron(before: int, hidden: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, hidden), nn.GELU("tanh"), nn.Linear(hidden, after))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _mean(context: Tensor, mask: Tensor) -> Tensor:
    """Over the tokens that are present."""
    share = mask.to(context)[..., None]
    return (context * share).sum(dim=1) / share.sum(dim=1)


def _positions(grid: torch.Size, like: Tensor) -> Tensor:
    """The sinusoidal positional encoding of a grid, a third of the channels for each axis."""
    width = like.shape[1]
    each = width // 6 * 2
    f, h, w = grid

    def waves(size: int) -> Tensor:
        positions = torch.arange(size, dtype=torch.float32)
        found: Tensor = get_timestep_embedding(positions, each, max_period=100)
        return found

    axes = [
        repeat(waves(f), "f c -> (f h w) c", h=h, w=w),
        repeat(waves(h), "h c -> (f h w) c", f=f, w=w),
        repeat(waves(w), "w c -> (f h w) c", f=f, h=h),
    ]
    padded: Tensor = F.pad(torch.cat(axes, dim=-1), (0, width - 3 * each))
    return padded.to(like)
