"""A model's public methods for latents: encode, decode, reconstruct and interpolate."""

import functools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pivae import arguments
from tf_pivae.errors import NotFinite
from tf_pivae.noise import RowNoise, seed_tensor
from tf_pivae.system.rows import RowFunction

RECONSTRUCTION = "reconstruction"  # The stream of noise for reconstructions, different from that for samples.


def without_nan(images: np.ndarray, is_nan: np.ndarray) -> np.ndarray:
    """The images themselves; warns of those of which `is_nan`, bool [B], says that black pixels stand for NaN."""
    if is_nan.any():
        message = (
            f"{is_nan.sum()} of {len(images)} images have pixels that are NaN: the weights have diverged, or "
            "`temperature` or `sample_noise` is too large."
        )
        warnings.warn(NotFinite(message), stacklevel=3)
    return images


class LatentMethods:
    """The methods of a `PiVAE` for which an image becomes latents, or latents an image.

    Attributes:
      image_shape: (H, W, C).
      num_classes: of a class-conditional model, whose methods want `labels`; 0 for any other.
    """

    image_shape: tuple[int, ...]
    num_classes: int

    if TYPE_CHECKING:  # What `PiVAE` and `ImageMethods` bring.
        vae: Any
        infer: Any
        to_image_space: Any
        to_images: Any
        _checked: Any
        _checked_labels: Any

    def _compile_rows(self) -> None:
        """Must be called after the model's variables are created."""
        self._encode_rows = RowFunction(self._encode_batch)
        self._decode_rows = RowFunction(self._decode_batch)
        self._reconstruct_rows = RowFunction(self._reconstruct_batch)

    def reconstruct(
        self,
        images: np.ndarray,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> np.ndarray:
        """Encodes and decodes: the posterior's sample of z, the mean of p(y|z), mapped back to an image.

        Args:
          images: uint8 [B, H, W, C].
          seed: int, of the noise of dequantisation and posterior: image i has that of (seed, first_row + i).
          labels: int [B] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.
          first_row: int below 2^40, the place of the first image in a larger set.

        Returns:
          NumPy uint8 [B, H, W, C].
        """
        images, labels = self._checked(images, labels)
        arguments.rows(first_row, batch_size)
        rows = len(images), first_row, batch_size, (images, labels), (seed_tensor(seed),)
        return without_nan(*self._reconstruct_rows(*rows))

    def encode(
        self,
        images: np.ndarray,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> dict[str, np.ndarray]:
        """Posterior samples of the latent groups: `decode` of them is `reconstruct`.

        Args:
          images, seed, labels, batch_size, first_row: as for `reconstruct`.

        Returns:
          dict of a group's name, the top of the hierarchy first -> NumPy float32 [B, ...].

        Raises:
          ValueError: images of another shape, dtype or range; labels missing or out of range.
        """
        images, labels = self._checked(images, labels)
        arguments.rows(first_row, batch_size)
        latents = self._encode_rows(len(images), first_row, batch_size, (images, labels), (seed_tensor(seed),))
        return dict(zip(self.vae.group_names, latents, strict=True))

    def decode(
        self, latents: Mapping[str, np.ndarray], labels: np.ndarray | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """The images of latents: the mean of p(y|z), mapped back to an image.

        Args:
          latents: every group of the model by name, as `encode` returns them: floats [B, ...], finite.
          labels: int [B] for a class-conditional model.
          batch_size: images computed at a time, over all replicas.

        Returns:
          NumPy uint8 [B, H, W, C].

        Raises:
          ValueError: groups missing, of other names or shapes, or not finite; labels missing or out of range.
        """
        names = set(latents) if isinstance(latents, Mapping) else set()
        if names != set(self.latent_shapes):
            given = ", ".join(map(str, names)) or f"none in a {type(latents).__name__}"
            raise ValueError(f"`latents` must be a dict of {', '.join(self.latent_shapes)}; got {given}.")
        arguments.unmasked(**latents)
        arrays = [np.asarray(latents[name]) for name in self.latent_shapes]
        for name, array in zip(self.latent_shapes, arrays, strict=True):
            if array.dtype.kind not in "fiu":
                raise ValueError(f"`{name}` must be floats; got {array.dtype}.")
        arrays = [array.astype(np.float32) for array in arrays]
        for (name, shape), array in zip(self.latent_shapes.items(), arrays, strict=True):
            if array.shape != (len(arrays[0]) if arrays[0].ndim else 0, *shape):
                raise ValueError(
                    f"`{name}` must be [B, {', '.join(map(str, shape))}], with one B for all groups; got "
                    f"{list(array.shape)}."
                )
            if not np.isfinite(array).all():
                raise ValueError(f"`{name}` must be finite; got NaN or infinity.")
        arguments.rows(0, batch_size)
        count = len(arrays[0])
        return without_nan(*self._decode_rows(count, 0, batch_size, (self._checked_labels(labels, count), *arrays)))

    @functools.cached_property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The latent groups by name, the top of the hierarchy first, and the shape of one image's."""
        label = np.zeros(1, np.int64) if self.num_classes else None
        encoded = self.encode(np.zeros([1, *self.image_shape], np.uint8), labels=label)
        return {name: array.shape[1:] for name, array in encoded.items()}

    def interpolate(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        steps: int = 8,
        seed: int = 0,
        labels: np.ndarray | None = None,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> np.ndarray:
        """From one image to another: straight lines between their posteriors' samples, decoded.

        A walk begins and ends with the reconstructions of its images: `reconstruct` of `starts`, and of `ends`.

        Args:
          starts, ends: uint8 [R, H, W, C], one end for each start.
          steps: images of a walk, at least 2, the reconstructions of both ends among them.
          seed, batch_size, first_row: as for `reconstruct`; a walk is a row.
          labels: int [R] for a class-conditional model, the same for both ends of a walk.

        Returns:
          NumPy uint8 [R, steps, H, W, C].

        Raises:
          ValueError: not as many ends as starts; as `reconstruct`.
        """
        arguments.whole_numbers(2, steps=steps)
        starts, ends = (self._checked(images, labels)[0] for images in (starts, ends))
        if len(starts) != len(ends):
            raise ValueError(f"`starts` and `ends` must have the same length; got {len(starts)} and {len(ends)}.")
        a, b = (self.encode(images, seed, labels, batch_size, first_row) for images in (starts, ends))

        def line(name: str) -> np.ndarray:
            share = np.linspace(0.0, 1.0, steps, dtype=np.float32).reshape(1, steps, *[1] * (a[name].ndim - 1))
            walk = (1 - share) * a[name][:, None] + share * b[name][:, None]
            return walk.reshape(-1, *a[name].shape[1:])

        repeated = None if labels is None else np.repeat(labels, steps)
        walks = self.decode({name: line(name) for name in a}, repeated, batch_size)
        return walks.reshape(len(starts), steps, *self.image_shape)

    # What is computed at a time; see `RowFunction`.

    def _encode_batch(self, first_row, count, images, labels, seed):
        noise = RowNoise(seed, count, first_row).fold_in(RECONSTRUCTION)
        return [group.z for group in self.infer(images, noise, labels)[0]]

    def _decode_batch(self, first_row, count, labels, *latents):
        return self.to_images(self.to_image_space(self.vae.decode(latents, labels)))

    def _reconstruct_batch(self, first_row, count, images, labels, seed):
        noise = RowNoise(seed, count, first_row).fold_in(RECONSTRUCTION)
        return self.to_images(self.to_image_space(self.infer(images, noise, labels)[1]))
