"""How well an image fits a text."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adjoint.rewards.pretrained import Pretrained, load_pretrained, load_tokenizer
from adjoint.rewards.reward import Place, Reward


def clip(place: Place, folder: str, text: str | list[str]) -> Reward:
    r"""The cosine between the embeddings of an image, I(x), and of a text, T.

    .. math:: r(x) = \frac{I(x) \cdot T}{|I(x)| \, |T|}

    (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    Args:
        folder: a model of images and texts that transformers saved, such as CLIP or SigLIP, with
            its tokenizer and its image processor.
        text: what the image should show; of a list, the one that was asked for.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no model at {folder!r}: no such folder.")
    if not text:
        raise ValueError("The list of texts is empty; name what the images should show.")
    network = load_pretrained("AutoModelForZeroShotImageClassification", Path(folder), place)
    texts = [text] if isinstance(text, str) else text
    wanted = torch.cat([_embedding(network, one) for one in texts])

    def reward(images: Tensor, asked: Tensor | None = None) -> Tensor:
        x = network.prepare(place.put(images))
        found = network.model.get_image_features(pixel_values=x).pooler_output
        return F.cosine_similarity(found, wanted[_numbers(asked, len(texts))], dim=1)

    return reward


def _numbers(asked: Tensor | None, count: int) -> Tensor:
    """Which of so many texts each image should fit."""
    if count == 1:
        return torch.zeros(1, dtype=torch.long)
    if asked is None or int(asked.max()) >= count:
        raise ValueError(
            f"There are {count} texts, and the images were not asked for one of these by number; "
            "give one text, or one for each prompt."
        )
    return asked


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
