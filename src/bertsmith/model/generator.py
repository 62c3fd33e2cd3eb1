"""Replaced-token detection: a small generator that fills masks, and the head that tells its pieces from the text's own.

Shape: `T` packed tokens, `M` masked positions, `H` the encoder's width, `V` vocabulary, `K` the side of a square that
holds the vocabulary.

Source: Clark et al. 2020 (ELECTRA, arXiv:2003.10555).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.config import ModelConfig
from bertsmith.model.encoder import ACTIVATIONS, Encoder, Layer, through
from bertsmith.model.packing import Batch


def generator_heads(config: ModelConfig, size: float) -> int:
    """How many attention heads a generator has: a share of the encoder's, at least one.

    Its heads are as wide as the encoder's, so this says its width, too.

    Args:
        config: the encoder's shape.
        size: share of the encoder's width, 0 < size <= 1.
    """
    return max(1, round(size * config.num_attention_heads))


def draws_of(vocab_size: int) -> int:
    """How many random numbers it takes to draw a piece: 2 K, where K is the least power of 2 with K * K >= V."""
    side = 1
    while side * side < vocab_size:
        side *= 2
    return 2 * side


def drawn(logits: Tensor, draws: Tensor) -> Tensor:
    """Draw a piece from each row of logits, by the Gumbel-max trick: first its block of K pieces, then the piece.

    That takes 2 K random numbers instead of V. A rounding error of the logits changes a piece about as often as it is
    large, where cutting [0, 1) by cumulated probabilities would add up the errors of all pieces.

    Args:
        logits: `[M, V]` in fp32; pieces from K * K on are never drawn.
        draws: even numbers in [0, 1), `[M, 2 K]`.

    Returns:
        Ids `[M]`.

    Source: Maddison et al. 2014 (arXiv:1411.0030), for the trick.
    """
    side = draws.shape[1] // 2
    logits = logits[:, : side * side]
    blocks = -(-logits.shape[1] // side)
    square = F.pad(logits, (0, blocks * side - logits.shape[1]), value=float("-inf")).view(-1, blocks, side)
    gumbel = -torch.log(-torch.log(draws.clamp_min(torch.finfo(draws.dtype).tiny)))  # finite, above the padding
    block = (square.logsumexp(-1) + gumbel[:, :blocks]).argmax(-1)
    inside = square.gather(1, block[:, None, None].expand(-1, 1, side))[:, 0]
    return block * side + (inside + gumbel[:, side:]).argmax(-1)


def masked_draws(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, ...]:
    """Losses at masked positions, and a piece drawn for each.

    A function of its own because a compiler makes few passes over `[M, V]` of what would be many.

    Args:
        x: `[M, H]`.
        weight: `[V, H]`.
        bias: `[V]`.
        labels: the right ids, `[M]`.
        draws: even numbers in [0, 1), `[M, 2 K]`.

    Returns:
        The losses `[M]` in fp32, whether the best piece is the right one `[M]`, and the ids drawn `[M]`.
    """
    logits = F.linear(x, weight, bias).float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    logits = logits.detach()
    hits = logits.gather(1, labels[:, None])[:, 0] >= logits.amax(-1)
    return losses, hits, drawn(logits, draws)


class Generator(nn.Module):
    """A masked language model with as many layers as the encoder, but narrower; its embeddings are the encoder's.

    Words, positions, segments and their norm are shared; a matrix leads from the encoder's width to the generator's.
    The output matrix is the word embedding.

    Source: Clark et al. 2020, section 3.2, weight sharing and smaller generators.
    """

    def __init__(self, config: ModelConfig, heads: int) -> None:
        """Build the narrow layers.

        Args:
            config: the encoder's shape.
            heads: attention heads, each as wide as the encoder's.
        """
        super().__init__()
        wide, narrow = config.hidden_size, heads * config.head_size
        inner = max(1, round(config.intermediate_size * heads / config.num_attention_heads))
        shape = config.model_copy(
            update={"hidden_size": narrow, "num_attention_heads": heads, "intermediate_size": inner}
        )
        self.project = nn.Linear(wide, narrow, bias=config.bias)
        self.layers = nn.ModuleList(Layer(shape, index) for index in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(narrow, config.layer_norm_eps, bias=config.bias) if config.modern else None
        self.dense = nn.Linear(narrow, wide, bias=config.bias)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(wide, config.layer_norm_eps, bias=config.bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.masked_draws: Callable[..., tuple[Tensor, ...]] = masked_draws

    def forward(self, encoder: Encoder, batch: Batch) -> Tensor:
        """What the output layer reads at the masked positions, `[M, H]`.

        Args:
            encoder: whose embeddings are shared.
            batch: with `targets["mlm_positions"]` `[M]`.
        """
        x = self.project(encoder.embed(batch.input_ids, batch.segment_ids, batch.position_ids))
        again = encoder.checkpoint_activations and torch.is_grad_enabled()
        *_, x = through(self.layers, x, batch, encoder.rotary(batch.position_ids), again=again)
        x = x if self.final_norm is None else self.final_norm(x)
        return self.norm(self.activation(self.dense(x.index_select(0, batch.targets["mlm_positions"]))))  # type: ignore[no-any-return]


class ReplacedTokenDetection(nn.Module):
    """Whether each token is another one than the text's own.

    Source: Clark et al. 2020, section 2, with the layer before the output that their code has.
    """

    def __init__(self, config: ModelConfig) -> None:
        """`H` to `H` to one number."""
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, H]` to the logit of being replaced, `[T]`."""
        return self.output(self.activation(self.dense(x)))[:, 0]  # type: ignore[no-any-return]
