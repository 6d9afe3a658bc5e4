"""The numbers of the paper's tables, and the configuration of each of their rows."""

from typing import NamedTuple

METRICS = {
    "bits_per_dim": "bits/dim",
    "inception_score": "IS",
    "fid": "FID",
    "gan_test": "GAN-test %",
    "gan_train": "GAN-train %",
}
BEYOND = {name: name for name in ("precision", "recall", "density", "coverage")}  # Not in the paper.


class System(NamedTuple):
    """One system of a table."""

    name: str  # its configuration is gin/paper/NAME.gin; a run of it is shared by the tables
    label: str  # what the paper calls it
    numbers: dict  # metric -> published value; None where the paper gives none
    approximate: bool = False  # bits per dimension in [square brackets], by an inference network around a GAN
    likelihood_first: bool = False  # appendix C: trained by likelihood alone, and from there by both
    also: tuple = ()  # metrics of `BEYOND` to compute as well
    elsewhere: str | None = None  # the row whose system this is, on other data; for presets that bring their own data


class Table(NamedTuple):
    """A table of systems."""

    title: str
    metrics: tuple  # keys of `METRICS`, the table's columns
    rows: tuple  # of `System`


_SCORES = ("bits_per_dim", "inception_score", "fid")
_CLASSIFIERS = ("gan_test", "gan_train")


def _scores(name, label, *values, **options):
    return System(name, label, dict(zip(_SCORES, values, strict=True)), **options)


def _classified(name, label, *values):
    return System(name, label, dict(zip(_CLASSIFIERS, values, strict=True)))


_GAN = _scores("gan", "GAN", 7.0, 6.8, 31.4, approximate=True)
_CQFG = _scores("cqfg", "CQFG", 3.9, 7.1, 28.0)
_S2 = _scores("cqfg_s2", "CQFG (S2), CIFAR-10", 3.46, 6.9, 28.9, likelihood_first=True)

TABLES = {
    "1": Table(
        "Table 1: GAN and VAE baselines, and models with and without a flow, on CIFAR-10",
        _SCORES,
        (
            _GAN,
            _scores("vae", "VAE", 4.4, 2.0, 171.0),
            _scores("pivae", "PiVAE", 3.5, 3.0, 112.0),
            _scores("cqg", "CQG", 4.4, 5.1, 58.6),
            _CQFG,
        ),
    ),
    "2": Table(
        "Table 2: residual layers, IAF and a larger critic, on CIFAR-10",
        _SCORES,
        (
            _GAN,
            _scores("gan_res", "GAN, Res", None, 7.4, 24.0),
            _CQFG,
            _scores("cqfg_res", "CQFG, Res", 3.8, 7.5, 26.0),
            _scores("cqfg_iaf_res", "CQFG, IAF and Res", 3.77, 7.9, 20.1),
            _scores("cqfg_large_d", "CQFG (large-D), IAF and Res", 3.74, 8.1, 18.6),
        ),
    ),
    "3": Table(
        "Table 3: CIFAR-10 and STL-10 at 48x48",
        _SCORES,
        (
            _scores("cqfg_large_d", "CQFG, CIFAR-10", 3.74, 8.1, 18.6),
            _S2,
            _scores("stl10_48", "CQFG, STL-10", 4.0, 8.6, 52.7, elsewhere="cqfg_large_d"),
            _scores("stl10_48_s2", "CQFG (S2), STL-10", 3.8, 8.6, 52.1, likelihood_first=True, elsewhere="cqfg_s2"),
        ),
    ),
    "4": Table(
        "Table 4: CQFG (large-D) at higher resolutions",
        _SCORES,
        (
            _scores("celeba_crop178", "CelebA, crop 178, 96x96", 2.85, None, 24.3, elsewhere="cqfg_large_d"),
            _scores("celeba_crop96", "CelebA, crop 96, 96x96", 2.45, None, 13.8, elsewhere="cqfg_large_d"),
            _scores("stl10_96", "STL-10, 96x96", 3.85, 8.8, 100.8, elsewhere="cqfg_large_d"),
            _scores("imagenet64", "ImageNet, 64x64", 4.90, 7.6, 69.9, elsewhere="cqfg_large_d"),
            _scores("lsun_bedroom64", "LSUN bedrooms, 64x64", 4.01, None, 61.9, elsewhere="cqfg_large_d"),
        ),
    ),
    "5": Table(
        "Table 5: class-conditional models on CIFAR-10",
        _CLASSIFIERS,
        (
            _classified("gan_conditional", "GAN", 71.8, 29.7),
            _classified("cqfg_conditional", "CQFG", 76.9, 73.4),
        ),
    ),
    "8": Table(
        "Table 8: (scales, blocks) of the head, on CIFAR-10",
        _SCORES,
        (
            _scores("cqfg_1_2", "CQFG (1, 2)", 3.77, 7.9, 20.1, likelihood_first=True),
            _scores("cqfg_2_2", "CQFG (2, 2)", 3.48, 6.9, 27.7, likelihood_first=True),
            _S2._replace(label="CQFG (2, 4), S2"),
            _scores("cqfg_3_3", "CQFG (3, 3)", 3.49, 6.5, 31.7, likelihood_first=True),
            _scores("pivae_1_2", "PiVAE (1, 2)", 3.52, 3.0, 112.0),
            _scores("pivae_2_2", "PiVAE (2, 2)", 3.41, 4.5, 85.5),
            _scores("pivae_3_2", "PiVAE (3, 2)", 3.45, 4.4, 78.7),
            _scores("pivae_4_1", "PiVAE (4, 1)", 3.49, 4.1, 82.4),
        ),
    ),
}

# Table 7: random subsets of CIFAR-10's training images against all of them: size -> Inception Score, FID.
REAL_SUBSETS = {
    50_000: (11.3411, 0.00),
    40_000: (11.3388, 0.13),
    30_000: (11.3515, 0.35),
    20_000: (11.3458, 0.79),
    10_000: (11.3219, 2.10),
    5_000: (11.2108, 4.82),
    2_500: (11.0446, 10.48),
}


def row_names() -> list[str]:
    """Names of all rows, in the order of the tables, each once."""
    return list(dict.fromkeys(row.name for table in TABLES.values() for row in table.rows))
