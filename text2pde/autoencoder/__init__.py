"""The mesh autoencoder: fields on any mesh to a latent of fixed size, and back to any mesh.

Here live the grid of latent points (``grid``), meshes as batches of graphs (``batch``), the model
(``model``), clips as it takes them (``clips``), its loss and errors (``objective``), its training
(``training``), and data sets of latents (``latents``). Nothing here knows diffusion, equations or
captions.
"""

from text2pde.autoencoder.batch import MeshBatch, join_batches, prepare_mesh
from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.model import MeshAutoencoder, Posterior

__all__ = [
    "LatentGrid",
    "MeshAutoencoder",
    "MeshBatch",
    "Posterior",
    "join_batches",
    "prepare_mesh",
]
