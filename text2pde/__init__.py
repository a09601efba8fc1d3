"""Solutions of partial differential equations from text, by latent diffusion on meshes.

The names below are the public interface; they are imported on first use (PEP 562), so that
``import text2pde`` is quick. The modules, each of which imports only those before it:

- ``mesh``: triangular meshes;
- ``subject``: what a model is about, as parameters, ranges and captions;
- ``data``: clips, files, statistics;
- ``solver``: the equations, and data sets of their solutions;
- ``autoencoder``: meshes to latents;
- ``diffusion``: the transformer over latents;
- ``pipeline`` and ``training``: both as one pipeline;
- ``evaluation``, ``figures``, ``export``: what comes out;
- ``cli``: the command ``text2pde``.

The pipeline's denoiser is an ordinary one, so that every sampler of :mod:`samplers` works on it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from text2pde.autoencoder.clips import read_clips
    from text2pde.autoencoder.latents import Latents, encode_clips, load_latents, save_latents
    from text2pde.autoencoder.model import MeshAutoencoder, load_autoencoder
    from text2pde.autoencoder.training import Architecture, AutoencoderData, train_autoencoder
    from text2pde.data.clip import Clip, clip_paths, load_clip, mirrored, save_clip
    from text2pde.data.mesh_files import read_mesh, write_mesh, write_vtk
    from text2pde.data.statistics import WakeStatistics, relative_error, vorticity, wake_statistics
    from text2pde.diffusion.conditions import Conditions
    from text2pde.diffusion.text_encoder import TextEncoder
    from text2pde.diffusion.transformer import PRESETS, FlowTransformer
    from text2pde.export import export_clip
    from text2pde.figures import figure_image, film, plot_clip, plot_clips
    from text2pde.mesh import Mesh, NodeKind
    from text2pde.pipeline import FlowOutput, Request, Text2PDEPipeline, load_text2pde
    from text2pde.solver.dataset import (
        Workers,
        cylinder_simulator,
        simulate_dataset,
        smoke_simulator,
    )
    from text2pde.solver.meshing import MeshSizes, mesh_of, triangulate
    from text2pde.solver.navier_stokes import DivergedError
    from text2pde.solver.simulation import (
        Recording,
        SmokeRecording,
        continued,
        simulate,
        simulate_smoke,
    )
    from text2pde.subject.cylinder.channel import Channel, CylinderFlow
    from text2pde.subject.cylinder.family import CylinderFamily, sample_flows, sample_held_out_flows
    from text2pde.subject.registry import caption, read_prompt
    from text2pde.subject.smoke.family import SmokeFamily, sample_held_out_plumes, sample_plumes
    from text2pde.subject.smoke.plume import Plume
    from text2pde.training import train_diffusion

_HOMES = {
    "PRESETS": "text2pde.diffusion.transformer",
    "Architecture": "text2pde.autoencoder.training",
    "AutoencoderData": "text2pde.autoencoder.training",
    "Channel": "text2pde.subject.cylinder.channel",
    "Clip": "text2pde.data.clip",
    "Conditions": "text2pde.diffusion.conditions",
    "CylinderFamily": "text2pde.subject.cylinder.family",
    "CylinderFlow": "text2pde.subject.cylinder.channel",
    "DivergedError": "text2pde.solver.navier_stokes",
    "FlowOutput": "text2pde.pipeline",
    "FlowTransformer": "text2pde.diffusion.transformer",
    "Latents": "text2pde.autoencoder.latents",
    "Mesh": "text2pde.mesh",
    "MeshAutoencoder": "text2pde.autoencoder.model",
    "MeshSizes": "text2pde.solver.meshing",
    "NodeKind": "text2pde.mesh",
    "Plume": "text2pde.subject.smoke.plume",
    "Recording": "text2pde.solver.simulation",
    "Request": "text2pde.pipeline",
    "SmokeFamily": "text2pde.subject.smoke.family",
    "SmokeRecording": "text2pde.solver.simulation",
    "Text2PDEPipeline": "text2pde.pipeline",
    "TextEncoder": "text2pde.diffusion.text_encoder",
    "WakeStatistics": "text2pde.data.statistics",
    "Workers": "text2pde.solver.dataset",
    "caption": "text2pde.subject.registry",
    "clip_paths": "text2pde.data.clip",
    "continued": "text2pde.solver.simulation",
    "cylinder_simulator": "text2pde.solver.dataset",
    "encode_clips": "text2pde.autoencoder.latents",
    "export_clip": "text2pde.export",
    "figure_image": "text2pde.figures",
    "film": "text2pde.figures",
    "load_autoencoder": "text2pde.autoencoder.model",
    "load_clip": "text2pde.data.clip",
    "load_latents": "text2pde.autoencoder.latents",
    "load_text2pde": "text2pde.pipeline",
    "mesh_of": "text2pde.solver.meshing",
    "mirrored": "text2pde.data.clip",
    "plot_clip": "text2pde.figures",
    "plot_clips": "text2pde.figures",
    "read_clips": "text2pde.autoencoder.clips",
    "read_mesh": "text2pde.data.mesh_files",
    "read_prompt": "text2pde.subject.registry",
    "relative_error": "text2pde.data.statistics",
    "sample_flows": "text2pde.subject.cylinder.family",
    "sample_held_out_flows": "text2pde.subject.cylinder.family",
    "sample_held_out_plumes": "text2pde.subject.smoke.family",
    "sample_plumes": "text2pde.subject.smoke.family",
    "save_clip": "text2pde.data.clip",
    "save_latents": "text2pde.autoencoder.latents",
    "simulate": "text2pde.solver.simulation",
    "simulate_dataset": "text2pde.solver.dataset",
    "simulate_smoke": "text2pde.solver.simulation",
    "smoke_simulator": "text2pde.solver.dataset",
    "train_autoencoder": "text2pde.autoencoder.training",
    "train_diffusion": "text2pde.training",
    "triangulate": "text2pde.solver.meshing",
    "vorticity": "text2pde.data.statistics",
    "wake_statistics": "text2pde.data.statistics",
    "write_mesh": "text2pde.data.mesh_files",
    "write_vtk": "text2pde.data.mesh_files",
}

__all__ = [
    "PRESETS",
    "Architecture",
    "AutoencoderData",
    "Channel",
    "Clip",
    "Conditions",
    "CylinderFamily",
    "CylinderFlow",
    "DivergedError",
    "FlowOutput",
    "FlowTransformer",
    "Latents",
    "Mesh",
    "MeshAutoencoder",
    "MeshSizes",
    "NodeKind",
    "Plume",
    "Recording",
    "Request",
    "SmokeFamily",
    "SmokeRecording",
    "Text2PDEPipeline",
    "TextEncoder",
    "WakeStatistics",
    "Workers",
    "caption",
    "clip_paths",
    "continued",
    "cylinder_simulator",
    "encode_clips",
    "export_clip",
    "figure_image",
    "film",
    "load_autoencoder",
    "load_clip",
    "load_latents",
    "load_text2pde",
    "mesh_of",
    "mirrored",
    "plot_clip",
    "plot_clips",
    "read_clips",
    "read_mesh",
    "read_prompt",
    "relative_error",
    "sample_flows",
    "sample_held_out_flows",
    "sample_held_out_plumes",
    "sample_plumes",
    "save_clip",
    "save_latents",
    "simulate",
    "simulate_dataset",
    "simulate_smoke",
    "smoke_simulator",
    "train_autoencoder",
    "train_diffusion",
    "triangulate",
    "vorticity",
    "wake_statistics",
    "write_mesh",
    "write_vtk",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
