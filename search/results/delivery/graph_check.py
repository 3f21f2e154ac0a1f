"""What a SavedModel's functions compute, checked before TensorFlow loads it: arithmetic alone.

A SavedModel may hold operations that read, write or fetch files. Loading executes none but those
of its functions and initializers, which the object graph names; what these reach is looked through.
"""

from collections.abc import Iterator
from typing import Any

# What nets, heads and all backbones consist of once exported, and their near relations.
OPERATIONS = """
    Abs Add AddN AddV2 All Any ArgMax AvgPool BatchMatMulV2 BiasAdd BroadcastTo Cast ConcatV2
    Const Conv2D Cumsum DepthwiseConv2dNative DisableCopyOnRead Einsum Elu Equal Erf Erfc Exp
    ExpandDims Fill FusedBatchNormV3 GatherV2 Greater GreaterEqual Identity IdentityN LeakyRelu
    Less LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean Min Minimum
    Mul Neg NoOp NotEqual OnesLike Pack Pad PadV2 PartitionedCall Placeholder Pow Prod Range Rank
    ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear ReverseV2 Rint Round Rsqrt
    Select SelectV2 Shape Sigmoid Slice Softmax Softplus Split SplitV Sqrt Square
    SquaredDifference Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Tile
    Transpose Unpack ZerosLike
"""
ARITHMETIC = frozenset(OPERATIONS.split())


def check_functions(saved_model: bytes) -> None:
    """Refuses a SavedModel that computes anything but `ARITHMETIC`.

    Args:
        saved_model: The bytes of `saved_model.pb`.

    Raises:
        ValueError: It does, or is none that Keras 3 wrote.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel()
    model.ParseFromString(saved_model)
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].object_graph_def.nodes:
        raise ValueError("it has no object graph, which every SavedModel of Keras 3 has")
    graph = model.meta_graphs[0]
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    waiting = [*graph.object_graph_def.concrete_functions]
    seen = set(waiting)
    while waiting:
        function = library.get(waiting.pop())
        for node in function.node_def if function is not None else ():
            if node.op not in ARITHMETIC and node.op not in library:
                raise ValueError(
                    f"it holds the operation {node.op!r:.60}, which no model of pawtune's has; it "
                    "may touch files, so it was not loaded"
                )
            called = {*_functions_in(node), node.op} & library.keys() - seen
            seen |= called
            waiting += called


def _functions_in(node: Any) -> Iterator[str]:
    """Names of the functions that a node calls."""
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)
