"""The autoencoder of flows on meshes: any nodes in, a latent of one size, any nodes out.

Here live the grid of latent points (``grid``), who is whose neighbour (``neighbours``), meshes as
batches (``batch``), the sum over neighbours (``kernel``), the model (``model``), clips as it takes
them (``clips``), what it learns (``learning``), its training (``run``), and latents on disk
(``latents``). Nothing here knows diffusion, equations or captions.
"""

from text2pde.autoencoder.batch import MeshBatch, join, prepare
from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.model import MeshAutoencoder, Posterior

__all__ = ["LatentGrid", "MeshAutoencoder", "MeshBatch", "Posterior", "join", "prepare"]
