"""SAM's mask decoder, asked about many points of one image.

The numbers are those of transformers' ``SamModel``, which takes four times as long: it projects the
N positions of the image again for each point, while here the few tokens of a point take both
projections of an attention upon them, as in (x @ A) @ B = x @ (A @ B). What all points share in
the first layer is computed once. Masks are made where a point's predicted IoU asks for them.

Shapes: P points; T tokens of each: IoU, 4 masks, the point, and what pads it; N = g * g positions
of the image with d channels; n heads of c channels.

Source: Kirillov et al., "Segment anything", 2023, appendix A.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class PointAnswers(NamedTuple):
    """What the decoder's transformer says about P points.

    Attributes:
        predicted_iou: (P, 3), of the masks of three sizes that a point may mean.
        tokens: (P, T, d).
        positions: (P, N, d), the image's features as the tokens of each point changed them.
    """

    predicted_iou: Tensor
    tokens: Tensor
    positions: Tensor

    def select(self, chosen: Tensor) -> "PointAnswers":
        """Those of some points, (P,) bool."""
        return PointAnswers(*(values[chosen] for values in self))


class PointDecoder:
    """Decodes points of one image.

    Args:
        model: transformers' ``SamModel``.
        features: (1, d, g, g) of its image encoder.
    """

    def __init__(self, model: Any, features: Tensor) -> None:
        self._prompts, self._decoder = model.prompt_encoder, model.mask_decoder
        self._grid, self.device = features.shape[-1], features.device
        no_mask = self._prompts.no_mask_embed.weight[..., None, None]  # (1, d) -> (1, d, 1, 1)
        # (1, d, g, g) -> (1, N, d)
        self._image = (features + no_mask).flatten(2).transpose(1, 2).contiguous()
        encoding = model.get_image_wide_positional_embeddings()
        self._encoding = encoding.flatten(2).transpose(1, 2).contiguous()

    def attend(self, points: Tensor) -> PointAnswers:
        """Ask about points (P, 2), x and y in pixels of the padded square image."""
        transformer, embedded = self._decoder.transformer, self._embed(points)
        tokens, positions = self._first_layer(transformer.layers[0], embedded)
        for layer in transformer.layers[1:]:
            tokens, positions = self._layer(layer, tokens, positions, embedded)
        last = transformer.final_attn_token_to_image
        tokens = tokens + self._attend_to_image(last, tokens + embedded, positions)
        tokens = transformer.layer_norm_final_attn(tokens)
        predicted = self._decoder.iou_prediction_head(tokens[:, 0])
        return PointAnswers(predicted[:, 1:], tokens, positions)

    def masks(self, answers: PointAnswers, size: tuple[int, int]) -> Tensor:
        """Logits (P, 3, height, width) of the upper left part of the image, with 4 for each g."""
        decoder, grid = self._decoder, self._grid
        rows, columns = (math.ceil(length / 4) for length in size)
        positions = answers.positions.unflatten(1, (grid, grid))[:, :rows, :columns]
        norm = decoder.upscale_layer_norm
        x = _upscale(decoder.upscale_conv1, positions)  # (P, rows, columns, 4, d / 4)
        x = F.gelu(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
        x = F.gelu(_upscale(decoder.upscale_conv2, x))  # (P, rows, columns, 4, 4, d / 8)
        heads = decoder.output_hypernetworks_mlps[1:]  # the first is for prompts without doubt
        weights = [head(answers.tokens[:, 2 + index]) for index, head in enumerate(heads)]
        x = x.flatten(1, 4) @ torch.stack(weights, dim=-1)  # (P, rows * columns * 16, 3)
        # Both upscalings made two rows and two columns of each.
        x = x.unflatten(1, (rows, columns, 2, 2, 2, 2)).permute(0, 7, 1, 3, 5, 2, 4, 6)
        x = x.flatten(5, 7).flatten(2, 4)  # (P, 3, 4 * rows, 4 * columns)
        return x[:, :, : size[0], : size[1]]

    def _embed(self, points: Tensor) -> Tensor:
        """The tokens (P, T, d) before the first layer; each of the later ones adds them again."""
        decoder = self._decoder
        labels = torch.ones(1, len(points), 1, device=points.device)
        embedded, _ = self._prompts(points[None, :, None], labels, None, None)  # (1, P, 2, d)
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        return torch.cat([output.expand(len(points), -1, -1), embedded[0]], dim=1)

    def _first_layer(self, layer: Any, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`_layer`, where the positions are still the same for all points."""
        tokens = layer.layer_norm1(_self_attention(layer, embedded, embedded))
        query = (tokens + embedded).flatten(0, 1)[None, None]  # (1, 1, P * T, d)
        encoded = self._image + self._encoding
        # All tokens of all points at once, as if they were one point's.
        found, _ = layer.cross_attn_token_to_image(query, encoded[None], self._image[None])
        tokens = layer.layer_norm2(tokens + found.view_as(tokens))
        tokens = layer.layer_norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        keys = _scaled_heads(attention, attention.k_proj(tokens + embedded))
        scores = _shared_scores(keys, _heads(attention, attention.q_proj(encoded)))
        return tokens, layer.layer_norm4(_add_tokens(attention, scores, tokens, self._image))

    def _layer(
        self, layer: Any, tokens: Tensor, positions: Tensor, embedded: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next tokens and positions."""
        query = tokens + embedded
        tokens = layer.layer_norm1(tokens + _self_attention(layer, query, tokens))
        attention = layer.cross_attn_token_to_image
        found = self._attend_to_image(attention, tokens + embedded, positions)
        tokens = layer.layer_norm2(tokens + found)
        tokens = layer.layer_norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        keys = _scaled_heads(attention, attention.k_proj(tokens + embedded))
        scores = self._scores(attention, keys, attention.q_proj, positions)
        return tokens, layer.layer_norm4(_add_tokens(attention, scores, tokens, positions))

    def _attend_to_image(self, attention: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        """What tokens (P, T, d) find in the positions, (P, T, d)."""
        query = _scaled_heads(attention, attention.q_proj(tokens))
        weights = self._scores(attention, query, attention.k_proj, positions).softmax(dim=-1)
        found = weights.flatten(1, 2) @ positions  # (P, n * T, d)
        found = found.unflatten(1, query.shape[1:3]) @ _by_head(attention, attention.v_proj).mT
        found = found.transpose(1, 2).flatten(2) + attention.v_proj.bias  # (P, T, n * c)
        return attention.out_proj(found)

    def _scores(self, attention: Any, tokens: Tensor, projection: Any, positions: Tensor) -> Tensor:
        """(P, n, T, N) of projected tokens (P, n, T, c) and positions yet to be projected."""
        shared = _shared_scores(tokens, _heads(attention, projection(self._encoding)))
        folded = tokens @ _by_head(attention, projection)  # (P, n, T, d)
        scores = torch.baddbmm(shared.flatten(1, 2), folded.flatten(1, 2), positions.mT)
        return scores.view_as(shared)


def _heads(attention: Any, x: Tensor) -> Tensor:
    """(P, T, n * c) -> (P, n, T, c)."""
    return x.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)


def _scaled_heads(attention: Any, x: Tensor) -> Tensor:
    return _heads(attention, x) * attention.scaling


def _by_head(attention: Any, projection: Any) -> Tensor:
    """The weight (n * c, d) -> (n, c, d)."""
    return projection.weight.unflatten(0, (attention.num_attention_heads, -1))


def _self_attention(layer: Any, query: Tensor, value: Tensor) -> Tensor:
    return layer.self_attn(query[None], query[None], value[None])[0][0]


def _shared_scores(tokens: Tensor, positions: Tensor) -> Tensor:
    """(P, n, T, N) of tokens (P, n, T, c) and positions (1, n, N, c)."""
    by_head = tokens.transpose(0, 1).flatten(1, 2) @ positions[0].mT  # (n, P * T, N)
    return by_head.unflatten(1, (len(tokens), -1)).transpose(0, 1)


def _add_tokens(attention: Any, scores: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """Positions (P, N, d) plus what they find in the tokens (P, T, d)."""
    weights = scores.softmax(dim=2).flatten(1, 2)  # (P, n * T, N)
    value = _heads(attention, attention.v_proj(tokens))
    out = attention.out_proj
    output = out.weight.mT.unflatten(0, (attention.num_attention_heads, -1))  # (n, c, d)
    # The weights of each head add up to 1, so that its share of the bias can be put here.
    folded = value @ output + out.bias / attention.num_attention_heads  # (P, n, T, d)
    return torch.baddbmm(positions, weights.mT, folded.flatten(1, 2))


def _upscale(convolution: Any, x: Tensor) -> Tensor:
    """A transposed convolution of 2 x 2, stride 2, (..., d) -> (..., 4, e)."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (d, e, 2, 2) -> (4 * e, d)
    return F.linear(x, weight, convolution.bias.repeat(4)).unflatten(-1, (4, -1))
