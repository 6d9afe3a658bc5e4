"""Published models on the Hugging Face hub: `hf://OWNER/NAME`, and their upload.

Only the files of a published model are fetched, whatever else a repository holds; they are then read like any other
run of a stranger's, as data. Each revision has a folder of its own, `$TF_PIVAE_CACHE/hub/OWNER/NAME/COMMIT`.
"""

import contextlib
import functools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tf_pivae.errors import UserError, cannot_write, first_line, printable, sentence
from tf_pivae.files import default_cache_dir, place_folder

MOST_BYTES = 1 << 32  # Of the files of a model: the largest of the paper's have some hundred MB.
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")  # pathlib takes one slash away.
_COMMIT = re.compile("[0-9a-f]{40}")
_FILES = re.compile(
    r"config\.gin|(data|environment|evaluation|changes)\.json|(model_card|README)\.md|"
    r"checkpoints/\d{8}/(manifest\.json|checkpoint\.index|checkpoint\.data-\d{5}-of-\d{5})"
)

_OPTIONAL = ("environment.json", "evaluation.json", "changes.json")  # Those of an older model are not the newer one's.


def is_address(run_dir: object) -> bool:
    """Whether this is `hf://...`."""
    return str(run_dir).startswith("hf:/")


@functools.cache
def fetch(address: str) -> Path:
    """The folder of a model of the hub, which is downloaded where it is not on this machine.

    Args:
      address: "hf://OWNER/NAME", or with "@REVISION", a branch, a tag or a commit. A whole commit hash that is on this
        machine needs no network.

    Raises:
      UserError: no such model, no network, more than `MOST_BYTES`, or huggingface_hub is not installed.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or ".." in address:
        raise UserError(f"{printable(address)} is not an address: write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION.")
    name, revision = match.groups()
    cache = default_cache_dir() / "hub" / name
    if revision and _COMMIT.fullmatch(revision) and _is_model(cache / revision):
        return cache / revision
    library = _library()
    with _explained(f"cannot fetch hf://{name}"):
        api = library.HfApi()
        about = api.model_info(name, revision=revision, files_metadata=True)
        commit = str(about.sha)
        if not _COMMIT.fullmatch(commit):
            raise UserError(f"cannot fetch hf://{name}: the hub gave no commit.")
        if _is_model(cache / commit):
            return cache / commit
        sizes = {file.rfilename: file.size or 0 for file in about.siblings or [] if _FILES.fullmatch(file.rfilename)}
        if "config.gin" not in sizes:
            raise UserError(f"hf://{name} holds no model of this program: it has no config.gin.")
        if sum(sizes.values()) > MOST_BYTES:
            raise UserError(f"hf://{name} holds {sum(sizes.values()) / 1e9:.1f} GB, more than a model of this program.")
        partial = cache / f".{commit}.partial"  # An interrupted download goes on in it.
        for file in sizes:
            api.hf_hub_download(name, file, revision=commit, local_dir=partial)
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        if not _is_model(cache / commit):  # A damaged one: an interrupted removal, another file in its place.
            _remove(cache / commit)
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # Another process was first.
            place_folder(partial, cache / commit)
    return cache / commit


def _is_model(folder: Path) -> bool:
    return (folder / "config.gin").is_file() and any(folder.glob("checkpoints/*/manifest.json"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def upload(folder: Path, name: str) -> str:
    """Uploads the folder of a published model, whose older files there it replaces; returns the page's address.

    The repository is made, public, where there is none: one that is private stays so.

    Args:
      folder: of the model.
      name: "OWNER/NAME".

    Raises:
      UserError: no network, no right to write there, or huggingface_hub is not installed.
    """
    library = _library()
    with _explained(f"cannot publish hf://{name}"):
        api = library.HfApi()
        api.create_repo(name, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, delete_patterns=["checkpoints/*", *_OPTIONAL])
        return str(commit.commit_url)


def check_is_folder(path: object) -> None:
    """Raises UserError where a folder is to be written and this is an address of the hub."""
    if is_address(path):
        raise UserError(
            f"{printable(path)} is an address on the Hugging Face hub: give a folder of this machine (publish --to=hub "
            "--output=OWNER/NAME uploads a model)."
        )


def check_name(name: str) -> None:
    """Raises UserError unless this is OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise UserError(f"{printable(name)} is not a name on the hub: write --output=OWNER/NAME.")


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"hf:// needs huggingface_hub ({error}): pip install 'tf-pivae[hub]' brings it.") from error
    return huggingface_hub


@contextlib.contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turns what the library raises, of which there are many kinds, into one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.filename:  # The disk; the library's own errors are of this kind, too.
            raise UserError(cannot_write(error.filename, error)) from error
        raise UserError(_line(problem, error)) from error
    except Exception as error:
        raise UserError(_line(problem, error)) from error


def _line(problem: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    hint = {
        401: "there is no such model, or it is private: `hf auth login`, or set HF_TOKEN",
        403: "your token has no right to do that: `hf auth login` with another",
        404: "there is no such model or revision",
    }.get(status)
    return f"{problem}: {sentence(hint or printable(first_line(error)))}"
