"""Trained models that come with the package, each a run directory in miniature.

tf_pivae/pretrained/NAME/config.gin, data.json, environment.json   as in the run that it was made from
                        /checkpoints/STEP/                         the model's weights alone
                        /evaluation.json, model_card.md            what it is and how good it was found to be

`tf_pivae.publish.folder` makes them. A function or a command that takes a run directory to read from takes the
name of such a model too.
"""

from pathlib import Path

from tf_pivae import arguments
from tf_pivae.errors import UserError
from tf_pivae.runs import hub

FOLDER = Path(__file__).resolve().parent.parent / "pretrained"


def pretrained() -> list[str]:
    """The names of the models that come with the package, a sorted list of str; `tf_pivae.load` takes them."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.gin"))


def resolve(run_dir: str | Path) -> Path:
    """The folder of a run: `run_dir`, or that of the pretrained model of this name where there is no such folder.

    Args:
      run_dir: str or Path; hf://OWNER/NAME is a model of the Hugging Face hub, which is downloaded.

    Returns:
      `Path`, whether there is a run in it or not.

    Raises:
      ValueError: `run_dir` is not a path.
      UserError: see `hub.fetch`.
    """
    arguments.paths(run_dir=run_dir)
    if hub.is_address(run_dir):
        return hub.fetch(str(run_dir))
    path = Path(run_dir)
    return FOLDER / path if not path.exists() and str(run_dir) in pretrained() else path


def check_own(run_dir: str | Path) -> None:
    """Raises UserError where `run_dir` names a published model: what is about to write there wants a copy."""
    folder = resolve(run_dir)
    if folder != Path(run_dir):
        raise UserError(
            f"{run_dir} {'lies on the hub' if hub.is_address(run_dir) else 'comes with the package'}, where nothing is "
            f"written: cp -r {folder} runs/{Path(run_dir).name} first, and name the copy."
        )
