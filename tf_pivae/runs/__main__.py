"""Lists the runs below a folder: python -m tf_pivae.runs --root=runs

A line for each run: state (running, finished, stopped, damaged), step, held-out bits per dimension, FID where it was
evaluated, size, time since it was last written. --delete=RUN deletes a run that nobody is training, and nothing else.
"""

from absl import flags

from tf_pivae import cli

_ROOT = flags.DEFINE_string("root", "runs", "The folder to look in, with all that lies below it.")
_DELETE = flags.DEFINE_multi_string("delete", [], "A run to delete, its whole folder; repeat for others.")


def main() -> None:
    from tf_pivae.runs import listing

    if _DELETE.value:
        for run in listing.delete(_DELETE.value):
            print(f"deleted {run.path} ({run.state}, step {run.step}, {run.num_bytes / 1e6:.1f} MB)")
        return
    entries = listing.find(_ROOT.value)
    print(listing.table(entries) if entries else f"no runs in {_ROOT.value}")


if __name__ == "__main__":
    cli.run(main)
