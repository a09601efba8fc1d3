"""Loading components by diffusers, without its log messages, and with errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from samplers.checkpoint.base import LoadOptions
from samplers.checkpoint.folder import Folder, is_pickle
from samplers.checkpoint.index import CheckpointError
from samplers.diffusers.deferred import import_diffusers
from samplers.errors import is_of_memory


@contextmanager
def load_errors(path: Path) -> Iterator[None]:
    """Raise a CheckpointError for any exception of diffusers in loading a folder.

    Its constructors compute with the values of a config as they come, and raise what comes of it.
    """
    logging = import_diffusers().logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} can't be loaded: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """The first line of what an exception says; of memory, that there is not enough."""
    if is_of_memory(error):
        return "it needs more memory than there is"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def dtype_argument() -> str:
    """The name of the precision in ``from_pretrained`` of the diffusers that is installed."""
    major, minor = (int(part) for part in import_diffusers().__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (0, 40) else "torch_dtype"


def load_component(folder: Folder, component: str, options: LoadOptions) -> nn.Module:
    """Load a model of a checkpoint with its weights, in evaluation mode and frozen."""
    path = folder.path / component
    pickled = any(is_pickle(file) for file in folder.files_of(component))
    with load_errors(path):
        model, report = getattr(
            import_diffusers(), str(folder.class_of(component))
        ).from_pretrained(
            path,
            **{dtype_argument(): options.dtype},
            use_safetensors=not pickled,
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise CheckpointError(
            f"{path} lacks {len(report['missing_keys'])} of the network's weights, "
            f"{report['missing_keys'][0]!r} among them."
        )
    # `ModelMixin.to` of diffusers imports the compiler to look for offloaded weights.
    loaded: nn.Module = nn.Module.to(model, options.device)
    return loaded.eval().requires_grad_(False)
