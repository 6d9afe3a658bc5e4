"""How the tests speak to a server: through the clients, in bytes of their own, and to its metrics."""

import base64
import io
import json
import re
import urllib.error
import urllib.request

import grpc
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2

from tf_pivae.export.client import GrpcClient, RestClient

MAX_BYTES = 500_000
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def connect(server, protocol, **options):
    if protocol == "grpc":
        return GrpcClient(server.address, **options)
    return RestClient(server.url, **options)


def same(actual, expected):
    """Within the rounding of the contract: one grey level, 1e-5."""
    actual = np.asarray(actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if actual.dtype == np.uint8:
        return np.abs(actual.astype(int) - expected).max() <= 1
    return np.allclose(actual, expected, rtol=1e-5, atol=1e-5)


def raw_predict(server):
    channel = grpc.insecure_channel(server.address)
    return channel, channel.unary_unary(PREDICT)


def request_bytes(signature="log_prob", name="pivae", output_filter=(), version=None, **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        proto = value if isinstance(value, TensorProto) else tf.make_tensor_proto(value)
        request.inputs[key].CopyFrom(proto)
    return request.SerializeToString()


def claimed(shape, dtype="uint8", **values):
    proto = tf.make_tensor_proto(np.zeros([1], dtype))
    proto.ClearField("int_val")
    proto.ClearField("tensor_content")
    del proto.tensor_shape.dim[:]
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    proto.MergeFrom(type(proto)(**values))
    return proto


def as_numbers(array):
    """A tensor as TensorFlow Serving writes it: number by number, pixels of 128 and more as two bytes."""
    numbers = {"int_val" if array.dtype == np.uint8 else "float_val": array.ravel().tolist()}
    shape = tf.TensorShape(array.shape).as_proto()
    return TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum, tensor_shape=shape, **numbers)


def png(image):
    """The bytes of a PNG of uint8 [H, W, 1]."""
    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "png")
    return stream.getvalue()


ONE = np.zeros([1, 4, 4, 1], np.uint8)
PNG = png(ONE[0])
BOMB = png(np.zeros([5000, 5000, 1], np.uint8))
LATENTS = {"top": (3,), "top_down_0": (4, 4, 2)}


def latents(rows, value=0.0, **changed):
    groups = {name: np.full([rows, *shape], value, np.float32) for name, shape in LATENTS.items()}
    return {**groups, **changed}


def post(server, body, path="/v1/models/pivae:predict"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(server.url + path, body, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def b64(data):
    return base64.b64encode(data).decode()


def by_rows(signature, *rows):
    return {"signature_name": signature, "instances": list(rows)}


def metric(server, name, **labels):
    with urllib.request.urlopen(server.url + "/monitoring/prometheus/metrics") as response:
        for line in response.read().decode().splitlines():
            if re.split(r"[ {]", line)[0] == name and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.split()[-1])
    return 0.0
