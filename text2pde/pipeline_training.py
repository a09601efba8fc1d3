"""The training of a transformer, from a file of latents to a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from samplers import SamplerScheduler
from samplers.diffusers.loop import settings_of
from samplers.files import replacing
from samplers.training import TrainingConfig, claim_folder, train
from text2pde.autoencoder.latents import Latents, Scales, load_latents
from text2pde.autoencoder.learning import CaseIndices
from text2pde.autoencoder.model import MeshAutoencoder, load_autoencoder
from text2pde.diffusion.learning import DROPOUT, ConditionDropout, Material, flow_loss
from text2pde.diffusion.presets import Size
from text2pde.diffusion.transformer import FlowTransformer
from text2pde.digests import digest
from text2pde.pipeline import Text2PDEPipeline
from text2pde.scene import Scene
from text2pde.subjects import SUBJECTS, subject_of
from text2pde.text import TextEncoder, encoded_once

CAPTIONS = 8
"""Of each clip, in other words."""


def scheduler() -> SamplerScheduler:
    """The schedule that is trained: cosine, down to noise without any signal."""
    found: SamplerScheduler = SamplerScheduler(
        sampler="dpmpp-2m",
        prediction_type="v_prediction",
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    return found


def train_diffusion(
    latents_path: Path,
    autoencoder_path: Path,
    output: Path,
    start: Size | Text2PDEPipeline,
    config: TrainingConfig,
    *,
    encoder: str | None = None,
    dropout: ConditionDropout = DROPOUT,
    time_shift: float = 1.0,
) -> Path:
    """Train on a file of latents, or go on; returns where the pipeline was written.

    Args:
        start: of what size a new transformer is, or the pipeline whose transformer is trained
            further.
        encoder: of sentences; that of the pipeline, or the default, if None.
        time_shift: how far training times are moved towards the noise, where it is decided how a
            flow moves as a whole.

    Raises ValueError for latents that the autoencoder does not have, a pipeline that does not
    know such latents or sentences, and for settings that are impossible or differ from those of
    the run that is there.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    latents, autoencoder = load_latents(latents_path), load_autoencoder(autoencoder_path)
    _check(latents, autoencoder)
    if encoder is None and isinstance(start, Text2PDEPipeline):
        encoder = start.config.text_encoder
    texts = TextEncoder.from_pretrained(encoder)
    torch.manual_seed(config.seed)
    network, begun = _begun(start, latents, texts)
    if state.is_main_process:
        own = {"latents": _digest(latents), "text_encoder": texts.revision}
        how = {"dropout": asdict(dropout), "time_shift": time_shift}
        claim_folder(output, {**begun, **own, **how})
    if isinstance(start, Text2PDEPipeline):  # whose network knows its own scales
        latents = latents.rescaled(Scales(*(each.cpu().clone() for each in start.scales)))
    network.latent_mean.copy_(latents.scales.mean)
    network.latent_std.copy_(latents.scales.std)
    noise = scheduler()
    with state.main_process_first(), torch.no_grad():
        encoded = encoded_once(texts, captions(latents.flows), output)
    numbers = torch.tensor([network.scaled(flow) for flow in latents.flows])
    material = Material(latents, encoded, numbers)
    average = train(
        network,
        CaseIndices(len(latents.values)),
        flow_loss(material, settings_of(noise.config).schedule, dropout, time_shift),
        config,
        output,
    )
    assert isinstance(average, FlowTransformer)  # as it was given
    pipeline = Text2PDEPipeline(
        autoencoder,
        average,
        noise,
        latents.values.shape[2] * 2**autoencoder.config.halvings,
        latents.interval,
        subject_of(latents.flows[0]),
        texts.name,
        texts.revision,
    )
    path = output / "pipeline"
    if state.is_main_process:
        with replacing(path) as part:
            pipeline.save_pretrained(part)
    return path


def captions(flows: Sequence[Scene]) -> list[str]:
    """Several captions of each flow, one flow after the other."""
    return [
        SUBJECTS[subject_of(flow)].caption(flow, CAPTIONS * number + words)
        for number, flow in enumerate(flows)
        for words in range(CAPTIONS)
    ]


def _begun(
    start: Size | Text2PDEPipeline, latents: Latents, texts: TextEncoder
) -> tuple[FlowTransformer, dict[str, Any]]:
    """The network before training, and how its run is known."""
    if isinstance(start, Text2PDEPipeline):
        _check_start(start, latents, texts)
        return start.transformer, {"start": digest(start.transformer.state_dict())[:16]}
    network = FlowTransformer(
        SUBJECTS[subject_of(latents.flows[0])].ranges,
        **start._asdict(),
        channels=latents.values.shape[1],
        text_width=texts.width,
    )
    return network, start._asdict()


def _check_start(pipe: Text2PDEPipeline, latents: Latents, texts: TextEncoder) -> None:
    subject = subject_of(latents.flows[0])
    if pipe.config.subject != subject:
        raise ValueError(
            f"The model to go on from draws {pipe.config.subject}, and the latents are of "
            f"{subject}; they must agree."
        )
    if latents.encoder != digest(pipe.autoencoder.state_dict()):
        raise ValueError(
            "The model to go on from has another autoencoder than the latents; encode the clips "
            "by its own."
        )
    if texts.revision != pipe.config.text_revision:
        own = pipe.config.text_encoder or "that of the extra text"
        raise ValueError(
            f"The text encoder is {texts.name or 'that of the extra text'}, and the model to go on "
            f"from was trained with another one; leave it out, for {own}."
        )


def _check(latents: Latents, autoencoder: MeshAutoencoder) -> None:
    if latents.encoder != digest(autoencoder.state_dict()):
        raise ValueError("The latents are of another autoencoder; encode the clips by this one.")


def _digest(latents: Latents) -> str:
    """Of all that is learned from."""
    tensors = {"values": latents.values, "frame": latents.frame, "clip": latents.clip}
    return digest({**tensors, **latents.scales._asdict()})[:16]
