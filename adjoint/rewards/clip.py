"""How well an image fits a text."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from adjoint.rewards.pretrained import Pretrained, load_pretrained, load_tokenizer
from adjoint.rewards.reward import Place, Reward


def clip(place: Place, folder: str, text: str) -> Reward:
    r"""The cosine between the embeddings of an image, I(x), and of a text, T.

    .. math:: r(x) = \frac{I(x) \cdot T}{|I(x)| \, |T|}

    (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    folder: a model of images and texts that transformers saved, such as CLIP or SigLIP, with its
        tokenizer and its image processor.
    text: what the image should show.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no model at {folder!r}: no such folder.")
    network = load_pretrained("AutoModelForZeroShotImageClassification", Path(folder), place)
    wanted = _embedding(network, text)

    def reward(images: Tensor) -> Tensor:
        x = network.prepare(place.put(images))
        found = network.model.get_image_features(pixel_values=x).pooler_output
        return F.cosine_similarity(found, wanted, dim=1)

    return reward


def _embedding(network: Pretrained, text: str) -> Tensor:
    """T of the text, [1, D]; ValueError if it is longer than the model reads."""
    tokenizer = load_tokenizer(network.folder)
    positions = network.model.config.get_text_config().max_position_embeddings
    limit = min(tokenizer.model_max_length, positions)
    # SigLIP was trained on texts filled up to the longest; CLIP looks at no token after the last.
    tokens = tokenizer([text], padding="max_length", max_length=limit, return_tensors="pt")
    length = tokens["input_ids"].shape[1]
    if length > limit:
        raise ValueError(f"The text has {length} tokens, but the model reads {limit}; shorten it.")
    tokens = tokens.to(network.model.device)
    embedding: Tensor = network.model.get_text_features(**tokens).pooler_output
    return embedding
