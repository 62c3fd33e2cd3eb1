"""The ONNX Runtime engine: an encoder that computes padded groups of texts of nearly equal length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.core.extras import require
from bertsmith.model.dense import INPUTS, OUTPUT
from bertsmith.model.encoder import Encoder
from bertsmith.model.packing import Batch

PADDED = 0.9
WORTH_A_RUN = 256
"""A text shorter than this share of the longest of its group starts a new one, once a group has that many pieces."""


def onnx_file(bundle: Bundle) -> Path | None:
    """The ONNX model that a bundle says it holds, checked; None where it says nothing of one.

    Raises:
        BundleError: the file is absent, has no checksum in bertsmith.json, or lies outside the bundle's folder.
    """
    name = bundle.meta.get("onnx", {}).get("file")
    if name is None:
        return None
    file = bundle.path / str(name)
    if not file.resolve().is_relative_to(bundle.path.resolve()):
        raise BundleError(f"{bundle.path}: its ONNX model {name} lies outside the folder; export it again")
    if str(name) not in bundle.meta.get("files", {}):
        raise BundleError(f"{file}: bertsmith.json has no checksum of it; export it again")
    if not file.is_file():
        raise BundleError(f"{file}: named in bertsmith.json but absent; copy the bundle again")
    return file


def read_whole(file: Path) -> bytes:
    """An ONNX model whose weights are all inside the file.

    Raises:
        BundleError: it is no ONNX model, or takes weights from another file.
    """
    onnx = require("onnx", "checking an ONNX model")
    data = file.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own error, which no other package names
        raise BundleError(f"{file}: not an ONNX model ({error}); export it again") from None
    external = onnx.external_data_helper
    if any(external.uses_external_data(tensor) for tensor in external._get_all_tensors(model)):
        raise BundleError(f"{file}: takes weights from another file, which is refused; export it as one file")
    return data


class OnnxEncoder(nn.Module):
    """Takes the place of an `Encoder`, and computes by ONNX Runtime.

    Attributes:
        embeddings: those of the encoder whose place it takes, for heads that read the word table.
        threads: of the processor, as torch had them when it was made.
    """

    def __init__(self, model: bytes, encoder: Encoder) -> None:
        """Make a session.

        Args:
            model: what `model.dense.to_onnx` wrote.
            encoder: whose place it takes.

        Raises:
            BundleError: ONNX Runtime does not take the model.
            ConfigError: the package onnxruntime is absent.
        """
        super().__init__()
        runtime: Any = require("onnxruntime", "the engine onnx")
        options = runtime.SessionOptions()
        # Threads that spin between calls take the processor from torch and from all that serves around the model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.threads = options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class of its own for each of its errors
            raise BundleError(f"ONNX Runtime does not take the model ({error}); export it again") from None
        takes = {one.name for one in self.session.get_inputs()}
        if takes != set(INPUTS) or OUTPUT not in {one.name for one in self.session.get_outputs()}:
            raise BundleError(f"the ONNX model takes {', '.join(sorted(takes))}, not {', '.join(INPUTS)}; export again")
        self.config, self.max_length, self.first_position = encoder.config, encoder.max_length, 0
        self.embeddings = encoder.embeddings

    def forward(self, batch: Batch) -> Tensor:
        """A Batch of T tokens to hidden states `[T, H]` in fp32."""
        lengths = np.asarray(batch.lengths)
        ids = batch.input_ids.numpy()
        segments = np.minimum(batch.segment_ids.numpy(), max(0, self.config.type_vocab_size - 1))
        found, start = [], 0
        for group in _groups(batch.lengths):
            mine = lengths[group]
            shape = (len(mine), int(mine.max()))
            mask = np.arange(shape[1]) < mine[:, None]
            end = start + int(mine.sum())
            padded = []
            for values in (ids, segments):
                laid = np.zeros(shape, np.int64)
                laid[mask] = values[start:end]
                padded.append(laid)
            feed = dict(zip(INPUTS, (padded[0], mask.astype(np.int64), padded[1]), strict=True))
            (hidden,) = self.session.run([OUTPUT], feed)
            found.append(torch.from_numpy(hidden[mask]))
            start = end
        return found[0] if len(found) == 1 else torch.cat(found)


def _groups(lengths: tuple[int, ...]) -> list[slice]:
    """Neighbours that are padded together."""
    cuts, longest, tokens = [0], lengths[0], 0
    for place, length in enumerate(lengths):
        high = max(longest, length)
        uneven = length < PADDED * longest or longest < PADDED * length
        if uneven and tokens >= WORTH_A_RUN:
            cuts.append(place)
            high, tokens = length, 0
        longest, tokens = high, tokens + length
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]
