"""Breaks the program on purpose, one line at a time, and sees which test notices: python tests/mutations.py

Each mutation replaces one piece of text in a copy of the tree and runs the test that docs/mutations.md says failed last
time; where that passes or there is none, the file that should notice. A run of all of them writes the table of
docs/mutations.md; --only=PATTERN tries some, --list shows which. Exit status 1: a mutation that no test noticed, or a
test that fails without one. Needs `os.fork`: TensorFlow is imported once; and, since a test that is skipped notices
nothing, the extra `bench` for the mistakes of the race.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
IGNORED = ("__pycache__", ".*_cache", "*.egg-info")
IGNORED_AT_THE_TOP = (".git", ".venv", "runs", "dist", "build", "site")
RECORD = ROOT / "docs/mutations.md"
PYTEST = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
_NO_SUCH_TEST = (4, 5)  # pytest's exit statuses


class Mutation(NamedTuple):
    """One mistake."""

    mistake: str  # what it amounts to
    file: str
    right: str  # occurs once in the file
    wrong: str
    tests: str  # the file that should notice


MUTATIONS = [
    # What is computed at once, or left out, to be quick.
    Mutation(
        "fused batch normalisation: running average of the unbiased variance",
        "tf_pivae/layers/moments.py",
        "variance * (count - 1.0) / count",
        "variance",
        "tests/layers/test_moments.py",
    ),
    Mutation(
        "normalisation as a part of the convolution: bias not scaled",
        "tf_pivae/layers/weight_norm.py",
        "bias * scale + offset",
        "bias + offset",
        "tests/layers/test_weight_norm.py",
    ),
    Mutation(
        "importance samples side by side: those beyond K count",
        "tf_pivae/models/pivae.py",
        "tf.where(samples[:, None] < count, weights, -math.inf)",
        "weights",
        "tests/models/test_pivae.py",
    ),
    Mutation(
        "kernels kept for an export: one for both uses of a layer",
        "tf_pivae/layers/weight_norm.py",
        "key = id(self), affine is not None",
        "key = id(self), False",
        "tests/layers/test_weight_norm.py",
    ),
    Mutation(
        "what is made of the best checkpoint looks for it among the newest",
        "tf_pivae/uses/claims.py",
        "of_run(run_dir, requested).manifest(step)",
        "of_run(run_dir, step).manifest(step)",
        "tests/uses/test_best.py",
    ),
    Mutation(
        "Frechet distance of few samples: a column of the factor that is not orthogonal to the earlier ones",
        "tf_pivae/metrics/frechet.py",
        "(covariance[i] - factor[:, :rank] @ factor[i, :rank])",
        "covariance[i]",
        "tests/metrics/test_frechet_distance.py",
    ),
    Mutation(
        "optimisers of Keras take no settings from gin",
        "tf_pivae/training/optimizer.py",
        'initialize.__name__ = "__init__"  # Under which',
        'initialize.__name__ = "initialize"  # Under which',
        "tests/test_options.py",
    ),
    Mutation(
        "coverage: an image's own vector counts among its neighbours",
        "tf_pivae/metrics/manifold.py",
        "distances[own, start + own] = np.inf",
        "distances[own, start + own] = 0.0",
        "tests/metrics/test_manifold.py",
    ),
    Mutation(
        "the fast network under the name of the other",
        "tf_pivae/metrics/inception.py",
        "name = FAST_NAME if fast else NAME",
        "name = NAME",
        "tests/metrics/test_inception_network.py",
    ),
    Mutation(
        "packaged statistics: a damaged file is taken",
        "tf_pivae/metrics/packaged_statistics/__init__.py",
        "if file_sha256(path) != read_json(folder / CHECKSUMS)[name]:",
        "if name not in read_json(folder / CHECKSUMS):",
        "tests/metrics/test_packaged_statistics.py",
    ),
    Mutation(
        "automatic precision: a run that goes on takes the machine's",
        "tf_pivae/training/precision.py",
        "dtype = began\n",
        "dtype = automatic_dtype()\n",
        "tests/training/test_precision.py",
    ),
    Mutation(
        "early refusal: macros that files define count as used",
        "tf_pivae/configuration/early.py",
        "sorted(reader.defined - reader.used)",
        "sorted(reader.used - reader.defined)",
        "tests/configurations/test_early.py",
    ),
    Mutation(
        "early refusal: TensorFlow is imported first",
        "tf_pivae/loading.py",
        "        early.refuse_wrong_names(files, parameters)\n    register()\n",
        "        register()\n        early.refuse_wrong_names(files, parameters)\n    register()\n",
        "tests/configurations/test_early.py",
    ),
    Mutation(
        "precision and recall the wrong way round",
        "tf_pivae/metrics/manifold.py",
        "precise |= inside_real.any(axis=0)",
        "precise |= (distances <= sample_radii).any(axis=0)",
        "tests/metrics/test_manifold.py",
    ),
    Mutation(
        "parts of a batch side by side: each takes the noise of the first",
        "tf_pivae/system/rows.py",
        "tf.constant(first_row + ranges[i][0], tf.int64)",
        "tf.constant(first_row, tf.int64)",
        "tests/test_rows.py",
    ),
    Mutation(
        "parts of a batch side by side: traced for the number of rows that comes first",
        "tf_pivae/system/rows.py",
        "tf.TensorSpec([None, *part.shape[1:]]",
        "tf.TensorSpec(part.shape",
        "tests/test_rows.py",
    ),
    Mutation(
        "preprocessing: TFP's one cache keeps every graph",
        "tf_pivae/bijectors/preprocessing.py",
        "        with_own_cache(self)\n",
        "",
        "tests/bijectors/test_memory.py",
    ),
    # Trust.
    Mutation(
        "a run's configuration includes files",
        "tf_pivae/configuration/parsing.py",
        "case config_parser.IncludeStatement(name, _) if within is not None:",
        "case config_parser.IncludeStatement(name, _) if (within := within or ()) is not None:",
        "tests/faults/test_trust.py",
    ),
    Mutation(
        "a run's model may be larger than its checkpoints",
        "tf_pivae/loading.py",
        "min(physical_memory(), _SLACK",
        "max(physical_memory(), _SLACK",
        "tests/faults/test_trust.py",
    ),
    Mutation(
        "a macro on the command line without effect passes",
        "tf_pivae/configuration/parsing.py",
        'mentioned.discard(parameter.partition("=")[0].strip())',
        "pass",
        "tests/test_bad_configurations.py",
    ),
    Mutation(
        "a configuration opens data while it is read",
        "tf_pivae/configuration/checking.py",
        "reference.evaluate and result is not None and issubclass(result, ImageDataset)",
        "False",
        "tests/faults/test_trust.py",
    ),
    Mutation(
        "a checkpoint's manifest need not list the files beside it",
        "tf_pivae/runs/checkpoints.py",
        "if not files or set(files) !=",
        "if False and set(files) !=",
        "tests/faults/test_damaged_runs.py",
    ),
    Mutation(
        "a training ends where nobody reads its output any more",
        "tf_pivae/training/monitor.py",
        "if not has_no_reader(error):",
        "if True:",
        "tests/training/test_in_python.py",
    ),
    Mutation(
        "initial weights take their seeds from Python's global generator",
        "tf_pivae/layers/initialization.py",
        "seed=generator.randint(1, 10**9)",
        "seed=None",
        "tests/layers/test_initialization.py",
    ),
    Mutation(
        "under nohup a closed terminal stops a training",
        "tf_pivae/training/stopping.py",
        "if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:",
        "if True:",
        "tests/training/test_stopping.py",
    ),
    Mutation(
        "a program is left without TensorFlow's optimiser of graphs",
        "tf_pivae/training/loop.py",
        "set_experimental_options({name: before})",
        "set_experimental_options({name: True})",
        "tests/training/test_in_python.py",
    ),
    Mutation(
        "a resolution of the head has the width of the one above",
        "tf_pivae/bijectors/real_nvp.py",
        "widths[i + 1]",
        "widths[i]",
        "tests/bijectors/test_real_nvp.py",
    ),
    Mutation(
        "a training in a thread asks for signals",
        "tf_pivae/training/stopping.py",
        "if threading.current_thread() is threading.main_thread():",
        "if True:",
        "tests/training/test_in_python.py",
    ),
    Mutation(
        "an output that is closed is left closed",
        "tf_pivae/cli.py",
        "if getattr(sys, name) is None:",
        "if False:",
        "tests/test_main.py",
    ),
    Mutation(
        "a reader whose checkpoint gave way to the next gives up",
        "tf_pivae/runs/checkpoints.py",
        "if step is None and set(self.steps()) - set(steps):",
        "if False:",
        "tests/training/test_checkpoints.py",
    ),
    Mutation(
        "the last part of a large checkpoint is not read",
        "tf_pivae/runs/checkpoints.py",
        "            num_bytes += size\n    yield part",
        "            num_bytes += size",
        "tests/training/test_checkpoints.py",
    ),
    Mutation(
        "a checkpoint is read in one part, which memory holds twice",
        "tf_pivae/runs/checkpoints.py",
        "if part and num_bytes + size > _PART_BYTES:",
        "if False:",
        "tests/training/test_checkpoints.py",
    ),
    Mutation(
        "a view of a memory map larger than memory is read ahead",
        "tf_pivae/data/batches.py",
        "while not isinstance(buffer, mmap.mmap) and buffer is not None:",
        "if not isinstance(buffer, mmap.mmap):",
        "tests/data/test_batches.py",
    ),
    Mutation(
        "a stream of batches that is given up waits for TensorFlow's tuner",
        "tf_pivae/data/batches.py",
        "options.autotune.enabled = False",
        "options.autotune.enabled = True",
        "tests/data/test_batches.py",
    ),
    Mutation(
        "a published model leaves its critic behind",
        "tf_pivae/publish/folder.py",
        "return critic if restore_critic(run_dir, critic, step) is None else None",
        "return None",
        "tests/training/test_pretrained.py",
    ),
    Mutation(
        "--describe: memory without TensorFlow itself",
        "tf_pivae/describe/architecture.py",
        "self.workspace_bytes + (self.program_bytes or 0)",
        "self.workspace_bytes",
        "tests/test_architecture.py",
    ),
    Mutation(
        "--describe: workspace of one operation where several run at a time",
        "tf_pivae/describe/architecture.py",
        "(step_operations, operations_at_a_time())",
        "(step_operations, 1)",
        "tests/test_architecture.py",
    ),
    Mutation(
        "a squeezed checkerboard is the upper half of each square",
        "tf_pivae/bijectors/coupling.py",
        "np.isin(corner, (0, 3))",
        "np.isin(corner, (0, 1))",
        "tests/bijectors/test_bijectors.py",
    ),
    # A sign in a log-det.
    Mutation(
        "log-det of a coupling: sign",
        "tf_pivae/bijectors/coupling.py",
        "+ shift, event_sum(log_scale)",
        "+ shift, -event_sum(log_scale)",
        "tests/bijectors/test_bijectors.py",
    ),
    Mutation(
        "log-det of a coupling's inverse: sign",
        "tf_pivae/bijectors/coupling.py",
        "tf.exp(-log_scale), -event_sum(log_scale)",
        "tf.exp(-log_scale), event_sum(log_scale)",
        "tests/bijectors/test_bijectors.py",
    ),
    Mutation(
        "log-det of batch normalisation: sign",
        "tf_pivae/bijectors/normalization.py",
        "of_each_pixel(scale, x), -self._log_det(x, variance)",
        "of_each_pixel(scale, x), self._log_det(x, variance)",
        "tests/bijectors/test_bijectors.py",
    ),
    Mutation(
        "log-det of actnorm: sign",
        "tf_pivae/bijectors/normalization.py",
        "of_each_pixel(tf.exp(self._log_scale), x), self._log_det(x)",
        "of_each_pixel(tf.exp(self._log_scale), x), -self._log_det(x)",
        "tests/bijectors/test_bijectors.py",
    ),
    Mutation(
        "log-det of a factored-out scale: dropped",
        "tf_pivae/bijectors/factor_out.py",
        "left], -1), log_det\n\n",
        "left], -1), 0.0 * log_det\n\n",
        "tests/bijectors/test_bijectors.py",
    ),
    Mutation(
        "log-det of the IAF by element: sign",
        "tf_pivae/bijectors/inverse_autoregressive.py",
        "return -self._shift_and_log_scale(",
        "return self._shift_and_log_scale(",
        "tests/models/test_vae.py",
    ),
    Mutation(
        "log-det of the IAF in log q(z|y): sign",
        "tf_pivae/models/latents.py",
        "log_q0 - flow.elementwise_log_det(z0)",
        "log_q0 + flow.elementwise_log_det(z0)",
        "tests/models/test_vae.py",
    ),
    Mutation(
        "log q of its own sample: taken from the sample, whose gradients then have no order",
        "tf_pivae/models/latents.py",
        "return self.sample(epsilon), self._log_prob(epsilon)",
        "return (z := self.sample(epsilon)), self.log_prob(z)",
        "tests/training/test_order_of_sums.py",
    ),
    Mutation(
        "terms of the bound: every importance sample is the first",
        "tf_pivae/models/image_methods.py",
        "RowNoise(seed, count, first_row).fold_in(sample)",
        "RowNoise(seed, count, first_row).fold_in(0)",
        "tests/test_rows.py",
    ),
    Mutation(
        "a refined q: its density counts the other way",
        "tf_pivae/models/pivae.py",
        "features.discretisation - noise.log_density_ratio()",
        "features.discretisation + noise.log_density_ratio()",
        "tests/models/test_refinement.py",
    ),
    Mutation(
        "a refined q: every step is taken",
        "tf_pivae/models/refinement.py",
        "tf.where(is_better[:, None, None, None], moved, means)",
        "moved",
        "tests/models/test_refinement.py",
    ),
    Mutation(
        "log-det of the head in the bound: sign",
        "tf_pivae/models/pivae.py",
        "- kl + flow_log_det",
        "- kl - flow_log_det",
        "tests/models/test_pivae.py",
    ),
    Mutation(
        "log-det of the preprocessing in the bound: sign",
        "tf_pivae/models/pivae.py",
        "flow_log_det + preprocessing_log_det  #",
        "flow_log_det - preprocessing_log_det  #",
        "tests/models/test_pivae.py",
    ),
    Mutation(
        "the first block sees y in place of elu(y)",
        "tf_pivae/models/hierarchical_vae.py",
        "        return tf.nn.elu(y)\n",
        "        return y\n",
        "tests/models/test_vae.py",
    ),
    # Other terms of the bound, and the sampler.
    Mutation(
        "log sigma in log p(y|z): dropped",
        "tf_pivae/models/latents.py",
        "            log_sigma + 0.5 * math.log(2.0 * math.pi)\n",
        "            0.5 * math.log(2.0 * math.pi)\n",
        "tests/models/test_vae.py",
    ),
    Mutation(
        "sigma in the sampler: dropped",
        "tf_pivae/models/pivae.py",
        "sample_noise * tf.exp(self.vae.log_sigma)",
        "sample_noise",
        "tests/models/test_pivae_probabilities.py",
    ),
    Mutation(
        "KL's sign",
        "tf_pivae/models/pivae.py",
        "vae.reconstruction - kl +",
        "vae.reconstruction + kl +",
        "tests/models/test_pivae.py",
    ),
    Mutation(
        "dequantisation noise: dropped",
        "tf_pivae/models/dequantization.py",
        "(x + noise.uniform(TAG, x.shape[1:])) / num_bins",
        "(x + 0.0 * noise.uniform(TAG, x.shape[1:])) / num_bins",
        "tests/models/test_pivae.py",
    ),
    Mutation(
        "D log 256 whatever the number of levels",
        "tf_pivae/models/dequantization.py",
        "tf.fill([count], -dimensions * math.log(self._num_bins))",
        "tf.fill([count], -dimensions * math.log(256))",
        "tests/models/test_five_bit.py",
    ),
    Mutation(
        "conditional weight normalisation: every label is class 0",
        "tf_pivae/layers/weight_norm.py",
        "tf.gather(table, labels)",
        "tf.gather(table, 0 * labels)",
        "tests/layers/test_weight_norm.py",
    ),
    Mutation(
        "the network of the tails: white is not told from black",
        "tf_pivae/models/dequantization.py",
        "tf.cast(high, tf.float32)], -1)",
        "tf.cast(low, tf.float32)], -1)",
        "tests/benchmarks/test_twin.py",
    ),
    # Algorithm 1.
    Mutation(
        "adversarial gradient let into the head",
        "tf_pivae/training/trainer.py",
        "[not inside for inside in among(self.generator_variables, pivae.flow_variables)]",
        "[True] * len(self.generator_variables)",
        "tests/training/test_step.py",
    ),
    Mutation(
        "the KL's warm-up ends at 1, whatever its weight",
        "tf_pivae/training/trainer.py",
        "return [weight * warmed for weight in self.kl_weights]",
        "return [warmed for weight in self.kl_weights]",
        "tests/training/test_step.py",
    ),
    Mutation(
        "the recipe: labels left out of a class-conditional model",
        "tf_pivae/training/recipe.py",
        "num_classes = data.num_classes if self.class_conditional else 0",
        "num_classes = 0",
        "tests/test_class_conditional.py",
    ),
    Mutation(
        "the same noise on every replica",
        "tf_pivae/training/trainer.py",
        "first_row = (step * context.num_replicas_in_sync + replica) * stride",
        "first_row = step * context.num_replicas_in_sync * stride",
        "tests/training/test_replicas.py",
    ),
    Mutation(
        "gradients summed over replicas, not averaged",
        "tf_pivae/training/gradients.py",
        "[g / context.num_replicas_in_sync for g in",
        "[g for g in",
        "tests/training/test_replicas.py",
    ),
    Mutation(
        "L_Q: sign",
        "tf_pivae/training/losses.py",
        "return -tf.reduce_mean(fake_logits)",
        "return tf.reduce_mean(fake_logits)",
        "tests/training/test_losses.py",
    ),
    Mutation(
        "gradient penalty towards slope 0",
        "tf_pivae/training/regularizers.py",
        "tf.square(norm - 1.0)",
        "tf.square(norm)",
        "tests/training/test_regularizers.py",
    ),
    # Options beyond the paper.
    Mutation(
        "R1 without its factor 1/2",
        "tf_pivae/training/regularizers.py",
        "return 0.5 * self.weight",
        "return self.weight",
        "tests/training/test_regularizers.py",
    ),
    Mutation(
        "hinge loss: sign at fake images",
        "tf_pivae/training/losses.py",
        "tf.nn.relu(1.0 + fake_logits)",
        "tf.nn.relu(1.0 - fake_logits)",
        "tests/training/test_losses.py",
    ),
    Mutation(
        "spectral normalisation of convolutions: dropped",
        "tf_pivae/layers/spectral_norm.py",
        "        return self.normalized_kernel()\n",
        "        return super().effective_kernel()\n",
        "tests/layers/test_spectral_norm.py",
    ),
    Mutation(
        "power iteration: never continued in training",
        "tf_pivae/training/trainer.py",
        "        self.critic.update_normalization()\n",
        "",
        "tests/training/test_critic_step.py",
    ),
    Mutation(
        "augmentation of real images alone",
        "tf_pivae/training/trainer.py",
        'fake = self._augmented(tf.stop_gradient(fake), critic_noise.fold_in("augment/fake"))',
        "fake = tf.stop_gradient(fake)",
        "tests/training/test_critic_step.py",
    ),
    Mutation(
        "augmentation left out of the generator's step",
        "tf_pivae/training/trainer.py",
        'augmented = self._augmented(fake, noise.fold_in("augment/generator"))',
        "augmented = fake",
        "tests/training/test_critic_step.py",
    ),
    Mutation(
        "augmentation: one draw for the whole batch",
        "tf_pivae/training/augmentation.py",
        'images + (noise.uniform("brightness", [1, 1, 1]) - 0.5)',
        'images + (noise.uniform("brightness", [1, 1, 1])[:1] - 0.5)',
        "tests/training/test_augmentation.py",
    ),
    Mutation(
        "KL warm-up: off by one step",
        "tf_pivae/training/trainer.py",
        "return tf.cast(self.step + 1, tf.float32)",
        "return tf.cast(self.step, tf.float32)",
        "tests/training/test_step.py",
    ),
    Mutation(
        "free bits: a ceiling in place of a floor",
        "tf_pivae/training/losses.py",
        "tf.maximum(reduce(per_channel), free_nats)",
        "tf.minimum(reduce(per_channel), free_nats)",
        "tests/training/test_losses.py",
    ),
    Mutation(
        "moving average: the wrong way round",
        "tf_pivae/training/averaging.py",
        "multiply_no_nan(variable.value - average.value, rate)",
        "multiply_no_nan(variable.value - average.value, 1.0 - rate)",
        "tests/training/test_replicas.py",
    ),
    Mutation(
        "an optimiser of Keras takes a step without a finite norm",
        "tf_pivae/training/optimizer.py",
        "variable.assign(tf.where(finite, variable, before))",
        "variable.assign(variable)",
        "tests/training/test_optimizers_of_keras.py",
    ),
    Mutation(
        "adversarial weight: the ratio of the slopes upside down",
        "tf_pivae/training/balance.py",
        "(logs[0] - logs[1] - before)",
        "(logs[1] - logs[0] - before)",
        "tests/training/test_stages.py",
    ),
    Mutation(
        "lazy regulariser: as weak as the one of every step",
        "tf_pivae/training/gradients.py",
        "value = interval * loss()",
        "value = 1.0 * loss()",
        "tests/training/test_stages.py",
    ),
    Mutation(
        "the worst checkpoint kept for the best",
        "tf_pivae/training/recorder.py",
        "scores[validation.best] < min(earlier, default=math.inf)",
        "scores[validation.best] > min(earlier, default=math.inf)",
        "tests/training/test_validation.py",
    ),
    Mutation(
        "nearest neighbours: the enlarged kernel to one side",
        "tf_pivae/layers/weight_norm.py",
        "kernel = tf.pad(kernel, after) + tf.pad(kernel, before)",
        "kernel = tf.pad(kernel, after) + tf.pad(kernel, after)",
        "tests/layers/test_weight_norm.py",
    ),
    # The same step with less memory.
    Mutation(
        "steps in parts: batch normalisation by the moments of each part",
        "tf_pivae/training/accumulation.py",
        "coupled = training and self.pivae.flow is not None and self.pivae.flow.couples_images",
        "coupled = False",
        "tests/training/test_accumulation.py",
    ),
    Mutation(
        "steps in parts: free bits by the KL of each part",
        "tf_pivae/training/accumulation.py",
        "replica_mean if kl is None else _in_place_of_the_mean(kl)",
        "tf.identity",
        "tests/training/test_accumulation.py",
    ),
    Mutation(
        "rematerialisation: nothing keeps the second run from being merged into the first",
        "tf_pivae/layers/rematerialization.py",
        "late = _after(upstream, tensors)",
        "late = [tf.identity(x) for x in tensors]",
        "tests/layers/test_rematerialization.py",
    ),
    Mutation(
        "rematerialisation: running averages never move",
        "tf_pivae/layers/rematerialization.py",
        "        variable.assign(value)\n",
        "        pass\n",
        "tests/layers/test_rematerialization.py",
    ),
    Mutation(
        "mixed precision: a loaded model rounds as it did in training",
        "tf_pivae/loading.py",
        ".bound(_IN_FLOAT32)",
        "",
        "tests/training/test_pretrained.py",
    ),
    Mutation(
        "mixed precision: the head rounds outside of training steps, too",
        "tf_pivae/bijectors/real_nvp.py",
        "exact=not training)",
        "exact=False)",
        "tests/layers/test_convolution.py",
    ),
    Mutation(
        "mixed precision: a bias's gradient as TensorFlow sums it in bfloat16",
        "tf_pivae/layers/convolution_ops.py",
        "channel_sums(tf.cast(upstream, tf.float32))",
        "tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=upstream), tf.float32)",
        "tests/layers/test_convolution.py",
    ),
    Mutation(
        "weight normalisation: large kernels by the norm of a part of their inputs",
        "tf_pivae/layers/channels.py",
        "    return tf.reduce_sum(tf.reshape(partial, [-1, channels]), 0)\n",
        "    return parts * tf.reduce_sum(tf.reshape(x, [-1, channels])[: count // channels // parts], 0)\n",
        "tests/layers/test_channels.py",
    ),
    Mutation(
        "weight normalisation: its gradient in training steps keeps the part along the direction",
        "tf_pivae/layers/weight_norm.py",
        "_scaled(upstream, factor, axis) - _scaled(v, of_gain * factor * inverse_norm, axis)",
        "_scaled(upstream, factor, axis)",
        "tests/layers/test_weight_norm.py",
    ),
    Mutation(
        "gradients of kernels: the padding at the other side",
        "tf_pivae/layers/convolution_ops.py",
        "    before = total // 2\n",
        "    before = total - total // 2\n",
        "tests/layers/test_convolution_ops.py",
    ),
    Mutation(
        "gradients of kernels: a transposed convolution's maps the wrong way round",
        "tf_pivae/layers/convolution_ops.py",
        "(upstream, x) if self.transposed else (x, upstream)",
        "(x, upstream)",
        "tests/layers/test_convolution_ops.py",
    ),
    Mutation(
        "mixed precision: the head's inverse in a training step does not round",
        "tf_pivae/bijectors/real_nvp.py",
        "mask, network))",
        "mask, functools.partial(network, exact=True)))",
        "tests/layers/test_convolution.py",
    ),
    Mutation(
        "5-bit images: one level too bright",
        "tf_pivae/data/levels.py",
        "np.arange(256) * num_bins // 256",
        "(np.arange(256) * num_bins + 128) // 256",
        "tests/data/test_levels.py",
    ),
    # Memory, and what a configuration needs to be read.
    Mutation(
        "bijectors in TFP's common cache: layers and graphs never go",
        "tf_pivae/bijectors/base.py",
        "    bijector._cache = type(bijector._cache)(bijector=bijector, bijector_class=type(bijector))\n",
        "",
        "tests/bijectors/test_memory.py",
    ),
    Mutation(
        "IDX files: a declared shape not held against the files",
        "tf_pivae/data/idx.py",
        "raw_shape is not None and image_shape != tuple(raw_shape)",
        "False",
        "tests/data/test_specification.py",
    ),
    Mutation(
        "TFDS: requests keeps the timeout after the download",
        "tf_pivae/data/tfds_source.py",
        "        requests.Session.request = request\n",
        "        pass\n",
        "tests/data/test_tfds_source.py",
    ),
    Mutation(
        "a small configuration is read from its data set's pixels",
        "gin/datasets/fashion_mnist.gin",
        "idx_images.raw_shape = (28, 28, 1)\n",
        "",
        "tests/configurations/test_gin_files.py",
    ),
    Mutation(
        "the guard of the tests: links not followed",
        "tests/isolation.py",
        "_leads_to(os.fsdecode(arguments[0]))",
        "os.path.abspath(os.fsdecode(arguments[0]))",
        "tests/test_isolation.py",
    ),
    # The plan of the house.
    Mutation(
        "data that know of models: an import upwards",
        "tf_pivae/data/levels.py",
        "from tf_pivae.errors import UserError\n",
        "from tf_pivae.errors import UserError\nfrom tf_pivae.models import pivae\n",
        "tests/test_house.py",
    ),
    Mutation(
        "a folder that no rule of BUILD covers",
        "BUILD",
        '"export/**/*.py",',
        '"export/*.py",',
        "tests/test_packaging.py",
    ),
    # The package.
    Mutation(
        "tf-pivae: a command's arguments lost",
        "tf_pivae/__main__.py",
        'sys.argv = [f"{program} {name}", *arguments]',
        'sys.argv = [f"{program} {name}"]',
        "tests/test_main.py",
    ),
    Mutation(
        "dead links in the site",
        "docs/build_site.py",
        '"build", "--strict", "-f"',
        '"build", "-f"',
        "tests/documentation/test_site.py",
    ),
    Mutation(
        "the suite: processes that hold much are not renewed",
        "tests/renewal.py",
        "usage.held() > RENEW_BYTES",
        "usage.held() < 0",
        "tests/test_renewal.py",
    ),
    Mutation(
        "an sdist without the numbers of the results",
        "MANIFEST.in",
        "*.md *.jsonl *.ipynb *.json",
        "*.md *.jsonl *.ipynb",
        "tests/test_packaging.py",
    ),
    # Clients of a server.
    Mutation(
        "clients: a signature of TensorFlow's own is taken for one of the model",
        "export/client/metadata.py",
        'if not name.startswith("__")',
        "if name",
        "tests/export/test_client_and_replica.py",
    ),
    Mutation(
        "clients: a busy server is given up like one that is not there",
        "export/client/retries.py",
        "return max_attempts > 1",
        "return number < max_attempts",
        "tests/export/test_client.py",
    ),
    Mutation(
        "clients: messages limited to one byte a pixel",
        "export/client/grpc_client.py",
        'if dtype.kind == "u" else dtype.itemsize',
        "if False else dtype.itemsize",
        "tests/export/test_client.py",
    ),
    Mutation(
        "clients: whole numbers are cut to their type",
        "export/client/model_client.py",
        "np.array_equal(converted, array)",
        "True",
        "tests/export/test_client_and_replica.py",
    ),
    Mutation(
        "gateway: compressed requests are let through",
        "export/serving/gateway.conf",
        "if ($http_content_encoding ~ .)",
        "if ($http_content_encoding = x)",
        "tests/export/test_gateway.py",
    ),
    Mutation(
        "array files: any claim is believed",
        "tf_pivae/data/array_file.py",
        "if self.nbytes > ratio * self.stored:",
        "if False:",
        "tests/data/test_hostile_arrays.py",
    ),
    Mutation(
        "array files: one slab for all",
        "tf_pivae/data/array_file.py",
        "step = max(1, SLAB_BYTES // max(1, row_bytes))",
        "step = max(1, self.shape[0])",
        "tests/data/test_npz.py",
    ),
    Mutation(
        "folders: one that cannot be listed is passed over",
        "tf_pivae/data/image_files.py",
        'yield NoFile(_relative(folder, root), f"cannot be listed: {error.strerror}")',
        "pass",
        "tests/data/test_hostile_images.py",
    ),
    Mutation(
        "arguments: a seed of any size",
        "tf_pivae/arguments.py",
        "whole_numbers(*SEEDS, seed=seed)",
        "whole_numbers(SEEDS[0], seed=seed)",
        "tests/test_arguments.py",
    ),
    Mutation(
        "q alone: the KL counts as little as it did for the model",
        "tf_pivae/training/trainer.py",
        "kl_weights = None if stage.posterior_alone else self._kl_weights()",
        "kl_weights = self._kl_weights()",
        "tests/training/test_stages.py",
    ),
    Mutation(
        "q alone: sigma goes with it, and the samples change",
        "tf_pivae/training/trainer.py",
        "variables = self.pivae.posterior_variables if stage.posterior_alone",
        "variables = self.pivae.inference_variables if stage.posterior_alone",
        "tests/training/test_stages.py",
    ),
    Mutation(
        "q alone: around weights that are not those evaluated",
        "tf_pivae/training/loop.py",
        "if stage != previous:",
        "if False:",
        "tests/test_options.py",
    ),
    Mutation(
        "several workers: whoever leaves first takes down who waits for its last answer",
        "tf_pivae/training/workers.py",
        "with contextlib.suppress(*CONNECTION_ERRORS):",
        "with self.watched():",
        "tests/training/test_workers.py",
    ),
    # A GPU's day.
    Mutation(
        "a part that failed is not tried again",
        "benchmarks/gpu/__main__.py",
        'if name in markers and not markers[name]["missing"]:',
        "if name in markers:",
        "tests/benchmarks/test_gpu.py",
    ),
    Mutation(
        "clocks do not wait for the device",
        "benchmarks/worker.py",
        """                call()
            module.wait()
""",
        """                call()
""",
        "tests/benchmarks/test_gpu.py",
    ),
    Mutation(
        "the twin's noise is drawn on the processor",
        "benchmarks/twin/noise.py",
        "torch.randn(self.rows, *shape, device=self.device)",
        "torch.randn(self.rows, *shape)",
        "tests/benchmarks/test_gpu.py",
    ),
    # An hour's race.
    Mutation(
        "the race's VAE: black's bin ends where the next one begins, but begins there, too",
        "benchmarks/race/vae.py",
        "torch.where(x < -0.999, upper, ",
        "torch.where(x < -1.001, upper, ",
        "tests/benchmarks/race/test_race_vae.py",
    ),
    Mutation(
        "the race's flow: the density of pixels in [0, 1] taken for that of levels",
        "benchmarks/race/flow.py",
        "dimensions * math.log(256.0) - ",
        "-",
        "tests/benchmarks/race/test_race_flow.py",
    ),
    Mutation(
        "the race's DDPM: terms weighted by the step behind",
        "benchmarks/race/ddpm.py",
        "before = self.shares[t - 1]",
        "before = self.shares[t - 2]",
        "tests/benchmarks/race/test_race_ddpm.py",
    ),
    Mutation(
        "the race's clock begins anew where a training was cut off",
        "benchmarks/race/clock.py",
        'spent = saved["seconds"]',
        "spent = 0.0",
        "tests/benchmarks/race/test_race_clock.py",
    ),
    Mutation(
        "convolutions of a device: the kernel rounded once more",
        "tf_pivae/layers/convolution.py",
        "        kernel = tf.cast(kernel, rounded.dtype)\n",
        "        kernel = tf.cast(tf.cast(kernel, 'bfloat16'), rounded.dtype)\n",
        "tests/training/test_devices.py",
    ),
    # What the report shows.
    Mutation(
        "waterfall: the bits of the levels counted twice",
        "tf_pivae/report/waterfall.py",
        "base: Estimate(mean - uniform, error)",
        "base: Estimate(mean, error)",
        "tests/reports/test_waterfall.py",
    ),
    Mutation(
        "a model without metrics counts as not trained",
        "tf_pivae/report/run.py",
        "reached = max(self.step, checkpoint_step or 0)",
        "reached = self.step",
        "tests/reports/test_page.py",
    ),
    Mutation(
        "a name in the page may be HTML",
        "tf_pivae/report/markup.py",
        "_escaped(piece)",
        "piece",
        "tests/reports/test_page.py",
    ),
    # What strangers may send.
    Mutation(
        "REST: values are not counted before they are parsed",
        "export/serve/json_tensors.py",
        "if values > max_values:",
        "if values < 0:",
        "tests/export/test_attacks.py",
    ),
    Mutation(
        "gRPC: fields are not counted before the message is parsed",
        "export/serve/proto_tensors.py",
        "if next(budget, None) is None:",
        "if False:",
        "tests/export/test_attacks.py",
    ),
    Mutation(
        "gRPC: a call waits for its message for ever",
        "export/serve/grpc_service.py",
        'asyncio.wait_for(anext(messages, b""), self._patience)',
        'anext(messages, b"")',
        "tests/export/test_attacks.py",
    ),
    Mutation(
        "Ray: arrays of any type are joined",
        "export/serve/ray_replica.py",
        "as_array(name, inputs[name], spec)",
        "inputs[name]",
        "tests/export/test_ray_serve.py",
    ),
    Mutation(
        "HTTP: idle connections beyond the limit stay",
        "export/serve/http_server.py",
        "if len(self.connections) > self._max_connections:",
        "if False:",
        "tests/export/test_attacks.py",
    ),
    Mutation(
        "OpenVINO: every signature is the default one",
        "export/runtimes/openvino_runtime.py",
        "values[DEFAULT_SIGNATURE].value.CopyFrom(values[name].value)",
        "values[DEFAULT_SIGNATURE].value.CopyFrom(values[DEFAULT_SIGNATURE].value)",
        "tests/export/test_runtimes.py",
    ),
    Mutation(
        "OpenVINO: rows of parts change places",
        "export/runtimes/openvino_runtime.py",
        "for result in results]) for key",
        "for result in results[::-1]]) for key",
        "tests/export/test_runtimes.py",
    ),
    # What people do with a model.
    Mutation(
        "samples that are continued: each batch drawn from the first row",
        "tf_pivae/uses/sampling.py",
        "first_row=first",
        "first_row=0",
        "tests/uses/test_sampling.py",
    ),
    Mutation(
        "samples that are continued: of other settings",
        "tf_pivae/uses/claims.py",
        "if before.get(name) != settings.get(name)",
        "if name not in settings",
        "tests/uses/test_sampling.py",
    ),
    Mutation(
        "typicality: one side alone",
        "tf_pivae/uses/columns.py",
        "np.abs(bits - held_out.mean)",
        "bits - held_out.mean",
        "tests/uses/test_scoring.py",
    ),
    Mutation(
        "AUROC: equal values count as told apart",
        "tf_pivae/uses/detection.py",
        "np.cumsum(negative) - negative / 2",
        "np.cumsum(negative)",
        "tests/uses/test_detection.py",
    ),
    Mutation(
        "a step of NumPy's is the newest checkpoint",
        "tf_pivae/runs/weights.py",
        "step = int(step)",
        "step = None",
        "tests/test_arguments.py",
    ),
    Mutation(
        "images that are NaN are black, and nothing is said",
        "tf_pivae/models/latent_methods.py",
        "if is_nan.any():",
        "if False:",
        "tests/test_arguments.py",
    ),
    Mutation(
        "an output in the place of a device replaces it",
        "tf_pivae/errors.py",
        "if os.path.lexists(path) and not",
        "if False and not",
        "tests/test_errors.py",
    ),
    Mutation(
        "walks of files: other images of the same names are taken for those of before",
        "tf_pivae/uses/own_images.py",
        "whole.update(repr(entry).encode())",
        "whole.update(entry.relative.encode())",
        "tests/uses/test_walks_of_files.py",
    ),
    Mutation(
        "a run with another in it is deleted",
        "tf_pivae/runs/listing.py",
        "if Path(folder) != path and",
        "if False and",
        "tests/training/test_listing.py",
    ),
    Mutation(
        "walks between images: as many ends as starts are not asked for",
        "tf_pivae/models/latent_methods.py",
        "if len(starts) != len(ends):",
        "if len(ends) == 0:",
        "tests/models/test_latent_methods.py",
    ),
    Mutation(
        "images as they are: the central part of a file is a square, whatever it becomes",
        "tf_pivae/data/image_ops.py",
        "largest_part(height, width, self.image_size or 1)",
        "largest_part(height, width, 1)",
        "tests/data/test_image_ops.py",
    ),
    Mutation(
        "metrics.jsonl: what a run does again is there twice",
        "tf_pivae/training/loggers.py",
        'if line["step"] <= start_step and EVALUATION not in line]',
        "if EVALUATION not in line]",
        "tests/training/test_loggers.py",
    ),
    Mutation(
        "a run that goes on: the learning rate is the checkpoint's, whatever is said now",
        "tf_pivae/training/recorder.py",
        "            variable.assign(rate)",
        "            pass",
        "tests/training/test_changes.py",
    ),
    Mutation(
        "a run that goes on: fewer steps than it has are as good as more",
        "tf_pivae/runs/changes.py",
        "int(now) > int(before)",
        "int(now) != int(before)",
        "tests/training/test_changes.py",
    ),
    Mutation(
        "a hub's model: whatever lies beside it is fetched, too",
        "tf_pivae/runs/hub.py",
        " for file in about.siblings or [] if _FILES.fullmatch(file.rfilename)}",
        " for file in about.siblings or []}",
        "tests/training/test_hub.py",
    ),
]


def _ignored(folder: str, names: list[str]) -> set[str]:
    """Of a folder's names those that are no part of the tree."""
    patterns = (*IGNORED, *IGNORED_AT_THE_TOP) if Path(folder) == ROOT else IGNORED
    return shutil.ignore_patterns(*patterns)(folder, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression that the mistake, its file or its tests contain")
    parser.add_argument("--list", action="store_true", help="say which mutations these are, and run none")
    parser.add_argument("--output", default=str(RECORD))
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if any(re.search(options.only, text) for text in (m.mistake, m.file, m.tests))]
    if options.list or not chosen:
        print(*(f"{m.mistake} | {m.file} | {m.tests}" for m in chosen), f"{len(chosen)} mutations", sep="\n")
        return
    began = time.monotonic()
    recorded = _recorded()
    _import_what_takes_long()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=_ignored)
        (tree / "tf_pivae/export").symlink_to("../export")  # Where it is installed.
        _check_that_the_copy_is_tested(tree)
        healthy = True
        for file in sorted({mutation.tests for mutation in chosen}):
            tests = {recorded.get(mutation.mistake, file) for mutation in chosen if mutation.tests == file}
            failed = _first_failure(tree, {file} if file in tests else tests)
            healthy &= failed is None
            print(f"unchanged | {file} | {failed or 'passes'}", flush=True)
        results = []
        for mutation in chosen:
            started = time.monotonic()
            results.append((mutation, _noticed(tree, mutation, recorded.get(mutation.mistake))))
            print(f"{mutation.mistake} | {results[-1][1]} | {time.monotonic() - started:.0f} s", flush=True)
    if not options.only:
        _write(Path(options.output), results)
    survivors = [mutation.mistake for mutation, failed in results if failed is None]
    minutes = (time.monotonic() - began) / 60
    print(f"{len(results) - len(survivors)} of {len(results)} noticed, {minutes:.0f} minutes.")
    for mistake in survivors:
        print(f"not noticed: {mistake}")
    sys.exit(0 if healthy and not survivors else 1)


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def _check_that_the_copy_is_tested(tree: Path) -> None:
    program = "import tf_pivae.export; print(tf_pivae.__file__, tf_pivae.export.__file__, sep='\\n')"
    script = [sys.executable, "-c", program]
    result = subprocess.run(script, cwd=tree, env=_environment(tree), check=True, capture_output=True, text=True).stdout
    if any(Path(file).resolve().parent.parent != tree.resolve() for file in result.splitlines()):
        sys.exit(f"error: the copy in {tree} is not what Python imports, but {result.strip()}")


def _recorded() -> dict[str, str]:
    """The test that noticed each mistake last time."""
    rows = re.findall(r"^\| (.+?) \| `[^`]+` \| `(tests/[^`]+)` \|$", RECORD.read_text(), flags=re.MULTILINE)
    return dict(rows)  # Without those that no test noticed by itself, but the limit of memory.


def _import_what_takes_long() -> None:
    """For all the processes that are forked; nothing of the tree."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["KERAS_HOME"] = home  # Keras reads settings there.
        import tensorflow_probability  # noqa: F401
    del os.environ["KERAS_HOME"]


def _noticed(tree: Path, mutation: Mutation, recorded: str | None) -> str | None:
    """A test that fails under a mutation, the known one or the first, or None."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.right) != 1:
        sys.exit(f"error: {mutation.file} has {mutation.right!r} {text.count(mutation.right)} times, not once")
    path.write_text(text.replace(mutation.right, mutation.wrong))
    try:
        return (recorded and _first_failure(tree, [recorded])) or _first_failure(tree, [mutation.tests])
    finally:
        path.write_text(text)


def _first_failure(tree: Path, tests: Iterable[str]) -> str | None:
    """Name of the first test that fails (or cannot be set up), None if all pass or are not there any more."""
    tests = sorted(tests)
    with tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if not child:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            os.environ.update(_environment(tree))
            os.chdir(tree)
            sys.path[:0] = [str(tree)]
            status = pytest.main([*PYTEST, *tests])
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        output = log.read()
    if status == 0 or (status in _NO_SUCH_TEST and "::" in tests[0]):
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, flags=re.MULTILINE)
    if failed is None:
        sys.exit(f"error: pytest ended with {status} on {tests}:\n{output[-2000:]}")
    return failed[1]


def _write(path: Path, results: list[tuple[Mutation, str | None]]) -> None:
    lines = [
        "# What the tests notice",
        "",
        "Written by `python tests/mutations.py`, which breaks one line at a time in a copy of the tree and runs the",
        "tests that should fail. Without a mutation all of these pass.",
        "",
        "| mistake | in | a test that fails |",
        "|---|---|---|",
    ]
    for mutation, failed in results:
        lines.append(f"| {mutation.mistake} | `{mutation.file}` | {f'`{failed}`' if failed else '**none**'} |")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
