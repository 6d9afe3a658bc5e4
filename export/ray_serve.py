"""An exported model on a Ray cluster, for those who have one already: as many replicas as wanted, on many machines.

    serve run tf_pivae.export.ray_serve:app export_dir=exports/demo runtime=openvino num_replicas=4

takes the bodies of TensorFlow Serving's REST (`rest_service`) at http://HOST:8000/ and joins requests in each replica
as the development server does. Python in the cluster asks without HTTP:

    handle = serve.get_app_handle("default")
    handle.predict.remote("sample", {"seeds": np.arange(4)}).result()["images"]

Every machine must see the export under the same path. Needs the extra `ray-serve`.
"""

from typing import Any

from ray import serve

from tf_pivae.export.serve.ray_replica import ServedModel


def app(arguments: dict[str, Any]) -> serve.Application:
    """The application of `serve run`: the arguments of `ServedModel`, and `num_replicas`."""
    arguments = dict(arguments)
    replicas = int(arguments.pop("num_replicas", 1))
    if "max_batch_size" in arguments:
        arguments["max_batch_size"] = int(arguments["max_batch_size"])
    return ServedModel.options(num_replicas=replicas).bind(**arguments)
