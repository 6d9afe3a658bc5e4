"""A development server; production is TensorFlow Serving.   python -m tf_pivae.export.serve --export_dir=exports/demo

It speaks TensorFlow Serving's gRPC and REST, joins requests into batches, switches to new versions while it runs, and
finishes the requests in progress when it is stopped by SIGTERM. See docs/serving.md.
"""

import os
import re

from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError
from tf_pivae.export.requests import DEFAULT_MODEL
from tf_pivae.export.serve.limits import MAX_BYTES, MAX_ROWS
from tf_pivae.system.startup import require_extra

_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "The folder of versions to serve and to watch.", required=True)
_MODEL_NAME = flags.DEFINE_string("model_name", DEFAULT_MODEL, "The name that requests ask for.")
_RUNTIME = flags.DEFINE_enum("runtime", "tensorflow", ["tensorflow", "openvino"], "What runs the model.")
_PRECISION = flags.DEFINE_enum("precision", "f32", ["f32", "bf16"], "bf16: OpenVINO rounds products to bfloat16.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; there is no encryption and no login.")
_GRPC_PORT = flags.DEFINE_integer("grpc_port", 8500, "Port of gRPC; 0 picks a free one.", 0, 65535)
_REST_PORT = flags.DEFINE_integer("rest_port", 8501, "Port of REST; 0 picks a free one.", 0, 65535)
_BATCHING = flags.DEFINE_bool("batching", True, "Run small requests together.")
_MAX_BATCH_SIZE = flags.DEFINE_integer(
    "max_batch_size", MAX_ROWS, "Largest number of rows in one request, or in requests run together.", 1
)
_TIMEOUT = flags.DEFINE_integer("batch_timeout_micros", 2000, "How long a request waits for others to join it.", 0)
_THREADS = flags.DEFINE_integer("num_batch_threads", 2, "How many batches the model computes at once.", 1)
_MAX_MESSAGE_BYTES = flags.DEFINE_integer(
    "max_message_bytes",
    MAX_BYTES,
    "Largest size of an unpacked request; less where the model's shape needs less.",
    1024,
)
_MAX_CONNECTIONS = flags.DEFINE_integer(
    "max_connections", 512, "Largest number of connections to a port; fewer where the process may open few files.", 1
)
_PATIENCE = flags.DEFINE_float(
    "patience_seconds", 15.0, "How long a client may take to send a head or a body, to read, or to do nothing.", 0.1
)
_POLL_SECONDS = flags.DEFINE_float("poll_seconds", 1.0, "How often to look for new versions.", 0.01)
_DRAIN_SECONDS = flags.DEFINE_float("drain_seconds", 30.0, "How long requests may take after SIGTERM.", 0.0)


def main() -> None:
    os.environ["GRPC_VERBOSITY"] = "NONE"  # A port in use is reported in one line of our own.
    cli.import_tensorflow_quietly()
    require_extra("serving", "tensorflow_serving", "grpc", "aiohttp", "prometheus_client")
    import asyncio
    import dataclasses

    from tf_pivae.export.serve.server import ServerSettings, serve

    if not re.fullmatch(r"[^/:\s]+", _MODEL_NAME.value):
        raise UserError(
            f"--model_name={_MODEL_NAME.value} cannot stand in REST's addresses: leave out / and : and spaces."
        )
    settings = ServerSettings(
        **{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(ServerSettings)}
    )
    asyncio.run(serve(settings))


if __name__ == "__main__":
    cli.run(main)
