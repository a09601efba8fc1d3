"""Clips of waves instead of flows, and random networks of a few thousand weights for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import transformers

from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.data.clip import Clip
from text2pde.diffusion.text_encoder import TextEncoder
from text2pde.diffusion.transformer import FlowTransformer
from text2pde.mesh import Mesh
from text2pde.pipeline import Text2PDEPipeline
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.subject import SUBJECTS
from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.training import training_scheduler

COARSE = MeshSizes(near=0.4, far=0.08)
FRAMES = 8
INTERVAL = 0.2
STROUHAL = 0.3
TEXT_WIDTH = 32


@cache
def mesh(x: float = 0.3) -> Mesh:
    return triangulate(Channel(x=x, y=0.2, radius=0.05), COARSE)


def waves(
    x: float = 0.3,
    frames: int = FRAMES,
    speed: float = 1.2,
    height: float = 0.5,
    strouhal: float = STROUHAL,
) -> Clip:
    """Velocities that rise and fall at each node with the Strouhal number, and rest on walls."""
    of, flow = mesh(x), CylinderFlow(Channel(x=x, y=0.2, radius=0.05), speed)
    rate = flow.speed / flow.channel.diameter
    times = INTERVAL / rate * np.arange(frames, dtype=np.float64)
    phase = 2 * np.pi * (strouhal * rate * times[:, None] - of.nodes[None, :, 0] / 0.4)
    fields = np.stack([1 + np.cos(phase), height * np.sin(phase), np.sin(phase)], axis=2)
    fields[:, of.kinds >= 3, :2] = 0
    return Clip(flow, of, times, (fields * [speed, speed, speed**2]).astype(np.float32))


def autoencoder() -> MeshAutoencoder:
    torch.manual_seed(0)
    return MeshAutoencoder(channels=8, latent=4, columns=32, rows=8).eval()


def transformer() -> FlowTransformer:
    """With weights that are all random, those that are zero at first among them."""
    torch.manual_seed(1)
    network = FlowTransformer(
        SUBJECTS["cylinder"].ranges,
        width=24,
        depth=2,
        heads=2,
        channels=4,
        patch=(1, 1, 2),
        text_width=TEXT_WIDTH,
    )
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


def write_text_encoder(folder: Path) -> str:
    """A random encoder of the words that captions are made of; returns where it is."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    words = folder / "vocabulary.txt"
    folder.mkdir(parents=True, exist_ok=True)
    words.write_text("\n".join(tokens))
    transformers.BertTokenizer(str(words)).save_pretrained(folder)
    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def pipeline(text_encoder: str) -> Text2PDEPipeline:
    revision = TextEncoder.from_pretrained(text_encoder).revision
    return Text2PDEPipeline(
        autoencoder(),
        transformer(),
        training_scheduler(),
        FRAMES,
        INTERVAL,
        text_encoder=text_encoder,
        text_revision=revision,
    )
