"""No place of an ONNX graph may name a file: whoever answers with it would answer with what that file holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cytoray_analysis.errors import BundleError
from cytoray_analysis.networks.onnx_network import open_graph


def beside(name: str = "secret") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "tokens.json"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def plain() -> ModelProto:
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [pixels], [answer])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def sparse() -> onnx.SparseTensorProto:
    places = numpy_helper.from_array(np.arange(4, dtype=np.int64), "places")
    return helper.make_sparse_tensor(beside(), places, [8])


def in_a_function(model: ModelProto) -> None:
    node = helper.make_node("Constant", [], ["z"], value=beside())
    model.functions.append(helper.make_function("own", "F", [], ["z"], [node], [helper.make_opsetid("", 20)]))


def in_a_branch(model: ModelProto) -> None:
    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=beside())], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))


PLACES: dict[str, Callable[[ModelProto], object]] = {
    "initializer": lambda model: model.graph.initializer.append(beside()),
    "constant": lambda model: model.graph.node.append(helper.make_node("Constant", [], ["z"], value=beside())),
    "tensors of an attribute": lambda model: model.graph.node.append(
        helper.make_node("Own", [], ["z"], domain="own", several=[beside(), beside()])
    ),
    "branch": in_a_branch,
    "function": in_a_function,
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse()),
    "sparse constant": lambda model: model.graph.node.append(
        helper.make_node("Constant", [], ["z"], sparse_value=sparse())
    ),
    "training": lambda model: model.training_info.add().initialization.initializer.append(beside()),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_graph_that_names_a_file_is_refused(place: str) -> None:
    model = plain()
    PLACES[place](model)
    with pytest.raises(BundleError, match="in other files, such as 'secret'"):
        open_graph(model.SerializeToString())


def test_a_file_is_not_named_behind_another_location() -> None:
    model = plain()
    tensor = beside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)
    with pytest.raises(BundleError, match="in other files"):
        open_graph(model.SerializeToString())


def test_a_graph_that_holds_all_it_needs_is_opened() -> None:
    assert open_graph(plain().SerializeToString()).get_inputs()[0].name == "x"
