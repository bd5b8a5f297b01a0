"""Building an ONNX graph node by node: names, constants, and the few operators that the network is made of.

All of them are in operator set 17 (https://github.com/onnx/onnx/blob/main/docs/Operators.md). A value is known by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # of operator set 17; newer ones are refused by runtimes of its time

Dimensions = Sequence[object]  # numbers, or names of sizes that are free
Constant = Union[np.ndarray, np.generic, Sequence[int], float]


class Graph:
    """A graph under construction. Every method adds nodes and returns the name of their result."""

    def __init__(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        self.name, self.tensors = name, tensors
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def node(self, operator: str, *inputs: str | Constant, **attributes: Any) -> str:
        """Any operator with one result. Inputs are names of values, or constants: float32, or vectors of int64."""
        values = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, values, [result], **attributes))
        return result

    def constant(self, value: Constant, name: str | None = None) -> str:
        """An array that belongs to the graph."""
        name = name or f"constant_{len(self._constants)}"
        if name not in self._constants:
            kind = np.float32 if isinstance(value, (int, float)) else None
            self._constants[name] = numpy_helper.from_array(np.array(value, kind, order="C"), name)
        return name

    def weight(self, name: str) -> str:
        """A tensor of the checkpoint."""
        return self.constant(self.tensors[name].astype(np.float32), name)

    def input(self, name: str, dimensions: Dimensions) -> str:
        """A float32 input; names among the dimensions are free."""
        self._inputs.append(self._value(name, dimensions))
        return name

    def output(self, value: str, name: str, dimensions: Dimensions) -> None:
        """Hand ``value`` out as ``name``."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, dimensions))

    def _value(self, name: str, dimensions: Dimensions) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dimensions))

    def model(self, metadata: Mapping[str, str]) -> Any:
        """The finished model, checked."""
        constants = list(self._constants.values())
        model = helper.make_model(
            helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cpanet",
        )
        helper.set_model_props(model, dict(metadata))
        checker.check_model(model, full_check=True)
        return model

    # ------------------------------------------------------------------ layers

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def conv(
        self,
        x: str,
        name: str,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        columns: slice | None = None,
    ) -> str:
        """The convolution ``name`` of the checkpoint, or of its weight the input channels ``columns``."""
        weight = self.tensors[f"{name}.weight"].astype(np.float32)
        if columns is not None:
            inputs = [self.constant(weight[:, columns], f"{name}.weight[{columns.start}:{columns.stop}]")]
        else:
            inputs = [self.weight(f"{name}.weight")]
        if f"{name}.bias" in self.tensors:
            inputs.append(self.weight(f"{name}.bias"))
        return self.node(
            "Conv",
            x,
            *inputs,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride] * 2,
            pads=[padding] * 4,
            dilations=[dilation] * 2,
        )

    def batch_norm(self, x: str, name: str) -> str:
        parts = (self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
        return self.node("BatchNormalization", x, *parts, epsilon=1e-5)

    def max_pool(self, x: str, size: int, stride: int, padding: int = 0, ceil: bool = False) -> str:
        return self.node(
            "MaxPool",
            x,
            kernel_shape=[size] * 2,
            strides=[stride] * 2,
            pads=[padding] * 4,
            ceil_mode=int(ceil),
        )

    def shape(self, x: str, start: int, end: int) -> str:
        """Sizes of the axes from ``start`` up to ``end``."""
        return self.node("Slice", self.node("Shape", x), [start], [end])

    def upsample(self, x: str, like: str) -> str:
        """Bilinear with corners aligned, x (N, C, h, w) to the height and width of ``like`` (N', C', H, W)."""
        sizes = self.node("Concat", self.shape(x, 0, 2), self.shape(like, 2, 4), axis=0)
        return self.node(
            "Resize",
            x,
            "",
            "",
            sizes,
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )

    def area(self, x: str, like: str) -> str:
        """Mean over the area of each cell of a smaller grid, x (N, C, H, W) to the height and width of ``like``.

        The cells are those of :func:`cpanet.models.masks.area_matrix`.
        """
        rows, columns = (self._area_matrix(x, like, axis) for axis in (2, 3))
        return self.node("MatMul", self.node("MatMul", rows, x), self.node("Transpose", columns, perm=[1, 0]))

    def _area_matrix(self, x: str, like: str, axis: int) -> str:
        """Matrix (n_out, n_in) of one axis."""
        half, one, zero = (self.constant(np.float32(v), f"number_{v}") for v in (0.5, 1.0, 0.0))
        n_in, n_out = (
            self.node("Squeeze", self.node("Cast", self.shape(v, axis, axis + 1), to=1)) for v in (x, like)
        )
        gaps = self.node("Max", self.node("Sub", n_out, one), one)
        step = self.node("Div", self.node("Sub", n_in, one), gaps)
        centre = self.node("Mul", self.node("Range", zero, n_out, one), step)
        reach = self.node("Mul", step, half)
        edges = (
            self.node("Clip", self.node("Add", self.node(operator, centre, reach), half), zero, n_in)
            for operator in ("Sub", "Add")
        )
        starts, ends = (self.node("Unsqueeze", edge, [1]) for edge in edges)
        pixels = self.node("Range", zero, n_in, one)
        right = self.node("Min", ends, self.node("Add", pixels, one))
        covered = self.relu(self.node("Sub", right, self.node("Max", starts, pixels)))
        return self.node("Div", covered, self.node("ReduceSum", covered, [1], keepdims=1))
