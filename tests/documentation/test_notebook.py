"""docs/tour.ipynb runs from start to end, and is stored without what it shows."""

import re
import sys
from pathlib import Path

import forking
import jupyter_client
import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent.parent / "docs/tour.ipynb"
# Run when the kernel starts: TensorFlow is imported by the notebook, and its optimiser of graphs off as in other tests.
STARTUP = f"""
import sys
turn_off = lambda _: sys.modules["tensorflow"].config.optimizer.set_experimental_options({forking.OPTIMIZER})
get_ipython().events.register("post_run_cell", turn_off)
"""


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_stored_without_outputs_and_anyones_folders(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"/(home|root|tmp|work|Users)\b", NOTEBOOK.read_text())


def test_runs_from_start_to_end(notebook, tmp_path, monkeypatch):
    # The kernel of this very environment, whatever other kernels are installed.
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    startup = tmp_path / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "optimizer.py").write_text(STARTUP)
    specification = jupyter_client.kernelspec.KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="", language="python"
    )
    folder = tmp_path / "kernels/python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(specification.to_json())
    ran = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6  # images, two grids of samples, reconstructions, interpolations, the new model's samples
    assert any("Outcome(step=30" in output.get("data", {}).get("text/plain", "") for output in outputs)
    errors = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert not re.search("error|warning", errors, re.IGNORECASE), errors
