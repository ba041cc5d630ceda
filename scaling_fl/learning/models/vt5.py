"""VT5: a T5 that reads the words of a page, where they stand, and how the page looks.

Source: Biten et al., "Hierarchical multimodal transformers", arXiv 2212.05935, and the baseline of
the PFL-DocVQA competition, arXiv 2312.10108; sizes and names are those of its published weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BeitConfig, BeitModel, T5Config, T5ForConditionalGeneration

HEADS = ("spatial_embedding", "visual_embedding.visual_emb_matcher")
"""What an adapter trains whole: neither T5 nor the image model has it from its pre-training."""
_EPS = 1e-12


class VT5(nn.Module):
    """A T5 whose encoder sees words with their boxes and then the patches of the page.

    ``config`` is that of the T5, with ``max_2d_position_embeddings`` (1024),
    ``hidden_dropout_prob`` (0.1) and ``image_model``, the sizes of the image model as a dict; an
    empty one means DiT base. The image model is frozen, and never in its training mode: the same
    page always looks the same.
    """

    base_model_prefix = "language_backbone"
    supports_gradient_checkpointing = True

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.language_backbone = T5ForConditionalGeneration(config)
        self.spatial_embedding = SpatialEmbedding(config)
        self.visual_embedding = VisualEmbedding(config)

    def encode(
        self, input_ids: Tensor, boxes: Tensor, mask: Tensor, pixel_values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the encoder's states (examples, words + patches, d_model), and their mask.

        ``boxes`` (examples, words, 4) are left, top, right and bottom, int64 from 0 to 1000;
        ``pixel_values`` (examples, 3, side, side) are normalised pages.
        """
        words = self.language_backbone.shared(input_ids) + self.spatial_embedding(boxes)
        page = self.visual_embedding(pixel_values)
        mask = torch.cat([mask, mask.new_ones(page.shape[:2])], dim=1)
        both = torch.cat([words, page], dim=1)
        encoder = self.language_backbone.encoder
        hidden: Tensor = encoder(inputs_embeds=both, attention_mask=mask).last_hidden_state
        return hidden, mask

    def activation_checkpointing_enable(self, options: dict[str, Any]) -> None:
        """Have the layers of T5 compute their activations again for the backward pass."""
        self.language_backbone.activation_checkpointing_enable(options)


class SpatialEmbedding(nn.Module):
    """Embeds boxes: the sum of an embedding for each side, normalised, through one linear layer."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        size, places = config.d_model, getattr(config, "max_2d_position_embeddings", 1024)
        self.x_position_embeddings = nn.Embedding(places, size)
        self.y_position_embeddings = nn.Embedding(places, size)
        self.LayerNorm = nn.LayerNorm(size, eps=_EPS)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.1))
        self.spatial_emb_matcher = Matcher(size, size)

    def forward(self, boxes: Tensor) -> Tensor:
        across, down = self.x_position_embeddings, self.y_position_embeddings
        left, top, right, bottom = boxes.unbind(-1)
        total = across(left) + down(top) + across(right) + down(bottom)
        embedded: Tensor = self.spatial_emb_matcher(self.dropout(self.LayerNorm(total)))
        return embedded


class VisualEmbedding(nn.Module):
    """Embeds a page: the states of a frozen image model (DiT), through one linear layer."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        sizes = dit_config(getattr(config, "image_model", {}))
        self.image_model = BeitModel(sizes).requires_grad_(False).eval()
        self.visual_emb_matcher = Matcher(sizes.hidden_size, config.d_model)

    def forward(self, pixel_values: Tensor) -> Tensor:
        with torch.no_grad():
            patches = self.image_model(pixel_values).last_hidden_state
        embedded: Tensor = self.visual_emb_matcher(patches)
        return embedded

    def train(self, mode: bool = True) -> "VisualEmbedding":
        super().train(mode)
        self.image_model.eval()
        return self


class Matcher(nn.Module):
    """One linear layer, under the name that the published weights have for it."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(size, out)])

    def forward(self, states: Tensor) -> Tensor:
        matched: Tensor = self.layers[0](states)
        return matched


def dit_config(sizes: dict[str, Any]) -> BeitConfig:
    """Return the sizes of DiT (arXiv 2203.02378), a BEiT with absolute positions; {}: DiT base."""
    usual = {
        "use_mask_token": True,
        "use_absolute_position_embeddings": True,
        "use_relative_position_bias": False,
        "use_shared_relative_position_bias": False,
        "use_mean_pooling": True,
        "layer_norm_eps": _EPS,
    }
    return BeitConfig(**usual | sizes)
