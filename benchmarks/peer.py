"""The twin's side of every case, eager or through `torch.compile`."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import cases
from benchmarks.twin import critic, flow, latents, model, training, vae
from benchmarks.twin.noise import Noise


def setup(system: str, threads: int, logical_cpus: int, device: str) -> None:
    """As many threads as asked for; on a GPU, TensorFloat-32 and the fastest convolutions, as TensorFlow has them."""
    del system, logical_cpus
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(threads)
    if device == "gpu":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def wait() -> None:
    """Returns when the device has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_peak() -> int:
    """The most bytes that tensors held on the GPU since `forget`."""
    return torch.cuda.max_memory_allocated()


def forget() -> None:
    """Lets go of the last case's graphs."""
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def prepare(system: str, case: dict) -> tuple[Callable[[], Any], None]:
    """Returns a function that runs the case once; the arithmetic is counted on our side alone."""
    compiled = torch.compile(dynamic=False) if system == "compile" else None
    tasks = {
        "train": _train,
        "log_prob": _log_prob,
        "log_prob_16": _log_prob,
        "sample": _sample,
        "reconstruct": _reconstruct,
        "flow": _flow,
        "flow_inverse": _flow_inverse,
        "iaf": _iaf,
        "operation": _operation,
    }
    # While it is built alone: a default device costs every later call of PyTorch some time.
    with _device():
        return tasks[case["task"]](case, compiled or (lambda function: function)), None


def _device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _noise(case):
    return Noise(case["batch"], _device())


def _images(case):
    return torch.randint(0, 256, (case["batch"], 3, case["side"], case["side"]), dtype=torch.uint8)


def _model(case):
    size = cases.size(case["kind"], case["factor"], case.get("latents"))
    side = case["side"]
    stem = size.stem if size.residual else None
    net = vae.VAE(side, side, size.widths, stem, size.top, size.latents, iaf=size.residual)
    return model.PiVAE(flow.RealNVP(side, side, **cases.head_options(case)), net)


def _critic(case):
    size = cases.size(case["kind"], case["factor"])
    side = case["side"]
    if size.residual:
        return critic.ResidualCritic(size.stem, size.widths)
    return critic.PlainCritic(side, side, size.widths)


def _train(case, compiled):
    """The penalty's critic stays eager: compiled functions have no second derivative."""
    pivae = _model(case)
    judge = _critic(case)
    images = _images(case)
    noise = _noise(case)
    trainer = training.Trainer(
        pivae,
        judge,
        bound=compiled(pivae.forward),
        sample=compiled(pivae.sample_continuous),
        judge=compiled(judge.forward),
    )
    rounds = case.get("convolutions", "float32") == "bfloat16"

    def step():
        with torch.autocast(_device().type, torch.bfloat16, enabled=rounds):
            return float(trainer.step(images, noise, noise, noise).coverage)

    return step


def _log_prob(case, compiled):
    pivae = _model(case).eval()
    images = _images(case)
    noise = _noise(case)
    samples = case.get("importance_samples", 16 if case["task"] == "log_prob_16" else 1)
    bound = compiled(pivae.forward)
    return torch.no_grad()(lambda: pivae.log_prob(images, samples, noise, bound).numpy(force=True))


def _sample(case, compiled):
    pivae = _model(case).eval()
    noise = _noise(case)
    shape = (3, case["side"], case["side"])
    sample = compiled(lambda: model.to_uint8(pivae.sample_continuous(shape, noise)))
    return torch.no_grad()(lambda: sample().numpy(force=True))


def _reconstruct(case, compiled):
    pivae = _model(case).eval()
    images = _images(case)
    noise = _noise(case)
    reconstruct = compiled(lambda: model.to_uint8(pivae.reconstruct(images, noise)))
    return torch.no_grad()(lambda: reconstruct().numpy(force=True))


# Parts of the model.


def _flow(case, compiled):
    head = flow.RealNVP(case["side"], case["side"], **cases.head_options(case))
    return density_gradient(compiled(head), case)


def density_gradient(transform: Any, case: dict) -> Callable[[], Any]:
    """A function that computes the gradient of the mean negative log-density under a standard normal.

    `transform` is a module, x [B, C, H, W] -> y of as many elements, log-det [B].
    """
    x = torch.randn(case["batch"], 3, case["side"], case["side"])

    def gradient():
        transform.zero_grad(set_to_none=True)
        y, log_det = transform(x)
        zeros = torch.zeros_like(y)
        (-(latents.log_normal(y, zeros, zeros).flatten(1).sum(1) + log_det).mean()).backward()

    return gradient


def _flow_inverse(case, compiled):
    head = flow.RealNVP(case["side"], case["side"], **cases.head_options(case)).eval()
    y = torch.randn(case["batch"], 3, case["side"], case["side"])
    inverse = compiled(head.inverse)
    return torch.no_grad()(lambda: inverse(y).numpy(force=True))


def _iaf(case, compiled):
    iaf = latents.IAF(case["latents"], case["width"])
    shape = (case["batch"], case["latents"], case["side"], case["side"])
    epsilon, mean, scale = (torch.randn(shape) for _ in range(3))
    context = torch.randn(case["batch"], case["width"], case["side"], case["side"])

    def log_q():
        z, elements = latents.draw_posterior(mean, scale, epsilon, iaf, context)
        return (elements - z.square()).sum([1, 2, 3]).mean()

    log_q = compiled(log_q)

    def gradient():
        iaf.zero_grad(set_to_none=True)
        log_q().backward()

    return gradient


def _operation(case, compiled):
    del compiled
    shape = (case["batch"], case["channels"], case["side"], case["side"])
    kernel = 0.01 * torch.randn(case["channels"], case["channels"], 3, 3)
    operation = {
        "convolution": lambda x: torch.nn.functional.conv2d(x, kernel, padding=1),
        "addition": lambda x: x + x,
        "exponential": torch.exp,
        "logarithm": torch.log,
        "tanh": torch.tanh,
        "elu": torch.nn.functional.elu,
        "split": lambda x: [part.contiguous() for part in x.chunk(4, 1)],
        "normal": lambda x: torch.randn(shape, device=x.device),
    }[case["operation"]]
    tensors = torch.rand(cases.REPEATS, *shape) + 0.5
    return torch.no_grad()(lambda: [operation(x) for x in tensors.unbind()])
