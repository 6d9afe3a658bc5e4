"""Requests that a server answers before it takes traffic, so that no client waits for a first, slow run.

TensorFlow Serving reads them from `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`.
"""

from pathlib import Path

import tensorflow as tf

from tf_pivae import cli
from tf_pivae.export.signatures import DEFAULT

FILE = "assets.extra/tf_serving_warmup_requests"
_BATCH_SIZES = (1, 8)


def example_inputs(model, functions, images, labels, name, count):
    """Inputs for a signature from real images: dict of tensors with `count` rows, images repeated where need be.

    Args:
      model: a `PiVAE`.
      functions: what `signatures` returned.
      images: uint8 [M, H, W, C], M >= 1.
      labels: int64 [M] for a class-conditional model.
      name: a signature's name.
      count: int.
    """
    rows = tf.range(count) % len(images)
    labels = {"labels": tf.gather(labels, rows)} if model.num_classes else {}
    images = tf.gather(images, rows)
    if name == "sample":
        return {"seeds": tf.range(count, dtype=tf.int64), **labels}
    if name == "decode":
        return {**functions["encode"](images=images, **labels), **labels}
    if name == "image_bytes":
        return {"image_bytes": tf.stack([tf.io.encode_png(image) for image in images]), **labels}
    return {"images": images, **labels}


def write_warmup_requests(folder, model_name, model, functions, images, labels):
    """Writes requests of one row and of several for every signature.

    Args:
      folder: the version's folder.
      model_name: the name that the requests carry.
      model, functions, images, labels: as for `example_inputs`.

    Raises:
      UserError: `tensorflow-serving-api`, which has the messages, is not installed.
    """
    cli.require_extra("serving", "tensorflow_serving")
    from tensorflow_serving.apis import prediction_log_pb2

    path = Path(folder) / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in functions:
            for count in _BATCH_SIZES:
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = name
                source = "log_prob" if name == DEFAULT else name
                for key, value in example_inputs(model, functions, images, labels, source, count).items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                writer.write(log.SerializeToString())
