"""The training of a diffusion transformer, from a file of latents to a pipeline."""

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
from text2pde.autoencoder.latents import Latents, LatentScales, load_latents
from text2pde.autoencoder.model import MeshAutoencoder, load_autoencoder
from text2pde.autoencoder.objective import Indices
from text2pde.data.digests import digest
from text2pde.diffusion.objective import DROPOUT, ConditionDropout, TrainingData, latent_loss
from text2pde.diffusion.text_encoder import TextEncoder, encode_cached
from text2pde.diffusion.transformer import FlowTransformer, Size
from text2pde.pipeline import Text2PDEPipeline
from text2pde.subject import SUBJECTS, Scene, caption, subject_of

CAPTIONS = 8
"""Of each clip, in different words."""


def training_scheduler() -> SamplerScheduler:
    """The schedule of training: cosine, with zero terminal signal-to-noise ratio."""
    found: SamplerScheduler = SamplerScheduler(
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
    overwrite: bool = False,
) -> Path:
    """Train a transformer on a file of latents, or resume.

    Args:
        output: the folder of the run.
        start: the size of a new transformer, or the pipeline whose transformer is trained further.
        encoder: the name of the text encoder; that of the pipeline, or the default, if None.
        time_shift: above 1 trains more at high noise levels, which decide the amplitude of
            fluctuations.
        overwrite: whether to begin anew where the output holds files of another run.

    Returns:
        The folder of the pipeline.

    Raises:
        ValueError: for latents of another autoencoder, a pipeline of other latents or another text
            encoder, for settings that are impossible, and if the output holds files of another
            run.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    latents, autoencoder = load_latents(latents_path), load_autoencoder(autoencoder_path)
    _check_encoder(latents, autoencoder)
    if encoder is None and isinstance(start, Text2PDEPipeline):
        texts = TextEncoder.from_pretrained(start.config.text_encoder, local=True)
    else:
        texts = TextEncoder.from_pretrained(encoder)
    torch.manual_seed(config.seed)
    network, origin = _initial_network(start, latents, texts)
    own = {"latents": _digest(latents), "text_encoder": texts.revision}
    how = {"dropout": asdict(dropout), "time_shift": time_shift}
    if isinstance(start, Text2PDEPipeline):  # whose network was trained at its own scales
        latents = latents.rescaled(LatentScales(*(each.cpu().clone() for each in start.scales)))
    network.latent_mean.copy_(latents.scales.mean)
    network.latent_std.copy_(latents.scales.std)
    scheduler = training_scheduler()
    parameters = torch.tensor([network.scaled(scene) for scene in latents.scenes])
    settings, path = {**origin, **own, **how}, output / "pipeline"
    with claim_folder(output, settings, config, written=[path.name], overwrite=overwrite):
        with state.main_process_first(), torch.no_grad():
            encoded = encode_cached(texts, training_captions(latents.scenes), output)
        data = TrainingData(latents, encoded, parameters)
        average = train(
            network,
            Indices(len(latents.values)),
            latent_loss(settings_of(scheduler.config).denoiser(network), data, dropout, time_shift),
            config,
            output,
        )
    assert isinstance(average, FlowTransformer)  # as it was given
    pipeline = Text2PDEPipeline(
        autoencoder,
        average,
        scheduler,
        latents.values.shape[2] * 2**autoencoder.config.halvings,
        latents.interval,
        subject_of(latents.scenes[0]),
        texts.name,
        texts.revision,
    )
    if state.is_main_process:
        with replacing(path) as part:
            pipeline.save_pretrained(part)
    return path


def training_captions(scenes: Sequence[Scene]) -> list[str]:
    """Several captions of each scene, one scene after the other."""
    return [
        caption(scene, CAPTIONS * number + words)
        for number, scene in enumerate(scenes)
        for words in range(CAPTIONS)
    ]


def _initial_network(
    start: Size | Text2PDEPipeline, latents: Latents, texts: TextEncoder
) -> tuple[FlowTransformer, dict[str, Any]]:
    """The network before training, and the settings by which its run is recognised."""
    if isinstance(start, Text2PDEPipeline):
        _check_start(start, latents, texts)
        return start.transformer, {"start": digest(start.transformer.state_dict())[:16]}
    network = FlowTransformer(
        SUBJECTS[subject_of(latents.scenes[0])].ranges,
        **start._asdict(),
        channels=latents.values.shape[1],
        text_width=texts.width,
    )
    return network, start._asdict()


def _check_start(pipe: Text2PDEPipeline, latents: Latents, texts: TextEncoder) -> None:
    subject = subject_of(latents.scenes[0])
    if pipe.config.subject != subject:
        raise ValueError(
            f"The initial pipeline generates {pipe.config.subject}, and the latents are of "
            f"{subject}; they must agree."
        )
    if latents.encoder != digest(pipe.autoencoder.state_dict()):
        raise ValueError(
            "The initial pipeline has another autoencoder than the latents; encode the clips with "
            "the pipeline's."
        )
    if texts.revision != pipe.config.text_revision:
        own = pipe.config.text_encoder or "that of the extra text"
        raise ValueError(
            f"The text encoder is {texts.name or 'that of the extra text'}, and the initial "
            f"pipeline was trained with another one; omit it to use {own}."
        )


def _check_encoder(latents: Latents, autoencoder: MeshAutoencoder) -> None:
    if latents.encoder != digest(autoencoder.state_dict()):
        raise ValueError("The latents are of another autoencoder; encode the clips with this one.")


def _digest(latents: Latents) -> str:
    """Of all that is trained on."""
    tensors = {"values": latents.values, "frame": latents.frame, "clip": latents.clip}
    return digest({**tensors, **latents.scales._asdict()})[:16]
