"""TF_CONFIG for the workers of one training, made from what Slurm or Kubernetes tells each of them.

TF_CONFIG is the JSON text that TensorFlow reads: {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker",
"index": i}}, the same cluster for every worker, each with its own index. Nothing here imports TensorFlow.
"""

import itertools
import json
import math
import re
from collections.abc import Mapping

from tf_pivae.errors import UserError

# Below the ports that systems hand out by themselves (32768 on Linux).
_FIRST_PORT = 15000
_PORTS = 10000
_HOST = r"(?:[\w.-]|\[[\d,-]+\])+"
_KUBERNETES_PORT = 15000  # Every pod has an address of its own.
_MOST = 1 << 16  # Machines, or workers: more than any cluster has, and a list of them is still written at once.
_DIGITS = 9  # Of a number in a variable.


def tf_config(scheduler: str, environment: Mapping[str, str], port: int | None = None) -> str:
    """The text of TF_CONFIG for the worker whose environment is given.

    Args:
      scheduler: "slurm" or "kubernetes".
      environment: dict of environment variables, see `slurm_addresses` and `kubernetes_addresses`.
      port: int, of the first worker on a machine; None chooses one.

    Returns:
      str, JSON.

    Raises:
      UserError: a variable is missing or not what the scheduler writes.
    """
    addresses, index = {"slurm": slurm_addresses, "kubernetes": kubernetes_addresses}[scheduler](environment, port)
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def slurm_addresses(environment: Mapping[str, str], port: int | None = None) -> tuple[list[str], int]:
    """Addresses of all tasks of the job step, and the number of this one, from what `srun` sets.

    Reads SLURM_STEP_NODELIST, SLURM_STEP_TASKS_PER_NODE, SLURM_PROCID, SLURM_NODEID, SLURM_LOCALID and SLURM_JOB_ID.
    Tasks of one machine listen on consecutive ports; the default first port depends on the job, so that jobs that share
    a machine do not meet.

    Raises:
      UserError: see `tf_config`; or the tasks are not laid out in blocks, machine by machine.
    """
    hosts = expand_hosts(_variable(environment, "SLURM_STEP_NODELIST", "srun"))
    tasks = expand_tasks(_variable(environment, "SLURM_STEP_TASKS_PER_NODE", "srun"))
    index, node, local, job = (
        _number(environment, name, "srun") for name in ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_JOB_ID")
    )
    if len(hosts) != len(tasks):
        raise UserError(
            f"Slurm names {len(hosts)} machines in SLURM_STEP_NODELIST but {len(tasks)} in SLURM_STEP_TASKS_PER_NODE."
        )
    port = _FIRST_PORT + job % _PORTS if port is None else port
    places = [(i, j) for i, count in enumerate(tasks) for j in range(count)]
    if not index < len(places) or places[index] != (node, local):
        raise UserError(
            f"Slurm's task {index} is number {local} on machine {node}: start srun with --distribution=block."
        )
    return [f"{hosts[i]}:{port + j}" for i, j in places], index


def expand_hosts(text: str) -> list[str]:
    """Slurm's short form of a list of machines: "gpu[01-03,7],login" -> ["gpu01", "gpu02", "gpu03", "gpu7", "login"].

    Raises:
      UserError: it is malformed.
    """
    if not re.fullmatch(rf"{_HOST}(,{_HOST})*", text):
        raise _malformed(text)
    hosts = []
    for part in re.findall(_HOST, text):
        pieces = re.split(r"\[([^\[\]]*)\]", part)
        choices = [[piece] if i % 2 == 0 else _expand_range(piece, text) for i, piece in enumerate(pieces)]
        _check_number(len(hosts) + math.prod(map(len, choices)), text)
        hosts += ["".join(parts) for parts in itertools.product(*choices)]
    return hosts


def _check_number(count, text):
    if count > _MOST:
        raise UserError(f"{text!r} names {count:,} machines or tasks; at most {_MOST:,} are expected.")


def _malformed(text):
    return UserError(f"{text!r} is not a list of machines as Slurm writes it, such as gpu[01-03,7].")


def _expand_range(piece, text):
    """ "01-03,7" -> ["01", "02", "03", "7"]; leading zeros stay."""
    numbers = []
    for part in piece.split(","):
        ends = re.fullmatch(rf"([0-9]{{1,{_DIGITS}}})(?:-([0-9]{{1,{_DIGITS}}}))?", part.strip())
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise _malformed(text)
        span = range(int(ends[1]), int(ends[2] or ends[1]) + 1)
        _check_number(len(numbers) + len(span), text)
        numbers += [f"{i:0{len(ends[1])}d}" for i in span]
    return numbers


def expand_tasks(text: str) -> list[int]:
    """Slurm's short form of numbers of tasks: "2(x3),1" -> [2, 2, 2, 1].

    Raises:
      UserError: it is malformed.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(rf"([0-9]{{1,{_DIGITS}}})(?:\(x([0-9]{{1,{_DIGITS}}})\))?", part.strip())
        if not match:
            raise UserError(f"{text!r} is not a list of task counts as Slurm writes it, such as 2(x3),1.")
        machines = int(match[2] or 1)
        _check_number(len(counts) + machines, text)
        counts += [int(match[1])] * machines
    _check_number(sum(counts), text)
    return counts


def kubernetes_addresses(environment: Mapping[str, str], port: int | None = None) -> tuple[list[str], int]:
    """Addresses of all pods of an Indexed Job, and the number of this one.

    Kubernetes sets JOB_COMPLETION_INDEX, and HOSTNAME to JOB-INDEX. The manifest sets NUM_WORKERS, the job's
    `completions`, and SERVICE, the name of a headless service that is the pods' `subdomain`.

    Raises:
      UserError: see `tf_config`.
    """
    index = _number(environment, "JOB_COMPLETION_INDEX", "a Job with completionMode: Indexed")
    count = _number(environment, "NUM_WORKERS", "the manifest's env")
    service = _variable(environment, "SERVICE", "the manifest's env")
    name = _variable(environment, "HOSTNAME", "Kubernetes")
    job = name.removesuffix(f"-{index}")
    if job == name:
        raise UserError(f"HOSTNAME={name} does not end in -{index}: it is not the name of an Indexed Job's pod.")
    _check_number(count, f"NUM_WORKERS={count}")
    if index >= count:
        raise UserError(f"JOB_COMPLETION_INDEX={index}, but NUM_WORKERS={count}: set it to the job's completions.")
    port = _KUBERNETES_PORT if port is None else port
    return [f"{job}-{i}.{service}:{port}" for i in range(count)], index


def _variable(environment, name, source):
    if not environment.get(name):
        raise UserError(f"{name} is not set; {source} sets it.")
    return environment[name]


def _number(environment, name, source):
    text = _variable(environment, name, source)
    if not re.fullmatch(rf"[0-9]{{1,{_DIGITS}}}", text):
        raise UserError(f"{name}={text} is not a whole number from 0 of at most {_DIGITS} digits.")
    return int(text)
