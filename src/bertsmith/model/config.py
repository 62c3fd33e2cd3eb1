"""The shape of an encoder: one frozen value that covers BERT and the modern shape (ModernBERT)."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bertsmith.core.config import Config


class ModelConfig(Config):
    """What an encoder is made of. Names are those of Hugging Face's configs where they have one.

    Source: Devlin et al. 2019 (arXiv:1810.04805) for `bert`; Warner et al. 2024 (arXiv:2412.13663) for `modernbert`.
    """

    architecture: Literal["bert", "modernbert"] = Field(
        "bert", description="bert: post-norm, learned positions, GELU; modernbert: pre-norm, rotary positions, GeGLU"
    )
    vocab_size: int = Field(30522, ge=6, description="number of WordPiece pieces; set from the vocabulary")
    hidden_size: int = Field(256, ge=8, description="width of the residual stream")
    num_hidden_layers: int = Field(4, ge=1, description="number of layers")
    num_attention_heads: int = Field(4, ge=1, description="attention heads; must divide hidden_size")
    intermediate_size: int = Field(1024, ge=1, description="width of the feed-forward layer")
    max_position_embeddings: int = Field(512, ge=8, description="longest sequence, in pieces")
    type_vocab_size: int = Field(2, ge=0, description="token types (segments A and B); 0 for modernbert")
    hidden_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on embeddings and on each sublayer's output")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on attention probabilities")
    classifier_dropout: float = Field(0.1, ge=0, lt=1, description="dropout before a task head")
    layer_norm_eps: float = Field(1e-12, gt=0, description="added to the variance in layer normalisation")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of fresh weights")
    pad_token_id: int = Field(0, ge=0, description="id of [PAD]")
    tie_word_embeddings: bool = Field(True, description="share the word embedding with the MLM head's output")
    hidden_act: Literal["gelu", "gelu_new", "relu"] = Field("gelu", description="activation of the feed-forward layer")
    bias: bool = Field(True, description="biases in linear layers and layer norms of the encoder (modernbert: false)")
    global_attention_every: int = Field(
        1, ge=1, description="every n-th layer attends globally, others locally; 1: all"
    )
    local_attention: int = Field(128, ge=2, description="window of local layers in tokens, both sides together")
    global_rope_theta: float = Field(160_000.0, gt=0, description="rotary base of global layers")
    local_rope_theta: float = Field(10_000.0, gt=0, description="rotary base of local layers")
    classifier_pooling: Literal["cls", "mean"] = Field("cls", description="what a classification head reads")

    @model_validator(mode="before")
    @classmethod
    def _modern_defaults(cls, values: Any) -> Any:
        """What the modern shape means where nothing else is said."""
        if isinstance(values, dict) and values.get("architecture") == "modernbert":
            modern = {
                "type_vocab_size": 0,
                "bias": False,
                "layer_norm_eps": 1e-5,
                "global_attention_every": 3,
                "classifier_dropout": 0.0,
            }
            return modern | values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.architecture == "bert" and not (self.bias and self.type_vocab_size):
            raise ValueError("bert has biases and at least one token type: leave bias and type_vocab_size alone")
        if self.architecture == "modernbert" and self.type_vocab_size:
            raise ValueError("modernbert has no token types: leave type_vocab_size at 0")
        if self.architecture == "modernbert" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.head_size}")
        if self.architecture == "bert" and self.global_attention_every != 1:
            raise ValueError("local attention (global_attention_every > 1) belongs to architecture modernbert")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def modern(self) -> bool:
        """Pre-norm, rotary positions, GeGLU."""
        return self.architecture == "modernbert"

    def window(self, layer: int) -> int | None:
        """How far layer `layer` sees to each side, in tokens; None: everywhere."""
        return None if layer % self.global_attention_every == 0 else self.local_attention // 2


class Heads(Config):
    """Which heads a model carries; a size of 0 means none."""

    mlm: bool = Field(False, description="masked language model")
    nsp: bool = Field(False, description="pairs of texts: next sentence or sentence order")
    rtd: bool = Field(False, description="replaced-token detection: whether each token is the text's own")
    generator: int = Field(0, ge=0, description="attention heads of the small model that fills masks for rtd")
    classify: int = Field(0, ge=0, description="classes of a sequence (1 and not multi: regression)")
    mean: int = Field(0, ge=0, description="classes of a sequence, read from the mean of its pieces")
    multi: bool = Field(False, description="a sequence may belong to several classes, or to none")
    tag: int = Field(0, ge=0, description="classes of a token")
    crf: bool = Field(False, description="scores of tags that follow each other, beside tag")
    span: int = Field(0, ge=0, description="types of stretches, which may be nested")
    relate: int = Field(0, ge=0, description="classes of two marked places of a sequence")
    embed: Literal["", "cls", "mean"] = Field("", description="one vector a sequence: of [CLS], or the mean")
    answer: bool = Field(False, description="where an answer starts and ends")
    choose: bool = Field(False, description="how well a choice fits: one number a sequence")
    decoder: int = Field(0, ge=0, description="layers that write a text while they read the encoder's; needs mlm")
