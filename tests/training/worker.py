"""The train command; whatever a worker would save is also written to the file named first, as an .npz."""

import sys

import numpy as np

from tf_pivae import cli
from tf_pivae.train import __main__ as train
from tf_pivae.training import recorder


def dumping(save, path):
    def dump(self, step, state):
        arrays = {f"{group}/{i}": v.numpy() for group, variables in state.items() for i, v in enumerate(variables)}
        np.savez(path, step=step, **arrays)
        save(self, step, state)

    return dump


if __name__ == "__main__":
    path = sys.argv.pop(1)
    for kind in (recorder.Recorder, recorder.NoRecorder):
        kind.save = dumping(kind.save, path)
    cli.run(train.main)
