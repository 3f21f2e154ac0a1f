"""What a GPU would do with a traced function, asked of TensorFlow's registry without a GPU.

TensorFlow's wheel registers its GPU kernels on machines without a GPU too. A kernel says for which
types it is and which of its arguments it keeps in the host's memory: most integer arithmetic in
int32 is computed on the host, so that shapes and loop counters need not come back from the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph, kernels

HOST, DEVICE = "host", "device"
# They compute nothing: the runtime replaces them, or inlines the functions that they call.
_CALLS = {"PartitionedCall": "f", "StatefulPartitionedCall": "f"}
_BRANCHES = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
_LOOPS = {"While": ("cond", "body"), "StatelessWhile": ("cond", "body")}
_NO_KERNEL = {"Placeholder", "NoOp"}


@cache
def _registered(operation: str) -> Sequence[Any]:
    """GPU kernels first, those for any device after them."""
    found = kernels.get_registered_kernels_for_op(operation).kernel
    return [k for kind in ("GPU", "DEFAULT") for k in found if k.device_type == kind]


def has_registered_gpu_kernels() -> bool:
    """Whether this build of TensorFlow knows GPU kernels at all; `tensorflow-cpu` does not."""
    return bool(kernels.get_registered_kernels_for_op("Conv2D").kernel) and any(
        kernel.device_type == "GPU" for kernel in _registered("Conv2D")
    )


def gpu_faults(function: Any) -> list[str]:
    """Operations of a concrete function that a GPU has no kernel for, or that wait for it.

    Args:
        function: from `tf.function(...).get_concrete_function(...)`.

    Returns:
        "Operation(types) ..." each, without repetition: no kernel, so that the host computes it
        and all its inputs are copied there; or a kernel that takes what the GPU has computed in
        the host's memory.
    """
    graph = function.graph
    library = {item.signature.name: item for item in graph.as_graph_def().library.function}
    memory = {tensor.name: _of_argument(tensor) for tensor in graph.inputs}
    return list(dict.fromkeys(_faults(graph, memory, library)))


def _of_argument(tensor: tf.Tensor) -> str:
    return HOST if tensor.dtype in (tf.int32, tf.resource, tf.variant, tf.string) else DEVICE


def _faults(graph: Any, memory: dict[str, str], library: Mapping[str, Any]) -> Iterator[str]:
    """Of a graph and the functions that it calls; `memory` gains where each output lies."""
    for operation in graph.get_operations():
        kind = operation.type
        inside = [_CALLS[kind]] if kind in _CALLS else [*_BRANCHES.get(kind, _LOOPS.get(kind, ()))]
        if inside:
            yield from _inside(operation, inside, memory, library)
        elif kind == "Const":  # known beforehand: it is put where it is needed
            memory[operation.outputs[0].name] = HOST
        elif kind not in _NO_KERNEL:
            yield from _fault(operation, memory)


def _inside(
    operation: Any, attributes: Sequence[str], memory: dict[str, str], library: Mapping[str, Any]
) -> Iterator[str]:
    given = [memory.get(tensor.name, DEVICE) for tensor in operation.inputs]
    given = given[1:] if operation.type in _BRANCHES else given
    for attribute in attributes:
        definition = library[operation.get_attr(attribute).name]
        graph = function_def_to_graph.function_def_to_graph(definition)
        within = {t.name: place for t, place in zip(graph.inputs, given, strict=True)}
        yield from _faults(graph, within, library)
        results = [within.get(tensor.name, DEVICE) for tensor in graph.outputs]
    memory.update({t.name: place for t, place in zip(operation.outputs, results, strict=True)})


def _fault(operation: Any, memory: dict[str, str]) -> Iterator[str]:
    types = [tensor.dtype.name for tensor in operation.inputs]
    shown = f"{operation.type}({', '.join(types)})"
    kernel = next((k for k in _registered(operation.type) if _fits(k, operation)), None)
    if kernel is None:
        memory.update({tensor.name: HOST for tensor in operation.outputs})
        yield f"{shown} has no GPU kernel"
        return
    on_host = set(kernel.host_memory_arg)
    names = _argument_names(operation)
    for (name, is_input), tensor in names:
        if is_input and name in on_host and memory.get(tensor.name) == DEVICE:
            yield f"{shown} waits for the GPU: its {name!r} is in the host's memory"
        if not is_input:
            memory[tensor.name] = HOST if name in on_host else DEVICE


def _fits(kernel: Any, operation: Any) -> bool:
    for constraint in kernel.constraint:
        try:
            value = operation.get_attr(constraint.name)
        except ValueError:
            return False
        types = value if isinstance(value, list) else [value]
        allowed = set(constraint.allowed_values.list.type)
        if any(isinstance(t, tf.DType) and t.as_datatype_enum not in allowed for t in types):
            return False
    return True


def _argument_names(operation: Any) -> Iterator[tuple[tuple[str, bool], tf.Tensor]]:
    """((name, whether it is an input), tensor) of all inputs and outputs, lists taken apart."""
    definition = operation.op_def
    for tensors, arguments, is_input in (
        (operation.inputs, definition.input_arg, True),
        (operation.outputs, definition.output_arg, False),
    ):
        rest = iter(tensors)
        for argument in arguments:
            count = 1
            if argument.number_attr:
                count = operation.get_attr(argument.number_attr)
            elif argument.type_list_attr:
                count = len(operation.get_attr(argument.type_list_attr))
            for _ in range(count):
                yield (argument.name, is_input), next(rest)
