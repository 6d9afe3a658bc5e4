"""TF_CONFIG from the variables of Slurm and Kubernetes, read back by TensorFlow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

from tf_pivae.cluster.tf_config import expand_hosts, expand_tasks, tf_config
from tf_pivae.errors import UserError

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "clusters"


@pytest.mark.parametrize(
    "text", ["n1", "n[1-2],m5,o[3-4,6,7-9]", "gpu[001-012]", "a-b[08-11],c.d", "x,y,z", "node[7]", "n[1,5,3]", "12"]
)
def test_machines_as_tensorflow_expands_them(text):
    assert expand_hosts(text) == slurm_cluster_resolver.expand_hostlist(text)


def test_machines_that_tensorflow_cannot_expand():
    assert expand_hosts("r[1-2]n[01-02]-ib") == ["r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib"]


@pytest.mark.parametrize("text", ["2", "2(x3),1", "1(x2),4(x1),3"])
def test_tasks_as_tensorflow_expands_them(text):
    assert expand_tasks(text) == slurm_cluster_resolver.expand_tasks_per_node(text)


@pytest.mark.parametrize(
    "text", ["", ",", "a[", "a]", "a[1-]", "a[2-1]", "a[x]", "a[[1]]", "a,,b", "a b", "a[]", "a;b"]
)
def test_malformed_machines_are_refused(text):
    with pytest.raises(UserError, match="not a list of machines"):
        expand_hosts(text)


@pytest.mark.parametrize("text", ["", "x", "2(x)", "2x3", "2,,1", "-1"])
def test_malformed_tasks_are_refused(text):
    with pytest.raises(UserError, match="not a list of task counts"):
        expand_tasks(text)


@pytest.mark.parametrize("text", ["n[1-999999999]", "n[1-65537]", "a[1-300]b[1-300]", "x,n[1-65536]"])
def test_more_machines_than_there_are_do_not_fill_the_memory(text):
    with pytest.raises(UserError, match=r"names [\d,]+ machines or tasks; at most 65,536 are expected\.$"):
        expand_hosts(text)


def test_more_tasks_than_there_are_do_not_fill_the_memory():
    for text in ("1(x999999999)", "65537", "999999999(x60000)"):
        with pytest.raises(UserError, match=r"names [\d,]+ machines or tasks; at most 65,536 are expected\.$"):
            expand_tasks(text)
    assert len(expand_hosts("n[1-65536]")) == len(expand_tasks("1(x65536)")) == 65536


def slurm(index, node, local, **changes):
    variables = {
        "SLURM_STEP_NODELIST": "gpu[01-02],login",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_PROCID": str(index),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(local),
        "SLURM_JOB_ID": "1234567",
    }
    return {name: value for name, value in {**variables, **changes}.items() if value is not None}


SLURM_TASKS = [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0)]


def resolved(text, monkeypatch):
    """What TensorFlow takes TF_CONFIG for: the workers, the task's type and number."""
    monkeypatch.setenv("TF_CONFIG", text)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return resolver.cluster_spec().as_dict()["worker"], resolver.task_type, resolver.task_id


def test_all_tasks_of_a_slurm_step_agree(monkeypatch):
    results = [resolved(tf_config("slurm", slurm(*task)), monkeypatch) for task in SLURM_TASKS]
    port = 15000 + 1234567 % 10000
    workers = [f"gpu01:{port}", f"gpu01:{port + 1}", f"gpu02:{port}", f"gpu02:{port + 1}", f"login:{port}"]
    assert results == [(workers, "worker", i) for i in range(5)]
    other = resolved(tf_config("slurm", slurm(0, 0, 0), port=2000), monkeypatch)[0]
    assert other[:2] == ["gpu01:2000", "gpu01:2001"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (slurm(0, 0, 0, SLURM_PROCID=None), "SLURM_PROCID is not set; srun sets it"),
        (slurm(0, 0, 0, SLURM_STEP_NODELIST=""), "SLURM_STEP_NODELIST is not set"),
        (slurm(0, 0, 0, SLURM_JOB_ID="x"), "SLURM_JOB_ID=x is not a whole number"),
        (slurm(1, 1, 0), "--distribution=block"),  # cyclic
        (slurm(9, 0, 0), "--distribution=block"),
        (slurm(0, 0, 0, SLURM_STEP_TASKS_PER_NODE="2"), "3 machines in SLURM_STEP_NODELIST but 1"),
    ],
)
def test_slurm_mistakes(environment, expected):
    with pytest.raises(UserError, match=expected):
        tf_config("slurm", environment)


def pod(index, **changes):
    variables = {
        "JOB_COMPLETION_INDEX": str(index),
        "HOSTNAME": f"my-job-7-{index}",
        "NUM_WORKERS": "3",
        "SERVICE": "net",
    }
    return {name: value for name, value in {**variables, **changes}.items() if value is not None}


def test_all_pods_of_an_indexed_job_agree(monkeypatch):
    results = [resolved(tf_config("kubernetes", pod(i)), monkeypatch) for i in range(3)]
    workers = ["my-job-7-0.net:15000", "my-job-7-1.net:15000", "my-job-7-2.net:15000"]
    assert results == [(workers, "worker", i) for i in range(3)]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (pod(0, JOB_COMPLETION_INDEX=None), "completionMode: Indexed"),
        (pod(0, SERVICE=None), "SERVICE is not set; the manifest's env sets it"),
        (pod(0, HOSTNAME="elsewhere"), "does not end in -0"),
        (pod(3), "NUM_WORKERS=3: set it to the job's completions"),
        (pod(0, NUM_WORKERS="999999999"), "at most 65,536 are expected"),
        (pod(0, NUM_WORKERS="9" * 5000), "is not a whole number from 0 of at most 9 digits"),
    ],
)
def test_kubernetes_mistakes(environment, expected):
    with pytest.raises(UserError, match=expected):
        tf_config("kubernetes", environment)


def run(environment, *arguments):
    command = [sys.executable, "-m", "tf_pivae.cluster", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.run(command, capture_output=True, text=True, env=variables | environment, check=False)


def test_the_command_prints_it_at_once():
    result = run(slurm(2, 1, 0), "--scheduler=slurm", "--port=3000")
    assert json.loads(result.stdout)["task"] == {"type": "worker", "index": 2}
    assert run(pod(1), "--scheduler=kubernetes").stdout.strip() == tf_config("kubernetes", pod(1))
    for arguments, expected in (((), "give --scheduler"), (("--scheduler=slurm",), "SLURM_STEP_NODELIST is not set")):
        result = run({}, *arguments)
        assert result.returncode == 2
        assert re.fullmatch(f"error: .*{expected}.*\n", result.stderr)


def test_the_slurm_example_is_a_script_that_tries_again_but_not_mistakes(tmp_path):
    """Run with stand-ins for srun and python: the tasks get their TF_CONFIG, status 2 ends the job, 75 does not."""
    (tmp_path / "srun").write_text(
        '#!/bin/bash\necho srun >> calls\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    )
    fake = (
        f'[[ $2 == tf_pivae.cluster ]] && exec {sys.executable} "$@"\n'
        'echo "$TF_CONFIG $*" >> calls\n'
        'exit "$(head -1 statuses; sed -i 1d statuses)"'
    )
    (tmp_path / "python").write_text(f"#!/bin/bash\n{fake}\n")
    for name in ("srun", "python"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, **slurm(0, 0, 0), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(DOCS.parent.parent)
    for statuses, expected, tries in (("75\n75\n0\n", 0, 3), ("2\n", 2, 1), ("143\n", 143, 1), ("75\n" * 9, 75, 5)):
        (tmp_path / "calls").unlink(missing_ok=True)
        (tmp_path / "statuses").write_text(statuses)
        command = ["bash", str(DOCS / "slurm.sbatch")]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == expected, result.stderr
        calls = (tmp_path / "calls").read_text().splitlines()
        assert calls.count("srun") == tries
        assert json.loads(calls[1].split(" -m ")[0])["task"]["index"] == 0
        assert calls[1].endswith("-m tf_pivae.train --gin_file=cifar.gin --run_dir=runs/cifar")


def test_the_kubernetes_example_is_consistent():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra `ray`")
    service, job = yaml.safe_load_all((DOCS / "kubernetes.yaml").read_text())
    pods = job["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert int(variables["NUM_WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert variables["SERVICE"] == pods["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert service["spec"]["clusterIP"] == "None"
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["containerName"] == container["name"]
    assert pods["restartPolicy"] == "Never"  # what podFailurePolicy requires
    for worker in range(job["spec"]["completions"]):
        hostname = f"{job['metadata']['name']}-{worker}"
        environment = {**variables, "JOB_COMPLETION_INDEX": str(worker), "HOSTNAME": hostname}
        assert hostname in json.loads(tf_config("kubernetes", environment))["cluster"]["worker"][worker]
