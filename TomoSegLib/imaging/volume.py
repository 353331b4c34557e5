"""A volume and its place in the patient: the project's one convention of coordinates.

* Physical space is LPS, in millimetres, as in DICOM and ITK. NIfTI and Slicer's RAS are converted
  by the readers and writers and appear nowhere else.
* A voxel array has axes ``[k, j, i]`` (slice, row, column), the order in which SimpleITK and
  Slicer hand arrays to Python. A voxel *index* is written ``(i, j, k)``, the order of the axes of
  the affine matrix: voxel ``(i, j, k)`` holds ``array[k, j, i]`` and its centre lies at
  ``affine @ (i, j, k, 1)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular voxel grid in LPS millimetres.

    Oblique, flipped, left-handed and anisotropic grids are all allowed; shear is not, and
    neither is a singular matrix.

    Attributes:
        shape: Number of voxels along ``(k, j, i)``, the shape of the array.
        affine: ``(4, 4)`` float64 matrix from homogeneous voxel index ``(i, j, k, 1)`` to LPS mm.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
            raise TomoSegError(
                "geometry-invalid",
                "The volume's orientation matrix is not a finite 4x4 matrix.",
                "Convert the volume again from its original DICOM files.",
            )
        columns = affine[:3, :3]
        spacing = np.linalg.norm(columns, axis=0)
        volume = np.linalg.det(columns / np.where(spacing, spacing, 1.0))
        if np.any(spacing == 0) or abs(volume) < 1e-4:
            raise TomoSegError(
                "geometry-singular",
                "The volume's direction matrix is singular: its axes do not span space.",
                "Repair the header, or convert the volume again from its original DICOM files.",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @cached_property
    def spacing(self) -> FloatArray:
        """Voxel size along ``(i, j, k)``, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @cached_property
    def direction(self) -> FloatArray:
        """``(3, 3)`` matrix whose columns are the unit vectors of the ``i, j, k`` axes in LPS."""
        return self.affine[:3, :3] / self.spacing

    @cached_property
    def origin(self) -> FloatArray:
        """Centre of voxel ``(0, 0, 0)``, LPS mm."""
        return self.affine[:3, 3].copy()

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along ``(i, j, k)``."""
        return self.shape[2], self.shape[1], self.shape[0]

    @cached_property
    def center(self) -> FloatArray:
        """Centre of the grid, LPS mm."""
        return self.index_to_lps((np.array(self.size, dtype=np.float64) - 1) / 2)

    @cached_property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    def index_to_lps(self, index: npt.ArrayLike) -> FloatArray:
        """LPS mm of voxel indices ``(..., 3)`` given as ``(i, j, k)``, which may be fractional."""
        index = np.asarray(index, dtype=np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def lps_to_index(self, point: npt.ArrayLike) -> FloatArray:
        """Fractional voxel indices ``(i, j, k)`` of LPS positions ``(..., 3)``."""
        point = np.asarray(point, dtype=np.float64)
        return (point - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def corners(self) -> FloatArray:
        """``(8, 3)`` LPS positions of the centres of the grid's corner voxels."""
        ends = [(0, n - 1) for n in self.size]
        return self.index_to_lps([(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]])

    def part(self, box: Sequence[slice]) -> Geometry:
        """The grid of a box of voxels, given as slices with start and stop along ``(k, j, i)``."""
        k, j, i = box
        affine = self.affine.copy()
        affine[:3, 3] = self.index_to_lps([i.start, j.start, k.start])
        return Geometry((k.stop - k.start, j.stop - j.start, i.stop - i.start), affine)

    def is_close(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and corners within the tolerance."""
        return self.shape == other.shape and bool(
            np.abs(self.corners() - other.corners()).max() <= tolerance_mm
        )

    @classmethod
    def from_parts(
        cls,
        shape: tuple[int, int, int],
        spacing: npt.ArrayLike,
        direction: npt.ArrayLike | None = None,
        origin: npt.ArrayLike = (0.0, 0.0, 0.0),
    ) -> Geometry:
        """A grid from shape ``(k, j, i)``, spacing ``(i, j, k)``, direction columns and origin."""
        affine = np.eye(4)
        matrix = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64)
        affine[:3, :3] = matrix.reshape(3, 3) * np.asarray(spacing, dtype=np.float64)
        affine[:3, 3] = np.asarray(origin, dtype=np.float64)
        return cls(shape, affine)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar voxel array together with its grid.

    Attributes:
        array: ``(k, j, i)`` array of any real dtype.
        geometry: Its grid in LPS mm.
        name: What to call it in messages: usually the file's name.
        metadata: Header fields worth keeping (DICOM modality, series description, ...).
    """

    array: npt.NDArray[np.generic]
    geometry: Geometry
    name: str = "volume"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} does not fit grid {self.geometry.shape}")

    def with_array(self, array: npt.NDArray[np.generic], name: str | None = None) -> Volume:
        """Another array on the same grid."""
        return Volume(array, self.geometry, self.name if name is None else name, self.metadata)


def storable(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The array in a type and layout that every format has."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def hash_volume(volume: Volume) -> str:
    """SHA-256 of a volume's content: voxels, their type, and the grid.

    The same content hashes equally whatever the file's format: bytes are taken little-endian in
    C order, and the matrix in single precision (NIfTI has no more) rounded to 1e-4. The slices of a
    left-handed grid are taken in reverse, which makes it right-handed: 3D Slicer reads it so.
    """
    digest = hashlib.sha256()
    array, affine = volume.array, volume.geometry.affine
    if np.linalg.det(affine[:3, :3]) < 0:
        array, affine = array[::-1], affine.copy()
        affine[:3, 3] += (array.shape[0] - 1) * affine[:3, 2]
        affine[:3, 2] *= -1
    dtype = array.dtype.newbyteorder("<")
    digest.update(f"{dtype.kind}{dtype.itemsize} {array.shape}".encode())
    rounded = np.round(affine.astype(np.float32).astype(np.float64), 4) + 0.0
    digest.update(rounded.astype("<f8").tobytes())
    for plane in array:
        digest.update(np.ascontiguousarray(plane, dtype=dtype).data)
    return digest.hexdigest()
