"""Writing a text with an encoder: by the same layers, or by layers of its own that look at the encoder's.

Both write what follows a start piece, one piece after the other; a piece sees the whole source and what is written so
far. The source sees nothing of what is written, so it is read once, and its keys and values are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bertsmith.model.attention import attend_across, attend_once
from bertsmith.model.config import ModelConfig
from bertsmith.model.dropout import dropout
from bertsmith.model.encoder import Layer
from bertsmith.model.packing import Batch

if TYPE_CHECKING:
    from bertsmith.model.heads import Model


class DecoderLayer(Layer):
    """A layer that looks at what is written so far, then at the encoder's last hidden states.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        """Layer `index` of the decoder, counted from 0."""
        super().__init__(config, index)
        width = config.hidden_size
        self.cross = nn.ModuleDict(
            {
                "q": nn.Linear(width, width, bias=config.bias),
                "kv": nn.Linear(width, 2 * width, bias=config.bias),
                "out": nn.Linear(width, width, bias=config.bias),
                "norm": nn.LayerNorm(width, config.layer_norm_eps, bias=config.bias),
            }
        )

    def asks(self, x: Tensor) -> Tensor:
        """Queries to the source, `[U, H]` to `[U, A, D]`."""
        x = self.cross["norm"](x) if self.pre_norm else x
        return self.cross["q"](x).view(-1, self.heads, self.head_size)  # type: ignore[no-any-return]

    def remembers(self, source: Tensor) -> Tensor:
        """Keys and values of the source, `[T, H]` to `[T, 2, A, D]`."""
        return self.cross["kv"](source).view(-1, 2, self.heads, self.head_size)  # type: ignore[no-any-return]

    def hears(self, x: Tensor, context: Tensor) -> Tensor:
        """The residual stream `[U, H]` with what was found in the source, `[U, A, D]`."""
        x = x + dropout(self.cross["out"](context.flatten(1)), self.dropout, self.training)
        return x if self.pre_norm else self.cross["norm"](x)


class Decoder(nn.Module):
    """Layers of a decoder; embeddings and the output layer are the encoder's."""

    def __init__(self, config: ModelConfig, layers: int) -> None:
        """So many layers of the encoder's shape."""
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(layers))
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.bias) if config.modern else None
        )


class Writing:
    """Sources that were read, from which texts are to be written.

    With a decoder the texts are sequences of their own. Without one the source's layers write: a text goes on where its
    source ends, as segment B, its pieces looking back only. A prefix (`peft.prefix`) is seen by the source alone.

    Shape: `S` sequences, `T` packed tokens of sources, `U` of texts, `R` rows of each sequence, `V` vocabulary.

    Source: Dong et al. 2019, the sequence-to-sequence mask (UniLM, arXiv:1905.03197). Differs: a piece predicts the one
    after it rather than itself behind [MASK], so that one pass teaches all of them and writing takes one step a piece.
    """

    def __init__(self, model: Model, memory: Sequence[Tensor], lengths: Sequence[int]) -> None:
        """Hold what was read.

        Args:
            model: with the MLM head.
            memory: keys and values of each layer, `[T, 2, A, D]`.
            lengths: of the S sources.
        """
        self.model, self.memory, self.lengths = model, list(memory), list(lengths)
        self.decoder = cast(Decoder, model.head["decoder"]) if model.heads.decoder else None
        self.layers = [cast(Layer, layer) for layer in (self.decoder or model.encoder).layers]
        self.device = memory[0].device
        self._cached: list[Any] = []

    @classmethod
    def read(cls, model: Model, batch: Batch) -> Self:
        """Read the sources.

        Args:
            model: with the MLM head.
            batch: of S sources.
        """
        memory: list[Tensor] = []
        return cls.after(model, batch, memory, model.encoder(batch, memory))

    @classmethod
    def after(cls, model: Model, batch: Batch, memory: Sequence[Tensor], hidden: Tensor) -> Self:
        """Take sources that the encoder has read.

        Args:
            model: with the MLM head.
            batch: of S sources.
            memory: keys and values of the encoder's layers, `[T, 2, A, D]`.
            hidden: its last hidden states, `[T, H]`.
        """
        if model.heads.decoder:
            decoder = cast(Decoder, model.head["decoder"])
            memory = [cast(DecoderLayer, layer).remembers(hidden) for layer in decoder.layers]
        return cls(model, memory, batch.lengths)

    def taught(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Scores of the piece after each piece of the texts, all in one pass.

        Args:
            ids: the S texts end to end, each from its start piece to its last but one, `[U]`.
            lengths: of the S texts.

        Returns:
            `[U, V]`.
        """
        places = torch.cat([torch.arange(length) for length in lengths]).to(self.device)
        starts = torch.tensor([0 if self.decoder else length for length in self.lengths])
        positions = places + starts.repeat_interleave(torch.tensor(lengths)).to(self.device)
        order = None if self.decoder else self._interleaved(lengths)
        together = [a + b for a, b in zip(self.lengths, lengths, strict=True)]
        x, tables = self._begin(ids, positions)
        for layer, rotary, source in zip(self.layers, tables, self.memory, strict=True):
            dropout = layer.attention_dropout if layer.training else 0.0
            qkv = layer.project(x, rotary)
            q, kv = qkv[:, 0], qkv[:, 1:]
            known = lengths if order is None else together
            kv = kv if order is None else torch.cat([source, kv]).index_select(0, order)
            x = layer.take(x, attend_across(q, kv, lengths, known, window=layer.window, causal=True, dropout=dropout))
            if isinstance(layer, DecoderLayer):
                found = attend_across(layer.asks(x), source, lengths, self.lengths, dropout=dropout)
                x = layer.hears(x, found)
            x = layer.think(x)
        return self._end(x)

    def prepare(self, rows: int, longest: int) -> None:
        """Make room to write step by step.

        Args:
            rows: texts of each sequence, written side by side.
            longest: pieces of a text at most, the start piece included.
        """
        shape = (len(self.lengths), rows, self.layers[0].heads, longest, self.layers[0].head_size)
        cuts = torch.tensor(self.lengths, device=self.device)
        # Sources are padded here to the longest of the batch: every step multiplies them all at once.
        self.seen = torch.arange(max(self.lengths), device=self.device) < cuts[:, None]
        self.places = torch.zeros_like(cuts) if self.decoder else cuts
        self._cached = []
        for packed in self.memory:
            k, v = pad_sequence(packed.split(self.lengths), batch_first=True).permute(2, 0, 3, 1, 4).unbind(0)
            self._cached.append([k, v, packed.new_zeros(shape), packed.new_zeros(shape)])
        self.written = 0

    def step(self, ids: Tensor) -> Tensor:
        """Scores of the piece after `ids`, for each row.

        Args:
            ids: the last piece of each row, `[S, R]`.

        Returns:
            `[S, R, V]`.
        """
        sequences, rows = ids.shape
        positions = (self.places + self.written).repeat_interleave(rows)
        x, tables = self._begin(ids.flatten(), positions)
        end = self.written + 1
        for layer, rotary, (k, v, own_k, own_v) in zip(self.layers, tables, self._cached, strict=True):
            q, new_k, new_v = layer.project(x, rotary).view(sequences, rows, 3, layer.heads, layer.head_size).unbind(2)
            own_k[:, :, :, self.written], own_v[:, :, :, self.written] = new_k, new_v
            first = 0 if layer.window is None else max(0, self.written - layer.window)
            own = (own_k[:, :, :, first:end], own_v[:, :, :, first:end], None)
            if isinstance(layer, DecoderLayer):
                x = layer.take(x, attend_once(q, [own]).flatten(0, 1))
                asked = layer.asks(x).view(q.shape)
                x = layer.hears(x, attend_once(asked, [(k, v, self.seen)]).flatten(0, 1))
            else:
                x = layer.take(x, attend_once(q, [(k, v, self._near(layer.window)), own]).flatten(0, 1))
            x = layer.think(x)
        self.written = end
        return self._end(x).view(sequences, rows, -1)

    def keep(self, sequences: Tensor, rows: Tensor) -> None:
        """Go on with some of the sequences, and in each with some rows, in this order.

        Args:
            sequences: indices, `[s]`.
            rows: indices of each one's rows, `[s, R]`.
        """
        moved = not torch.equal(sequences, torch.arange(len(self.places), device=self.device))
        turned = not torch.equal(rows, torch.arange(rows.shape[1], device=self.device).expand_as(rows))
        if moved:
            self.seen, self.places = self.seen[sequences], self.places[sequences]
        if not (moved or turned):
            return
        for kept in self._cached:
            if moved:
                kept[:2] = [part[sequences] for part in kept[:2]]
            kept[2:] = [part[sequences[:, None], rows] for part in kept[2:]]

    def _begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        encoder = self.model.encoder
        segment = 0 if self.decoder or self.model.config.type_vocab_size < 2 else 1
        x = encoder.embed(ids, torch.full_like(ids, segment), positions)
        return x, encoder.rotary(positions, len(self.layers))

    def _end(self, x: Tensor) -> Tensor:
        norm = (self.decoder or self.model.encoder).final_norm
        return self.model.vocabulary(x if norm is None else norm(x))

    def _near(self, window: int | None) -> Tensor:
        """Which pieces of the sources a local layer sees, `[S, n]`."""
        if window is None:
            return self.seen
        place = torch.arange(self.seen.shape[1], device=self.device)
        return self.seen & (self.places[:, None] + self.written - place <= window)

    def _interleaved(self, lengths: Sequence[int]) -> Tensor:
        """Where each source and then its text lies when all sources lie before all texts."""
        order, source, text = [], 0, sum(self.lengths)
        for known, new in zip(self.lengths, lengths, strict=True):
            order += [torch.arange(source, source + known), torch.arange(text, text + new)]
            source, text = source + known, text + new
        return torch.cat(order).to(self.device)
