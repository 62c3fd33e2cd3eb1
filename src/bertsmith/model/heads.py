"""Heads, and the Model that joins them to an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.crf import Transitions
from bertsmith.model.decoder import Decoder, Writing
from bertsmith.model.dropout import dropout
from bertsmith.model.embedding import pool
from bertsmith.model.encoder import ACTIVATIONS, Encoder, Layer
from bertsmith.model.generator import Generator, ReplacedTokenDetection
from bertsmith.model.packing import Batch
from bertsmith.model.pointer import Pointer


def masked_losses(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy at masked positions, straight from the last hidden states.

    A function of its own because a compiler makes one pass of what would be five over `[M, V]`.

    Args:
        x: `[M, H]`.
        weight: `[V, H]`.
        bias: `[V]`.
        labels: the right ids, `[M]`.

    Returns:
        The losses `[M]` in fp32, and whether the best piece is the right one, `[M]` bool.
    """
    logits = F.linear(x, weight, bias).float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses, logits.detach().gather(1, labels[:, None])[:, 0] >= logits.detach().amax(-1)


class Transform(nn.Module):
    """Dense layer, activation, norm: what stands before the output layer of BERT's and ModernBERT's heads."""

    def __init__(self, config: ModelConfig) -> None:
        """`H` to `H`."""
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, H]` to `[n, H]`."""
        return self.norm(self.activation(self.dense(x)))  # type: ignore[no-any-return]


class MaskedLanguageModel(Transform):
    """Scores of every piece of the vocabulary, at the positions asked for only."""

    def __init__(self, config: ModelConfig) -> None:
        """The output matrix is the word embedding unless the config unties them."""
        super().__init__(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder = (
            None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    def output(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The output layer's weight `[V, H]` and bias `[V]`; `embedding` is the word table."""
        return (embedding if self.decoder is None else self.decoder.weight), self.bias


class Between(nn.Module):
    """Classes of two places that belong together, from both hidden states side by side.

    Source: Baldini Soares et al. 2019, entity start states (arXiv:1906.03158); Zhou & Chen 2021, equations 1 and 2
    (arXiv:2102.01373), for the layer before the output.
    """

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        """Two states of `width` H to C `classes`."""
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, classes)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """`[S, 2, H]` to `[S, C]`."""
        x = F.relu(self.dense(dropout(x.flatten(1), self.dropout, self.training)))
        return self.output(dropout(x, self.dropout, self.training))  # type: ignore[no-any-return]


class Taps(NamedTuple):
    """What a model shows beside its heads' outputs, to somebody who compares it with another.

    Attributes:
        hidden: numbers of layers whose output is shown, from 1; 0 is that of the embeddings.
        qkv: numbers of layers whose queries, keys and values are shown, from 1.
        pieces: show the scores of all pieces also where the right ones are known.
        vectors: show what the head over the mean reads.
    """

    hidden: tuple[int, ...] = ()
    qkv: tuple[int, ...] = ()
    pieces: bool = False
    vectors: bool = False


class Model(nn.Module):
    """An encoder with the heads that its task needs.

    Shape: `T` packed tokens, `S` sequences, `H` width, `M` masked positions, `V` vocabulary, `C` classes, `A` heads,
    `D` head width.

    Attributes:
        taps: what is shown besides while the model is in training.
    """

    def __init__(self, config: ModelConfig, heads: Heads, *, seed: int = 0) -> None:
        """Fresh weights, a pure function of `seed`: normal(0, initializer_range), biases 0, norms 1.

        Args:
            config: the encoder's shape.
            heads: which heads stand on it.
            seed: of the fresh weights.
        """
        super().__init__()
        self.config, self.heads = config, heads
        self.taps = Taps()
        width = config.hidden_size
        self.encoder = Encoder(config)
        needs_pooler = not config.modern and (heads.nsp or heads.classify or heads.choose)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)}) if needs_pooler else None
        head: dict[str, nn.Module] = {}
        if heads.mlm:
            head["mlm"] = MaskedLanguageModel(config)
        if heads.nsp:
            head["nsp"] = nn.Linear(width, 2)
        if heads.rtd:
            head["rtd"] = ReplacedTokenDetection(config)
        if heads.generator:
            head["generator"] = Generator(config, heads.generator)
        if heads.classify:
            head["classify"] = nn.Linear(width, heads.classify)
        if heads.mean:
            head["mean"] = nn.Linear(width, heads.mean)
        if heads.tag:
            head["tag"] = nn.Linear(width, heads.tag)
        if heads.crf:
            head["crf"] = Transitions(heads.tag)
        if heads.span:
            head["span"] = Pointer(width, heads.span)
        if heads.relate:
            head["relate"] = Between(width, heads.relate, config.classifier_dropout)
        if heads.answer:
            head["answer"] = nn.Linear(width, 2)
        if heads.choose:
            head["choose"] = nn.Linear(width, 1)
        if heads.decoder:
            head["decoder"] = Decoder(config, heads.decoder)
        if config.modern:
            for name in ("classify", "tag", "answer", "choose"):
                if name in head:
                    head[f"{name}_transform"] = Transform(config)
        self.head = nn.ModuleDict(head)
        self.masked_losses: Callable[..., tuple[Tensor, Tensor]] = masked_losses
        self.reset(seed)

    def compile_parts(self, *, layers: bool) -> None:
        """Let torch.compile take the vocabulary loss and, if asked, the halves of each layer.

        Whole-model graphs would be compiled anew for each set of lengths; these parts see `[M, H]` and `[T, H]` only.

        Args:
            layers: compile the layers too.
        """
        self.masked_losses = torch.compile(masked_losses, dynamic=True)
        every = list(self.encoder.layers)
        if self.heads.generator:
            generator = cast(Generator, self.head["generator"])
            generator.masked_draws = torch.compile(generator.masked_draws, dynamic=True)
            every += generator.layers
        if layers:
            for layer in every:
                for name in ("project", "combine"):
                    setattr(layer, name, torch.compile(getattr(layer, name), dynamic=True))

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Draw all weights afresh (on the meta device there are none)."""
        if self.encoder.embeddings.word.weight.is_meta:
            return
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, self.config.initializer_range, generator=generator)
            if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
            if isinstance(module, MaskedLanguageModel | Generator):
                module.bias.zero_()
            if isinstance(module, Transitions):
                module.table.zero_()

    @property
    def layers(self) -> list[Layer]:
        """The encoder's layers, from the lowest to the highest."""
        return [cast(Layer, layer) for layer in self.encoder.layers]

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states `[T, H]`."""
        return self.encoder(batch)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Every head's logits.

        Args:
            batch: for the MLM head with `targets["mlm_positions"]` `[M]`, indices into the packed tokens, and for its
                loss with `targets["mlm_labels"]` `[M]`; for `relate` with `reads` `[S, 2]`. With
                `targets["target_ids"]` `[U]`, texts that are written from these sequences, and their lengths
                `targets["target_length"]` `[S]`, the MLM head is asked for what comes next. A generator takes the place
                of the MLM head; with `targets["mlm_draws"]` `[M, 2 K]` (see `generator.drawn`) the encoder sees the
                pieces that it draws, else the text with its masks.

        Returns:
            Of those heads that the model has: `mlm` `[M, V]` (or, when the labels are known, `mlm_losses` `[M]` and
            `mlm_hits` `[M]`, without ever holding the logits in fp32), `nsp` `[S, 2]` (0: B follows, 1: it does not),
            `rtd` `[T]` (the logit of being replaced) and, where pieces were drawn, `replaced` `[T]` bool,
            `classify` `[S, C]`, `mean` `[S, C]`, `tag` `[T, C]`, `crf` `[S, C + 2, C]` (the same for each), `span`
            `[T, 2 D + 2 C]` (see `pointer.Ends`), `relate` `[S, C]`, `answer` `[T, 2]` (it starts here, it ends here),
            `embed` `[S, H]`, `choose` `[S, 1]`, `next` `[U, V]`.
        """
        return self.outputs(batch, self.taps if self.training else Taps())

    def outputs(self, batch: Batch, taps: Taps) -> dict[str, Tensor]:
        """Every head's logits as `forward` gives them, and what `taps` asks for.

        Args:
            batch: as for `forward`.
            taps: adds `hidden.N` `[T, H]` and `qkv.N` `[T, 3, A, D]` of layers N, `mlm` beside its losses, and
                `vectors` `[S, H]`.
        """
        memory: list[Tensor] | None = [] if "target_ids" in batch.targets else None
        guessed: dict[str, Tensor] = {}
        if self.heads.generator and "mlm_positions" in batch.targets:
            batch, guessed = self._filled(batch)
        outputs, hidden = self._seen(batch, taps, memory)
        outputs |= guessed
        if memory is not None:
            writing = Writing.after(self, batch, memory, hidden)
            outputs["next"] = writing.taught(batch.targets["target_ids"], batch.targets["target_length"].tolist())
            return outputs
        if self.heads.rtd:
            outputs["rtd"] = self.head["rtd"](hidden)
        if self.heads.mlm and "mlm_positions" in batch.targets:
            head: Any = self.head["mlm"]
            x = head(hidden.index_select(0, batch.targets["mlm_positions"]))
            weight, bias = head.output(self.encoder.embeddings.word.weight)
            if "mlm_labels" in batch.targets:
                labels = batch.targets["mlm_labels"]
                outputs["mlm_losses"], outputs["mlm_hits"] = self.masked_losses(x, weight, bias, labels)
            if "mlm_labels" not in batch.targets or taps.pieces:
                outputs["mlm"] = F.linear(x, weight, bias)
        if self.heads.choose:
            pooled = self._before("choose", self.pooled(hidden, batch))
            outputs["choose"] = self.head["choose"](self._drop(pooled))
        if self.heads.nsp:
            outputs["nsp"] = self.head["nsp"](self.pooled(hidden, batch))
        if self.heads.classify:
            pooled = self._before("classify", self.pooled(hidden, batch))
            outputs["classify"] = self.head["classify"](self._drop(pooled))
        if self.heads.mean:
            vectors = pool(hidden, batch, "mean")
            outputs["mean"] = self.head["mean"](self._drop(vectors))
            if taps.vectors:
                outputs["vectors"] = vectors
        if self.heads.tag:
            outputs["tag"] = self.head["tag"](self._drop(self._before("tag", hidden)))
        if self.heads.crf:
            outputs["crf"] = cast(Transitions, self.head["crf"]).table.expand(batch.num_sequences, -1, -1)
        if self.heads.span:
            outputs["span"] = self.head["span"](self._drop(hidden), batch.position_ids)
        if self.heads.relate:
            assert batch.reads is not None
            outputs["relate"] = self.head["relate"](hidden[batch.reads])
        if self.heads.embed:
            outputs["embed"] = pool(hidden, batch, self.heads.embed)
        if self.heads.answer:
            # transformers drops nothing before BERT's span layer.
            x = self._before("answer", hidden)
            outputs["answer"] = self.head["answer"](self._drop(x) if self.config.modern else x)
        return outputs

    def _seen(self, batch: Batch, taps: Taps, memory: list[Tensor] | None) -> tuple[dict[str, Tensor], Tensor]:
        """What `taps` asks for, and the hidden states."""
        if not (taps.hidden or taps.qkv):
            return {}, self.encoder(batch) if memory is None else self.encoder(batch, memory)
        states = list(self.encoder.walk(batch, memory))
        shown = {f"hidden.{n}": states[n] for n in taps.hidden}
        rotary = self.encoder.rotary(batch.position_ids)
        shown |= {f"qkv.{n}": self.layers[n - 1].project(states[n - 1], rotary[n - 1]) for n in taps.qkv}
        return shown, self.encoder.last(states[-1])

    def _filled(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """The batch with the generator's pieces at the masked positions, and what it knows of these."""
        generator = cast(Generator, self.head["generator"])
        x, weight = generator(self.encoder, batch), self.encoder.embeddings.word.weight
        if "mlm_draws" not in batch.targets:
            return batch, {"mlm": F.linear(x, weight, generator.bias)}
        positions, labels, draws = (batch.targets[f"mlm_{name}"] for name in ("positions", "labels", "draws"))
        losses, hits, pieces = generator.masked_draws(x, weight, generator.bias, labels, draws)
        own = torch.zeros_like(batch.input_ids, dtype=torch.bool)
        known = {"mlm_losses": losses, "mlm_hits": hits, "replaced": own.index_copy(0, positions, pieces != labels)}
        return replace(batch, input_ids=batch.input_ids.index_copy(0, positions, pieces)), known

    def vocabulary(self, hidden: Tensor) -> Tensor:
        """Scores of all pieces, `[n, H]` to `[n, V]`, by the MLM head."""
        head: Any = self.head["mlm"]
        return F.linear(head(hidden), *head.output(self.encoder.embeddings.word.weight))

    def pooled(self, hidden: Tensor, batch: Batch) -> Tensor:
        """One vector a sequence, `[S, H]`: [CLS] through the pooler (BERT); [CLS] or the mean (modern)."""
        if self.config.modern and self.config.classifier_pooling == "mean":
            return pool(hidden, batch, "mean")
        first = hidden.index_select(0, batch.cu_seqlens[:-1])
        return first if self.pooler is None else torch.tanh(self.pooler["dense"](first))

    def _before(self, name: str, x: Tensor) -> Tensor:
        return self.head[f"{name}_transform"](x) if self.config.modern else x

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.classifier_dropout, self.training)
