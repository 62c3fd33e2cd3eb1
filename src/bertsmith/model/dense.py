"""The export path: BERT's layers as one ONNX graph over padded texts, in fp32 or with matrix products in int8.

Written with ONNX Runtime's own fused operators (attention, skip and norm, quantised product), so that nothing has to
find them again in a traced graph. Which layers become int8 is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.core.extras import require
from bertsmith.model.encoder import Encoder
from bertsmith.model.lowered import is_plain

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
OPSET = 20
IR = 10
OURS = "com.microsoft"
"""The domain of ONNX Runtime's fused operators."""
WORDS = "embeddings.word"
"""What the table of words is called among the parts that can be int8."""


def parts(encoder: Encoder) -> list[str]:
    """The names of what can be int8: the table of words, and four products a layer, from the lowest up."""
    names = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    return [WORDS, *(f"layers.{i}.{name}" for i in range(len(encoder.layers)) for name in names)]


def to_onnx(encoder: Encoder, int8: Collection[str] = (), *, bits: int = 8) -> bytes:
    """Write an encoder as an ONNX model with all weights inside.

    Inputs are `input_ids`, `attention_mask` and `token_type_ids` `[B, L]` int64, the output is `last_hidden_state`
    `[B, L, H]`, as transformers and Optimum name them; B and L are free.

    Args:
        encoder: of architecture `bert`, on the CPU, without adapters.
        int8: names out of `parts`; each output column of a weight gets a scale of its own, activations one a batch,
            found anew for each.
        bits: 8; 7 for processors without VNNI, whose products of 8 bits overflow.

    Returns:
        The serialised model.

    Raises:
        ConfigError: a shape that this path does not write, or the package onnx is absent.
    """
    if encoder.config.modern:
        raise ConfigError("models of type modernbert cannot be exported to ONNX here; use --engine torch")
    if not is_plain(encoder):
        raise ConfigError("a model with adapters cannot be exported to ONNX; make it whole with `convert --merge`")
    return _Graph(set(int8), bits).encoder(encoder)


class _Graph:
    """A graph that is put together from its inputs to its output."""

    def __init__(self, int8: set[str], bits: int) -> None:
        self.onnx: Any = require("onnx", "exporting a model")
        self.int8, self.most = int8, 2 ** (bits - 1) - 1
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def encoder(self, encoder: Encoder) -> bytes:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        config = encoder.config
        mask = INPUTS[1]
        x = self.embeddings(encoder)
        mask = self.node("Cast", [mask], to=kinds.INT32)
        for index, layer in enumerate(encoder.layers):
            name = f"layers.{index}"
            attention: Any = layer.attention
            mlp: Any = layer.mlp
            qkv = self.product(x, attention.qkv, f"{name}.attention.qkv")
            q, k, v = (self.out() for _ in range(3))
            self.nodes.append(helper.make_node("Split", [qkv], [q, k, v], axis=-1, num_outputs=3))
            heads = config.num_attention_heads
            context = self.node("MultiHeadAttention", [q, k, v, "", mask], OURS, num_heads=heads)
            out = self.product(context, attention.out, f"{name}.attention.out")
            x = self.skip_norm(x, out, layer.attention_norm)
            inner = self.product(x, mlp.up, f"{name}.mlp.up")
            if mlp.activation_name == "relu":
                inner = self.node("Relu", [inner])
            else:
                inner = self.node("Gelu", [inner], approximate="tanh" if mlp.activation_name == "gelu_new" else "none")
            x = self.skip_norm(x, self.product(inner, mlp.down, f"{name}.mlp.down"), layer.mlp_norm)
        self.nodes.append(helper.make_node("Identity", [x], [OUTPUT]))
        shape: list[str | int] = ["batch", "length"]
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(name, kinds.INT64, shape) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, kinds.FLOAT, [*shape, config.hidden_size])],
            list(self.constants.values()),
        )
        sets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OURS, 1)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=IR, producer_name="bertsmith")
        return bytes(model.SerializeToString())

    def embeddings(self, encoder: Encoder) -> str:
        tables: Any = encoder.embeddings
        ids, _, segments = INPUTS
        if WORDS in self.int8:
            rows, scales = self.quantized(tables.word.weight.detach(), axis=1)
            table, scale = self.constant("words", rows), self.constant("word_scales", scales[:, None])
            low = self.node("Cast", [self.node("Gather", [table, ids])], to=self.onnx.TensorProto.FLOAT)
            words = self.node("Mul", [low, self.node("Gather", [scale, ids])])
        else:
            words = self.node("Gather", [self.weight("words", tables.word.weight), ids])
        length = self.node("Shape", [ids], start=1, end=2)
        zero = self.constant("zero", np.zeros(1, np.int64))
        places = self.node("Slice", [self.weight("positions", tables.position.weight), zero, length, zero])
        kinds = self.node("Gather", [self.weight("segments", tables.segment.weight), segments])
        x = self.node("Add", [self.node("Add", [words, kinds]), places])
        norm = tables.norm
        weights = [self.weight("embeddings.norm", norm.weight), self.weight("embeddings.norm.bias", norm.bias)]
        return self.node("LayerNormalization", [x, *weights], epsilon=norm.eps, axis=-1)

    def product(self, x: str, linear: Any, name: str) -> str:
        """`x` `[B, L, n]` times the weight of `linear`, and its bias."""
        weight = linear.weight.detach().T
        bias = self.weight(f"{name}.bias", linear.bias)
        if name in self.int8:
            low, scales = self.quantized(weight, axis=0)
            weights = [self.constant(name, low), self.constant(f"{name}.scales", scales)]
            return self.node("DynamicQuantizeMatMul", [x, *weights, "", bias], OURS)
        return self.node("Add", [self.node("MatMul", [x, self.weight(name, weight)]), bias])

    def skip_norm(self, x: str, added: str, norm: Any) -> str:
        name = f"norm.{len(self.nodes)}"
        weights = [self.weight(name, norm.weight), self.weight(f"{name}.bias", norm.bias)]
        return self.node("SkipLayerNormalization", [x, added, *weights], OURS, epsilon=norm.eps)

    def quantized(self, weight: Tensor, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """A weight rounded to int8 around 0, and a scale for each slice along `axis`."""
        scales = (weight.abs().amax(axis, keepdim=True) / self.most).clamp_min(1e-12)
        low = torch.round(weight / scales).to(torch.int8)
        return low.numpy(), scales.squeeze(axis).float().numpy()

    def weight(self, name: str, tensor: Tensor) -> str:
        return self.constant(name, tensor.detach().float().numpy())

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        out = self.out()
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [out], domain=domain, **attributes))
        return out

    def out(self) -> str:
        self.made = getattr(self, "made", 0) + 1
        return f"t{self.made}"
