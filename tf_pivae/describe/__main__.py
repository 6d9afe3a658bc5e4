"""Writes docs/architectures.md, what every row of the paper's tables builds:

    python -m tf_pivae.describe --output=docs/architectures.md

For any single configuration: python -m tf_pivae.train --gin_file=... --describe
"""

from pathlib import Path

from absl import flags

from tf_pivae import cli, loading
from tf_pivae.errors import UserError, cannot_write, check_output
from tf_pivae.system.progress import progress_bar

_OUTPUT = flags.DEFINE_string("output", None, "The Markdown file to write; printed by default.")
_ROWS = flags.DEFINE_list("rows", [], "Names of rows, the files in gin/paper/; all by default.")

_TEXT = """\
# What every row builds

Written by `python -m tf_pivae.describe --output=docs/architectures.md`; `python -m tf_pivae.train
--gin_file=paper/cqfg.gin --describe` lists one configuration block by block.

{table}

- **encoder**: trainable weights of the bottom-up pass, of the top's posterior, of the IAF, and sigma. **decoder**: the
  rest of the VAE; its blocks hold the prior's and the posterior's top-down part. Together they are the "Generator" of
  the paper's Table 6. **head**: the Real-NVP.
- **bound**, **sample**: one image, one draw of the noise. **step**: a whole training step, critic and generator,
  forward and backward. Counted on TensorFlow's graph: convolutions and matrix products, a multiplication and an
  addition as two, padding included, and only what leads to a result. Elementwise work is not counted.
- **memory**: weights, both optimisers' moments, and the most bytes that the tensors of one training step hold if its
  operations run in the order in which they are written (a tensor lives until it is last read; views are free; in-place
  forwarding, kernel workspace and TensorFlow itself are not counted). One device, the row's whole batch.
  `--describe` adds the convolutions' workspace, and what TensorFlow and its graphs take on the machine at hand.

The estimate of memory against a measurement, on two CPU cores, one operation at a time: how much the peak of the
process grows from batch 8 to batch 128, divided by 120. PiVAE of Table 1: estimated 8.9 MB an image, measured 9.2.
CQFG: estimated 10.0, measured 12.6. What does not depend on the batch came out higher than estimated, by 0.2 GB (PiVAE)
and 0.3 GB (CQFG).

With TensorFlow and its graphs, as `--describe` says it, against the most that a process held in training steps of batch
16, on one core: `vae` 1.07 GB and 1.08, `pivae` 1.25 and 1.23, `cqfg` 1.45 and 1.49, `cqfg_iaf_res` 1.54 and 1.56.
"""


def main() -> None:
    from tf_pivae.paper.numbers import row_names

    names = row_names()
    unknown = [name for name in _ROWS.value if name not in names]
    if unknown:
        raise UserError(f"no row {unknown[0]!r}; there are {', '.join(names)}.")
    if _OUTPUT.value is not None:
        try:
            Path(_OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(cannot_write(_OUTPUT.value, error)) from error
        check_output(_OUTPUT.value)
    lines = []
    for name in progress_bar(_ROWS.value or names, unit="row"):
        loading.parse_gin([f"paper/{name}.gin"])
        lines.append(_line(name))
    from tf_pivae.describe import architecture_text

    table = architecture_text.table(lines)
    if _OUTPUT.value is None:
        print(table)
        return
    from tf_pivae.files import write_atomically

    write_atomically(_OUTPUT.value, _TEXT.format(table=table))
    print(f"{len(lines)} rows: {_OUTPUT.value}")


def _line(name):
    import keras

    from tf_pivae.describe import architecture, architecture_text

    try:
        return architecture_text.table_row(architecture.measure(*architecture.configured()), name)
    finally:
        keras.backend.clear_session()


if __name__ == "__main__":
    cli.run(main)
