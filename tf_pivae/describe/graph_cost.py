"""What a TensorFlow graph costs, read off its operations: arithmetic, and memory."""

import heapq
import math
from collections.abc import Iterable

import tensorflow as tf

# Convolutions and matrix products: input and gradients of a convolution are convolutions as well.
_CONVOLUTIONS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
_PRODUCTS = ("MatMul", "BatchMatMulV2")
# These hand a buffer on instead of filling another one.
_VIEWS = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient")
_LOOPS = ("While", "StatelessWhile")
_STATELESS_SOURCES = ("Const", "Placeholder", "ReadVariableOp", "VarHandleOp")


def executed(graph: tf.Graph) -> list[tf.Operation]:
    """The operations that lead to a result or to a change of a variable; TensorFlow drops the others when it runs.

    A gradient is written down for every input of an operation, wanted or not.

    Args:
      graph: `FuncGraph` of a `tf.function`.

    Returns:
      List of `tf.Operation`.
    """
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    operations = {}
    while waiting:
        operation = waiting.pop()
        if operation.name not in operations:
            operations[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return list(operations.values())


def flops(operations: Iterable[tf.Operation]) -> int:
    """Floating-point operations of convolutions and matrix products; a multiplication and an addition are two.

    Positions in the padding count, as they do in TensorFlow's profiler. Everything elementwise is left out: it costs
    memory traffic, not arithmetic. A loop counts as often as its `maximum_iterations`, once if it has none.

    Args:
      operations: `tf.Operation`s with static shapes.
    """
    return sum(_operation_flops(operation) for operation in operations)


def _body(loop):
    """The graph of one turn of a loop."""
    return loop.graph._get_function(loop.get_attr("body").name).graph


def _operation_flops(operation):
    if operation.type in _LOOPS:
        turns = tf.get_static_value(operation.inputs[1])  # `maximum_iterations`; -1 if it is unknown.
        return max(1, int(turns or 1)) * flops(executed(_body(operation)))
    if operation.type in _CONVOLUTIONS:
        # Multiplications: those of the kernel at each place of the output (for a transposed one, of its input).
        kernel = _kernel(operation)
        output = operation.outputs[0] if operation.type == "Conv2D" else operation.inputs[2]
        height, width, channels, _ = kernel.shape
        return 2 * math.prod(output.shape) * height * width * channels
    if operation.type in _PRODUCTS:
        transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
        return 2 * math.prod(operation.outputs[0].shape) * operation.inputs[0].shape[-2 if transposed else -1]
    return 0


def largest_kernels_bytes(operations: Iterable[tf.Operation], count: int) -> int:
    """Bytes of the kernels of the `count` convolutions, forward or backward, among operations that have the largest."""
    kernels = [_kernel(operation) for operation in operations if operation.type in _CONVOLUTIONS]
    return sum(heapq.nlargest(count, (math.prod(kernel.shape) * kernel.dtype.size for kernel in kernels)))


def _kernel(convolution):
    """The tensor that is a convolution's kernel, or the gradient of one."""
    place = {"Conv2D": 1, "Conv2DBackpropInput": 1, "Conv2DBackpropFilter": None}[convolution.type]
    return convolution.outputs[0] if place is None else convolution.inputs[place]


def peak_bytes(graph: tf.Graph) -> int:
    """Most bytes that tensors hold at a time if a graph runs in the order in which it was written.

    A tensor lives from the operation that makes it to the last one that reads it; a view lives in the buffer that it
    shows. Variables, constants and arguments are not counted, nor is the workspace of the kernels. An elementwise
    operation needs its result beside its arguments: in-place forwarding, which would save some, is not modelled. A loop
    runs one turn at a time, and holds what a turn holds.

    Args:
      graph: `tf.Graph` with static shapes.
    """
    operations = graph.get_operations()
    buffers = {}
    last_use = {}
    for i, operation in enumerate(operations):
        for j, tensor in enumerate(operation.outputs):
            source = operation.inputs[min(j, len(operation.inputs) - 1)] if operation.type in _VIEWS else None
            buffers[id(tensor)] = buffers.get(id(source)) if source is not None else _buffer(tensor, operation)
        for tensor in operation.inputs:
            if buffers.get(id(tensor)) is not None:
                last_use[buffers[id(tensor)][0]] = i
    live = 0
    peak = 0
    dying: dict[int, list[int]] = {}
    for i, operation in enumerate(operations):
        if operation.type in _LOOPS:
            peak = max(peak, live + peak_bytes(_body(operation)))
        for tensor in operation.outputs:
            buffer = buffers[id(tensor)]
            if buffer is not None and buffer[0] == tensor.name:  # It owns the buffer.
                live += buffer[1]
                dying.setdefault(last_use.get(tensor.name, i), []).append(buffer[1])
        peak = max(peak, live)
        live -= sum(dying.pop(i, ()))
    return peak


def _buffer(tensor, operation):
    """Name and size of the buffer that a tensor fills, or None where it fills none."""
    if operation.type in _STATELESS_SOURCES or not tensor.dtype.size or not tensor.shape.is_fully_defined():
        return None
    return tensor.name, math.prod(tensor.shape) * tensor.dtype.size
