"""Small ONNX files for the tests: what is red is salient. Built with ONNX's own helpers, tensor by tensor."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from coseglib.models.backbones import Origin

RED = np.array([[8.0, -4.0, -4.0]], np.float32)  # logits of a pixel in [0, 1]: 8 r − 4 g − 4 b − 1
BIAS = np.array([-1.0], np.float32)


def red(
    file: Path, side: int | str = 64, sigmoid: bool = False, normalised: bool = True, kind: int = TensorProto.FLOAT
) -> Path:
    """x (1, 3, side, side) -> first `maps` (1, 1, side, side), logits or their sigmoid, and `other`, of two channels.

    normalised  x is expected with ImageNet's mean and standard deviation taken out, else in [0, 1]
    """
    mean, std = (np.array(of, np.float32) for of in (Origin().mean, Origin().std))
    weight, bias = (RED * std, BIAS + RED @ mean) if normalised else (RED, BIAS)
    numpy_kind = helper.tensor_dtype_to_np_dtype(kind)
    tensors = [
        numpy_helper.from_array(weight.reshape(1, 3, 1, 1).astype(numpy_kind), "weight"),
        numpy_helper.from_array(bias.astype(numpy_kind), "bias"),
    ]
    nodes = [helper.make_node("Conv", ["x", "weight", "bias"], ["z"])]
    nodes += [helper.make_node("Sigmoid" if sigmoid else "Identity", ["z"], ["maps"])]
    nodes += [helper.make_node("Concat", ["z", "z"], ["other"], axis=1)]
    inputs = [helper.make_tensor_value_info("x", kind, [1, 3, side, side])]
    outputs = [helper.make_tensor_value_info(name, kind, [1, n, side, side]) for name, n in (("maps", 1), ("other", 2))]
    return write(file, helper.make_graph(nodes, "red", inputs, outputs, tensors))


def write(file: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.write_bytes(model.SerializeToString())
    return file


def elsewhere(file: Path, location: str, deep: bool = False) -> Path:
    """The file again, its weight said to lie in another file; deep: a constant within a branch of the graph instead."""
    model = onnx.load_model_from_string(file.read_bytes())
    if deep:
        value = numpy_helper.from_array(np.zeros((1, 1, 64, 64), np.float32), "deep")
        branch = helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value=value)],
            "branch",
            [],
            [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
        )
        condition = numpy_helper.from_array(np.array(True), "yes")
        model.graph.initializer.append(condition)
        model.graph.node.append(helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch))
        tensor = model.graph.node[-1].attribute[0].g.node[0].attribute[0].t
    else:
        tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")
    file.write_bytes(model.SerializeToString())
    return file
