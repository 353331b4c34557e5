"""The baseline that a user has without this project: threshold the smoothed intensities.

The intensities of one channel become z-scores over the foreground, are smoothed by a Gaussian
that takes nothing from outside the foreground, and are thresholded; the largest connected
component is the mask. Channel, sign (bright or dark lesions), width of the Gaussian and threshold
are those with the best mean Dice on the validation cases, a choice that needs the masks which the
weakly supervised methods do without: it is meant to be hard to beat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from TomoSegLib.evaluation.metrics import overlap
from TomoSegLib.imaging.preprocessing import ModelInput

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

SIGMAS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
THRESHOLDS = tuple(np.arange(0.25, 5.01, 0.25).tolist())
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class IntensityBaseline:
    """A threshold on smoothed z-scores.

    Attributes:
        channel: Index of the input channel.
        sign: 1 for lesions brighter than the rest, -1 for darker ones.
        sigma_mm: Standard deviation of the Gaussian, mm.
        threshold: In standard deviations of the intensities over the foreground; None for Otsu's
            threshold of each volume, where there was nothing to choose on.
        validation_dice: Mean Dice of the choice on the cases that it was made on.
        validation_cases: Their number.
    """

    channel: int = 0
    sign: int = 1
    sigma_mm: float = 2.0
    threshold: float | None = None
    validation_dice: float | None = None
    validation_cases: int = 0

    def heatmap(self, model_input: ModelInput) -> Float32Array:
        """Signed, smoothed z-scores ``(K, J, I)`` on the model's grid."""
        return self.sign * _smoothed_zscore(model_input, self.channel, self.sigma_mm)

    def mask(self, heatmap: Float32Array, foreground: BoolArray) -> tuple[BoolArray, float]:
        """The largest component above the threshold within the foreground, and the threshold.

        Args:
            heatmap: As from `heatmap`, on any grid.
            foreground: On the same grid.
        """
        threshold = self.threshold
        if threshold is None:
            threshold = float(threshold_otsu(heatmap[foreground]))
        return largest_component((heatmap > threshold) & foreground), threshold


def choose_baseline(cases: Iterable[tuple[ModelInput, BoolArray]]) -> IntensityBaseline:
    """The baseline with the best mean Dice.

    Args:
        cases: Validation cases, consumed one by one: preprocessed input, and the reference mask
            ``(K, J, I)`` on the model's grid. Cases with an empty reference are passed over.

    Returns:
        The best of all channels, signs, `SIGMAS_MM` and `THRESHOLDS`; with no case at all, an
        uncalibrated one with Otsu's threshold.
    """
    total: npt.NDArray[np.float64] | None = None
    count = 0
    for model_input, reference in cases:
        if not reference.any():
            continue
        dice = _dice_of_all_settings(model_input, reference)
        total = dice if total is None else total + dice
        count += 1
    if total is None:
        return IntensityBaseline()
    channel, sign, sigma, threshold = np.unravel_index(int(np.argmax(total)), total.shape)
    return IntensityBaseline(
        channel=int(channel),
        sign=(1, -1)[sign],
        sigma_mm=SIGMAS_MM[sigma],
        threshold=THRESHOLDS[threshold],
        validation_dice=float(total.max() / count),
        validation_cases=count,
    )


def largest_component(mask: BoolArray) -> BoolArray:
    """The component with the most voxels (connected by faces); of equals, the first stored."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: BoolArray = labels == int(np.argmax(sizes))
    return largest


def _dice_of_all_settings(model_input: ModelInput, reference: BoolArray) -> npt.NDArray[np.float64]:
    """Dice by channel, sign, sigma and threshold."""
    foreground = model_input.foreground
    region = foreground | reference
    channels = model_input.image.shape[0]
    dice = np.zeros((channels, 2, len(SIGMAS_MM), len(THRESHOLDS)))
    for channel in range(channels):
        for s, sigma in enumerate(SIGMAS_MM):
            score = _smoothed_zscore(model_input, channel, sigma)
            for g, sign in enumerate((1, -1)):
                for t, threshold in enumerate(THRESHOLDS):
                    above = (sign * score > threshold) & foreground
                    if not above.any():
                        break  # higher thresholds leave nothing either
                    counts = overlap(largest_component(above), reference, region)
                    dice[channel, g, s, t] = counts.f1
    return dice


def _smoothed_zscore(model_input: ModelInput, channel: int, sigma_mm: float) -> Float32Array:
    """Normalised convolution of z-scores: the weights of voxels outside the foreground are 0."""
    image, foreground = model_input.image[channel], model_input.foreground
    inside = image[foreground]
    spread = float(inside.std(dtype=np.float64))
    mean = float(inside.mean(dtype=np.float64))
    score = np.where(foreground, (image - mean) / (spread or 1.0), 0).astype(np.float32)
    if sigma_mm == 0:
        return score
    # the model's grid is isotropic, but is measured all the same
    sigma = sigma_mm / model_input.geometry.spacing[::-1]
    weight = ndimage.gaussian_filter(foreground.astype(np.float32), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(score, sigma, mode="constant")
    enough = weight > _LEAST_WEIGHT
    result: Float32Array = np.divide(smooth, weight, out=np.zeros_like(smooth), where=enough)
    return result
