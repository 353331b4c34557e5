"""Real heads that simulated volumes are made from.

An anatomy is a skull-stripped T1-weighted scan of a real head, described by what a simulator needs
to give it any other contrast: the fractions of cerebrospinal fluid, grey and white matter in each
voxel, and the fine detail of the scan that those fractions do not explain.

Two heads are known by name and are found where package managers put them, nothing is downloaded:

* ``colin27``: one person, averaged over 27 scans (Holmes et al. 1998), ``ch2bet.nii.gz`` of
  Debian's ``mricron-data``; copyright McConnell Brain Imaging Centre, free to use and modify
  with this notice.
* ``mni152``: the average of 152 people (ICBM 2009a symmetric; Fonov et al. 2011), in the PyPI
  package ``nilearn``; same terms.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.volume import Geometry

KNOWN_ANATOMIES = ("colin27", "mni152")

_COLIN_PLACES = (
    Path("/usr/share/mricron/templates/ch2bet.nii.gz"),
    Path("/usr/local/share/mricron/templates/ch2bet.nii.gz"),
)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A real head, ready to be given another contrast.

    Attributes:
        name: What the manifest's ``group`` column calls it; data sets are split by it.
        tissues: ``(3, k, j, i)`` float32, fractions of CSF, grey and white matter; they sum to 1
            inside the brain and to 0 outside.
        detail: ``(k, j, i)`` float32, what the tissue fractions leave unexplained of the T1 scan,
            as a fraction of the contrast between white and grey matter.
        geometry: The grid, LPS mm.
    """

    name: str
    tissues: npt.NDArray[np.float32]
    detail: npt.NDArray[np.float32]
    geometry: Geometry

    @cached_property
    def corners(self) -> npt.NDArray[np.float64]:
        """``(2, 3)`` LPS positions of opposite corners of the brain's bounding box."""
        index = np.argwhere(self.brain)[:, ::-1]
        return self.geometry.index_to_lps(np.array([index.min(axis=0), index.max(axis=0)]))

    @property
    def brain(self) -> npt.NDArray[np.bool_]:
        """``(k, j, i)`` mask of the brain."""
        return np.asarray(self.tissues.sum(axis=0) > 0.5)


def load_anatomy(name: str, path: Path | None = None) -> Anatomy:
    """A head by name, or any skull-stripped T1 scan as one.

    Args:
        name: ``colin27``, ``mni152``, or with ``path`` any name.
        path: A skull-stripped T1-weighted volume whose background is zero.

    Raises:
        TomoSegError: ``anatomy-not-found``, ``anatomy-unsuitable``, or the reader's errors.
    """
    if path is None:
        path = anatomy_path(name)
    volume = read_volume(path)
    image = np.asarray(volume.array, dtype=np.float32)
    brain = ndimage.binary_fill_holes(_largest_component(image > 0.05 * image.max()))
    tissues = _tissue_fractions(image, brain)
    means = [(image * t).sum() / max(t.sum(), 1e-6) for t in tissues]
    explained = sum(mean * t for mean, t in zip(means, tissues, strict=True))
    contrast = max(abs(means[2] - means[1]), 1e-3)
    detail = np.where(brain, (image - explained) / contrast, 0).astype(np.float32)
    return Anatomy(name, tissues, detail, volume.geometry)


def anatomy_path(name: str) -> Path:
    """The file of a head that is known by name.

    Raises:
        TomoSegError: ``anatomy-not-found``.
    """
    if name == "colin27":
        for place in _COLIN_PLACES:
            if place.is_file():
                return place
        hint = "Install Debian's mricron-data, or name a file: --anatomy colin27=ch2bet.nii.gz."
    elif name == "mni152":
        # Only the package's files are wanted: importing nilearn would import scikit-learn.
        spec = importlib.util.find_spec("nilearn")
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "datasets" / "data"
            place = folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
            if place.is_file():
                return place
        hint = "Install it with: pip install 'tomoseg[simulate]'."
    else:
        hint = f"Known are {', '.join(KNOWN_ANATOMIES)}; or name a file: --anatomy NAME=FILE."
    raise TomoSegError("anatomy-not-found", f"The anatomy '{name}' was not found.", hint)


def _largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray(components == sizes.argmax())


def _tissue_fractions(
    image: npt.NDArray[np.float32], brain: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Fractions of CSF, grey and white matter by linear mixing between three class means.

    In a T1 scan CSF is darkest and white matter brightest, and a voxel on a border is a mixture
    of the two classes beside it, so its intensity places it between their means.
    """
    values = image[brain]
    means = np.percentile(values, (5, 40, 85)).astype(np.float64)
    for _ in range(50):  # k-means in one dimension
        borders = (means[1:] + means[:-1]) / 2
        classes = np.digitize(values, borders)
        if len(np.unique(classes)) < 3:
            raise TomoSegError(
                "anatomy-unsuitable",
                "CSF, grey and white matter cannot be told apart in the anatomy.",
                "Give a skull-stripped T1-weighted scan of a head, not a mask.",
            )
        updated = np.array([values[classes == c].mean() for c in range(3)])
        if np.allclose(updated, means, rtol=1e-4):
            break
        means = updated
    tissues = np.zeros((3, *image.shape), dtype=np.float32)
    grey = np.interp(image, means, (0.0, 1.0, 0.0)).astype(np.float32)
    tissues[1] = grey
    tissues[0] = np.where(image < means[1], 1 - grey, 0)
    tissues[2] = np.where(image >= means[1], 1 - grey, 0)
    return tissues * brain
