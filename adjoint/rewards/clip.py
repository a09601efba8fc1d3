"""The similarity of an image and a text."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adjoint.rewards.pretrained import Pretrained, load_pretrained, load_tokenizer
from adjoint.rewards.reward import Placement, Reward


def clip_reward(placement: Placement, folder: str, text: str | list[str]) -> Reward:
    r"""The cosine similarity of the embeddings of an image, I(x), and of a text, T.

    .. math:: r(x) = \frac{I(x) \cdot T}{|I(x)| \, |T|}

    (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    Args:
        folder: an image-text model saved by transformers, such as CLIP or SigLIP, with its
            tokenizer and image processor.
        text: what the images should show; of a list, the one whose index each was conditioned on.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no model at {folder!r}: no such folder.")
    if not text:
        raise ValueError("The list of texts is empty; name what the images should show.")
    network = load_pretrained("AutoModelForZeroShotImageClassification", Path(folder), placement)
    texts = [text] if isinstance(text, str) else text
    wanted = torch.cat([_embedding(network, one) for one in texts])

    def reward(images: Tensor, condition: Tensor | None = None) -> Tensor:
        x = network.prepare(placement.put(images))
        found = network.model.get_image_features(pixel_values=x).pooler_output
        return F.cosine_similarity(found, wanted[_numbers(condition, len(texts))], dim=1)

    return reward


def _numbers(condition: Tensor | None, count: int) -> Tensor:
    """The index of the text of each image."""
    if count == 1:
        return torch.zeros(1, dtype=torch.long)
    if condition is None or int(condition.max()) >= count:
        raise ValueError(
            f"There are {count} texts, and the images were not conditioned on the index of one of "
            "these; give one text, or one for each prompt."
        )
    return condition


def _embedding(network: Pretrained, text: str) -> Tensor:
    """T of the text, [1, D]; ValueError if it is longer than the model's context."""
    tokenizer = load_tokenizer(network.folder)
    positions = network.model.config.get_text_config().max_position_embeddings
    limit = min(tokenizer.model_max_length, positions)
    # SigLIP was trained on padded texts; CLIP ignores tokens after the last.
    tokens = tokenizer([text], padding="max_length", max_length=limit, return_tensors="pt")
    length = tokens["input_ids"].shape[1]
    if length > limit:
        raise ValueError(f"The text has {length} tokens, but the model reads {limit}; shorten it.")
    tokens = tokens.to(network.model.device)
    embedding: Tensor = network.model.get_text_features(**tokens).pooler_output
    return embedding
