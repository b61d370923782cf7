"""The computation of all-MiniLM-L6-v2 as an ONNX graph that takes its weights from the published file.

The graph holds no weights, only where each lies in `model.safetensors`; so it is small (50 kB), and the weights
are mapped from a file that all nodes of a machine share. Inputs: `ids` and `mask` (int64, batch x length);
output: `vectors` (f32, batch x 384), the normalized mean of the tokens' states. Source: BERT (Devlin et al. 2018,
section 3) with the sizes in the model's own config.json; mean pooling as its model card says.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, final

from engram.memory.embed.weights import PUBLISHED, WEIGHTS
from engram.memory.errors import WeightsRefused

DIMENSION = 384
LAYERS = 6
HEADS = 12
MAX_TOKENS = 256
_LAYER_NORM_EPSILON = 1e-12
_OPSET = 20
_IR_VERSION = 9
_GRAPH_FORMAT = 1
_MASKED = -1e9


def cached(weights: Path, cache: Path) -> bytes:
    """Return the serialised graph, built once and kept in `cache` (a folder, made when missing); blocking."""
    path = cache / f"minilm-{PUBLISHED[WEIGHTS][:16]}-{_GRAPH_FORMAT}.onnx"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        graph = build(weights)
    cache.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(graph)
    os.replace(staged, path)
    return graph


def build(weights: Path) -> bytes:
    """Return the serialised graph for the weights in that file. Raises WeightsRefused when one is missing."""
    from onnx import TensorProto, helper

    made = _Graph(weights)
    made.embeddings()
    for layer in range(LAYERS):
        made.layer(f"encoder.layer.{layer}")
    made.pool()
    graph = helper.make_graph(
        made.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIMENSION])],
        made.initializers,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="engram")
    serialised: bytes = model.SerializeToString()
    return serialised


@final
class _Graph:
    """Collects nodes; `x` names the value that flows through."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._tensors, self._base = _read_header(weights)
        self._named: set[str] = set()
        self._x = ""

    def embeddings(self) -> None:
        """Word, position and segment embeddings, added and normalised."""
        prefix = "embeddings"
        words = self._node("Gather", self._weight(f"{prefix}.word_embeddings.weight"), "ids", axis=0)
        length = self._node("Slice", self._node("Shape", "ids"), *map(self._ints, ([1], [2], [0])))
        positions = self._node(
            "Slice", self._weight(f"{prefix}.position_embeddings.weight"), self._ints([0]), length, self._ints([0])
        )
        segment = self._node("Gather", self._weight(f"{prefix}.token_type_embeddings.weight"), self._ints([0]), axis=0)
        summed = self._node("Add", self._node("Add", words, positions), segment)
        self._x = self._normalise(summed, f"{prefix}.LayerNorm")
        ones = self._node("Cast", "mask", to=1)
        absent = self._node("Sub", self._floats([1.0]), ones)
        spread = self._node("Unsqueeze", absent, self._ints([1, 2]))
        self._bias = self._node("Mul", spread, self._floats([_MASKED]))
        self._ones = ones

    def layer(self, prefix: str) -> None:
        """Self-attention and the feed-forward part, each with its residual."""
        attention = f"{prefix}.attention"
        query, key, value = (self._heads(f"{attention}.self.{part}") for part in ("query", "key", "value"))
        turned = self._node("Transpose", key, perm=[0, 1, 3, 2])
        scale = self._floats([(DIMENSION / HEADS) ** -0.5])
        scores = self._node("Mul", self._node("MatMul", query, turned), scale)
        shares = self._node("Softmax", self._node("Add", scores, self._bias), axis=-1)
        context = self._node("Transpose", self._node("MatMul", shares, value), perm=[0, 2, 1, 3])
        joined = self._node("Reshape", context, self._ints([0, 0, DIMENSION]))
        projected = self._linear(joined, f"{attention}.output.dense")
        attended = self._normalise(self._node("Add", projected, self._x), f"{attention}.output.LayerNorm")
        inner = self._node("Gelu", self._linear(attended, f"{prefix}.intermediate.dense"))
        outer = self._linear(inner, f"{prefix}.output.dense")
        self._x = self._normalise(self._node("Add", outer, attended), f"{prefix}.output.LayerNorm")

    def pool(self) -> None:
        """Return the mean over the unmasked tokens, normalized to length 1."""
        weights = self._node("Unsqueeze", self._ones, self._ints([2]))
        summed = self._node("ReduceSum", self._node("Mul", self._x, weights), self._ints([1]), keepdims=0)
        tokens = self._node("ReduceSum", self._ones, self._ints([1]), keepdims=1)
        mean = self._node("Div", summed, tokens)
        length = self._node("ReduceL2", mean, self._ints([1]), keepdims=1)
        self._node("Div", mean, length, output="vectors")

    def _heads(self, name: str) -> str:
        flat = self._linear(self._x, name)
        split = self._node("Reshape", flat, self._ints([0, 0, HEADS, DIMENSION // HEADS]))
        return self._node("Transpose", split, perm=[0, 2, 1, 3])

    def _linear(self, x: str, name: str) -> str:
        turned = self._node("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        return self._node("Add", self._node("MatMul", x, turned), self._weight(f"{name}.bias"))

    def _normalise(self, x: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", x, scale, bias, axis=-1, epsilon=_LAYER_NORM_EPSILON)

    def _node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _weight(self, name: str) -> str:
        """Name a tensor of the weights file, by place and length."""
        from onnx import TensorProto

        if name in self._named:
            return name
        self._named.add(name)
        try:
            described = self._tensors[name]
            start, end = described["data_offsets"]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=described["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsRefused(f"{WEIGHTS} has no usable tensor {name}") from error
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": str(self._base + start), "length": str(end - start)}
        for key, text in place.items():
            tensor.external_data.add(key=key, value=text)
        self.initializers.append(tensor)
        return name

    def _ints(self, values: list[int]) -> str:
        from onnx import TensorProto, helper

        return self._constant("i", helper.make_tensor("", TensorProto.INT64, [len(values)], values), values)

    def _floats(self, values: list[float]) -> str:
        from onnx import TensorProto, helper

        return self._constant("f", helper.make_tensor("", TensorProto.FLOAT, [len(values)], values), values)

    def _constant(self, kind: str, tensor: Any, values: object) -> str:
        name = f"{kind}{values}"
        if name not in self._named:
            self._named.add(name)
            tensor.name = name
            self.initializers.append(tensor)
        return name


def _read_header(weights: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors listed in a safetensors file and the offset at which its data begin."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return header, 8 + length
