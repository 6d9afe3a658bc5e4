"""The machine and the software that a process runs on."""

import importlib.metadata
import platform

import tensorflow as tf

from tf_pivae.system.memory import physical_memory
from tf_pivae.system.threads import num_cores
from tf_pivae.version import __version__

_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


def describe_environment() -> dict:
    """Facts about this machine, without its name or its user's.

    Returns:
      dict of str -> str: processor, memory, accelerators, operating system, versions. Ready for JSON.
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "processor": f"{_processor()}, {num_cores()} cores",
        "memory": f"{physical_memory() / 2**30:.0f} GiB",
        "accelerators": ", ".join(_accelerators()) or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "tf_pivae": __version__,
        **versions,
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _accelerators():
    for device in tf.config.list_physical_devices():
        if device.device_type != "CPU":
            yield tf.config.experimental.get_device_details(device).get("device_name", device.device_type)
