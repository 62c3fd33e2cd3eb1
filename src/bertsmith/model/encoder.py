"""The packed encoder: embeddings and layers of BERT and of the modern shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertsmith.model.attention import attend, rotary_table, rotate
from bertsmith.model.config import ModelConfig
from bertsmith.model.dropout import dropout
from bertsmith.model.packing import Batch

ACTIVATIONS = {"gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}


class Embeddings(nn.Module):
    """Word (+ position + segment) embeddings, normalised."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the tables; `config` decides which."""
        super().__init__()
        width = config.hidden_size
        self.word = nn.Embedding(config.vocab_size, width)
        self.position = None if config.modern else nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(width, config.layer_norm_eps, bias=config.bias)
        self.dropout = config.hidden_dropout

    def forward(self, input_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """`[T]` ids to `[T, H]`."""
        x: Tensor = self.word(input_ids)
        if self.position is not None:
            x = x + self.position(position_ids)
        if self.segment is not None:
            # Where all texts are of one kind, the second of a pair is of that kind, too.
            x = x + (self.segment.weight if self.segment.num_embeddings == 1 else self.segment(segment_ids))
        return dropout(self.norm(x), self.dropout, self.training)


class Attention(nn.Module):
    """The two projections around `attend`."""

    def __init__(self, config: ModelConfig) -> None:
        """Queries, keys and values come from one matrix product."""
        super().__init__()
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)


class FeedForward(nn.Module):
    """Two linear layers with an activation between; gated (GeGLU) in the modern shape."""

    def __init__(self, config: ModelConfig) -> None:
        """GeGLU doubles the first layer: one half gates the other."""
        super().__init__()
        self.gated = config.modern
        self.activation_name = config.hidden_act
        self.activation = ACTIVATIONS[config.hidden_act]
        inner = config.intermediate_size
        self.up = nn.Linear(config.hidden_size, 2 * inner if self.gated else inner, bias=config.bias)
        self.down = nn.Linear(inner, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, H]` to `[T, H]`. Source of the gate: Shazeer 2020 (arXiv:2002.05202)."""
        x = self.up(x)
        if self.gated:
            x, gate = x.chunk(2, dim=-1)
            return self.down(self.activation(x) * gate)  # type: ignore[no-any-return]
        return self.down(self.activation(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One transformer layer in two halves, with attention between them.

    The halves are plain tensor programs of `[T, H]`, so that a compiler can take each as a whole whatever the
    lengths of the sequences are.

    Attributes:
        attention_adapter: called with what attention adds to the residual stream, and what it reads; gives what is
            added instead. None: nothing of the kind.
        mlp_adapter: the same for the feed-forward layer.
        prefix: keys and values before every sequence, `[P, 2, A, D]`, or None.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        """Layer `index` of the encoder, counted from 0."""
        super().__init__()
        self.pre_norm = config.modern
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.dropout, self.attention_dropout = config.hidden_dropout, config.attention_dropout
        self.window = config.window(index)
        self.attention = Attention(config)
        norm = lambda: nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.bias)  # noqa: E731
        # ModernBERT's first layer follows the embedding's norm directly and has none of its own.
        self.attention_norm = nn.Identity() if config.modern and index == 0 else norm()
        self.mlp = FeedForward(config)
        self.mlp_norm = norm()
        self.attention_adapter: nn.Module | None = None
        self.mlp_adapter: nn.Module | None = None
        self.prefix: nn.Parameter | None = None

    def project(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """Residual stream `[T, H]` to queries, keys and values `[T, 3, A, D]`."""
        x = self.attention_norm(x) if self.pre_norm else x
        qkv: Tensor = self.attention.qkv(x).view(-1, 3, self.heads, self.head_size)
        return qkv if rotary is None else rotate(qkv, rotary)

    def combine(self, x: Tensor, context: Tensor) -> Tensor:
        """Residual stream `[T, H]` and contexts `[T, A, D]` to the next residual stream `[T, H]`."""
        return self.think(self.take(x, context))

    def take(self, x: Tensor, context: Tensor) -> Tensor:
        """The first half of `combine`: what attention found is added to the residual stream `[T, H]`."""
        out = dropout(self.attention.out(context.flatten(1)), self.dropout, self.training)
        x = x + self._adapted(self.attention_adapter, out, x, self.attention_norm)
        return x if self.pre_norm else self.attention_norm(x)

    def think(self, x: Tensor) -> Tensor:
        """The second half: the feed-forward layer, `[T, H]` to `[T, H]`."""
        out = dropout(self.mlp(self.mlp_norm(x) if self.pre_norm else x), self.dropout, self.training)
        x = x + self._adapted(self.mlp_adapter, out, x, self.mlp_norm)
        return x if self.pre_norm else self.mlp_norm(x)

    def _adapted(self, adapter: nn.Module | None, out: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """What a sublayer adds to the stream `x`, once an adapter has seen it; all `[T, H]`."""
        if adapter is None:
            return out
        return adapter(out, norm(x + out) if adapter.reads_norm and not self.pre_norm else out)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, batch: Batch, rotary: Tensor | None, memory: list[Tensor] | None = None) -> Tensor:
        """`[T, H]` to `[T, H]`; keys and values `[T, 2, A, D]` are added to `memory`.

        There may be more rows than tokens: what follows these is padding, which nothing looks at.
        """
        qkv = self.project(x, rotary)
        rows = len(qkv)
        qkv = qkv[: batch.num_tokens]
        if memory is not None:
            memory.append(qkv[:, 1:])
        context = attend(
            qkv,
            batch.cu_seqlens,
            batch.max_seqlen,
            batch.lengths,
            window=self.window,
            causal=batch.causal,
            dropout=self.attention_dropout if self.training else 0.0,
            prefix=self.prefix,
        )
        return self.combine(x, padded(context, rows))


def rows_for(tokens: int) -> int:
    """How many rows go through the layers on a CPU: few different numbers, none far above `tokens`.

    oneDNN makes its kernels anew for each number of rows and keeps them, which takes as long as a small batch does,
    and memory.

    Args:
        tokens: in the batch.
    """
    step = 16 if tokens <= 128 else 64 if tokens <= 8192 else 256
    return -(-tokens // step) * step


def padded(context: Tensor, rows: int) -> Tensor:
    """Contexts `[T, A, D]` with zeros below, `[rows, A, D]`.

    Args:
        context: of the tokens.
        rows: as many as go through the layers.
    """
    return context if len(context) == rows else F.pad(context, (0, 0, 0, 0, 0, rows - len(context)))


def through(
    layers: nn.ModuleList,
    x: Tensor,
    batch: Batch,
    rotary: Sequence[Tensor | None],
    *,
    again: bool = False,
    memory: list[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Take `x` through layers: `x` itself, `[T, H]`, then what each layer makes of it.

    Args:
        layers: from the lowest to the highest.
        x: the residual stream, `[T, H]`.
        batch: the sequences.
        rotary: a table for each layer; None: no rotary positions.
        again: keep only each layer's input, and compute the rest again in the backward pass.
        memory: takes each layer's keys and values, `[T, 2, A, D]`.
    """
    yield x
    for layer, table in zip(layers, rotary, strict=True):
        given = (x, batch, table, memory)
        x = checkpoint(layer, *given, use_reentrant=False) if again else layer(*given)
        yield x


class Encoder(nn.Module):
    """Token ids in, one vector a token out, packed throughout.

    Attributes:
        checkpoint_activations: keep only each layer's input, and compute the rest again in the backward pass, with the
            same dropout.
        first_position: the position of each sequence's first token; a prefix takes the places before it.
        stream: what the layers compute in, where it is not the type of the embeddings; hidden states come out in fp32.

    Source: Devlin et al. 2019 (arXiv:1810.04805); Warner et al. 2024 (arXiv:2412.13663) for the modern shape; Chen et
    al. 2016 (arXiv:1604.06174) for checkpointed activations.
    """

    def __init__(self, config: ModelConfig) -> None:
        """An encoder of the shape that `config` describes, weights not yet initialised as BERT's are."""
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.first_position = 0
        self.stream: torch.dtype | None = None
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.bias) if config.modern else None
        )

    @property
    def max_length(self) -> int:
        """The longest sequence in pieces."""
        return self.config.max_position_embeddings - self.first_position

    def forward(self, batch: Batch, memory: list[Tensor] | None = None) -> Tensor:
        """A Batch of T tokens to hidden states `[T, H]`.

        Args:
            batch: the sequences.
            memory: takes each layer's keys and values, `[T, 2, A, D]`, for what is to be written next.
        """
        for x in self.walk(batch, memory):  # noqa: B007, what the last layer gives
            pass
        return self.last(x)

    def walk(self, batch: Batch, memory: list[Tensor] | None = None) -> Iterator[Tensor]:
        """The residual stream `[T, H]`: as the embeddings give it, then after each layer.

        Args:
            batch: the sequences.
            memory: as for `forward`.
        """
        ids = [batch.input_ids, batch.segment_ids, batch.position_ids]
        if batch.input_ids.device.type == "cpu":
            ids = [F.pad(each, (0, rows_for(batch.num_tokens) - batch.num_tokens)) for each in ids]
        again = self.checkpoint_activations and torch.is_grad_enabled() and memory is None
        for x in through(self.layers, self.embed(*ids), batch, self.rotary(ids[2]), again=again, memory=memory):
            yield x[: batch.num_tokens]

    def last(self, x: Tensor) -> Tensor:
        """What the last layer gives, `[T, H]`, as heads read it."""
        x = x if self.stream is None else x.float()
        return x if self.final_norm is None else self.final_norm(x)

    def embed(self, input_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The residual stream `[T, H]` at its start, of `[T]` ids; the first position of a text is 0."""
        positions = position_ids + self.first_position if self.first_position else position_ids
        x: Tensor = self.embeddings(input_ids, segment_ids, positions)
        if self.stream is not None:
            x = x.to(self.stream)
        elif torch.is_autocast_enabled(x.device.type):
            # The residual stream follows the precision of the matrix products; norms and losses sum in fp32.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x

    def rotary(self, position_ids: Tensor, layers: int | None = None) -> list[Tensor | None]:
        """The tables of so many layers (by default the encoder's) for tokens at these positions `[T]`; None: none."""
        config = self.config
        layers = config.num_hidden_layers if layers is None else layers
        if not config.modern:
            return [None] * layers
        thetas = [
            config.global_rope_theta if config.window(index) is None else config.local_rope_theta
            for index in range(layers)
        ]
        tables = {theta: rotary_table(position_ids, config.head_size, theta) for theta in set(thetas)}
        return [tables[theta] for theta in thetas]
