"""Makes a small folder of a run, to be shared: python -m tf_pivae.publish --run_dir=runs/demo --output=published/demo

The folder holds only the model's weights (their moving average where it was kept), its configuration, the results of
`tf_pivae.evaluate`, and model_card.md. `tf_pivae.load` and the commands that read a run accept it as one. The models in
tf_pivae/pretrained/, which come with the package, were made by this command. --to=hub uploads the folder to the Hugging
Face hub instead, as --output=OWNER/NAME, with the token of `hf auth login` or HF_TOKEN: --run_dir=hf://OWNER/NAME then
reads it from there.
"""

from absl import flags

from tf_pivae import cli

cli.define_import_flag()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write, whose name becomes the model's; or OWNER/NAME.", required=True
)
_TO = flags.DEFINE_enum("to", "folder", ["folder", "hub"], "Where: a folder, or the Hugging Face hub.")
_STEP = cli.define_step_flag("publish")


def main() -> None:
    cli.import_tensorflow_quietly()
    from tf_pivae.publish.folder import publish

    step = publish(_RUN_DIR.value, _OUTPUT.value, _STEP.value, _TO.value)
    print(f"{_RUN_DIR.value} at step {step}: {'hf://' * (_TO.value == 'hub')}{_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
