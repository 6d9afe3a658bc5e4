"""Requests that a server answers before it takes traffic, so that no client waits for a first, slow run.

TensorFlow Serving reads them from `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`. They
have one row each: it refuses a model with a warm-up request of more rows than its `max_batch_size`.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.types.experimental import ConcreteFunction

from tf_pivae.export.versions import WARMUP_REQUESTS
from tf_pivae.system.startup import require_extra


def write_warmup_requests(
    folder: str | Path,
    model_name: str,
    functions: dict[str, ConcreteFunction],
    images: np.ndarray,
    labels: np.ndarray | None,
) -> None:
    """Writes a request of one row for every signature.

    Args:
      folder: the version's folder.
      model_name: the name that the requests carry.
      functions: what `signatures` returned.
      images: uint8 [M, H, W, C], M >= 1; the first is sent.
      labels: int64 [M] for a class-conditional model, None else.

    Raises:
      UserError: `tensorflow-serving-api`, which has the messages, is not installed.
    """
    require_extra("serving", "tensorflow_serving")
    from tensorflow_serving.apis import prediction_log_pb2

    label = {} if labels is None else {"labels": tf.constant(labels[:1], tf.int64)}
    path = Path(folder) / WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in functions:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            for key, value in {**_row(name, functions, tf.constant(images[:1]), label), **label}.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def _row(
    name: str, functions: dict[str, ConcreteFunction], image: tf.Tensor, label: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """What a signature takes beside the label."""
    if name == "sample":
        return {"seeds": tf.zeros([1], tf.int64)}
    if name == "decode":
        return functions["encode"](images=image, **label)
    if name == "image_bytes":
        return {"image_bytes": tf.io.encode_png(image[0])[None]}
    return {"images": image}
