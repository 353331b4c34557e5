r"""The inverse plane-Radon transform as filtered backprojection, streaming and in slabs.

With ``q(n, s)`` the integral of ``f`` over the plane ``n . (x - center) = s``,

    f(x) = -1 / (8 pi^2) \int_{S^2} q''(n, n . (x - center)) dn
         =  1 / (2 pi) \sum_i w_i (h * q_i)(n_i . (x - center)),    \sum_i w_i = 1,

where the filter h has the transfer function ``H(k) = (2 pi |k|)^2`` (k in cycles per mm), here
generalised to ``H(k) = (2 pi |k|)^p W(k)``: p = 2 without a window W is the exact inverse, p = 0
plain backprojection. Natterer, The Mathematics of Computerized Tomography, section II.2, for n = 3.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from TomoSegLib.imaging.volume import FloatArray, Geometry
from TomoSegLib.tomography.planes import PlaneStack

Window = Literal["hann", "cosine", "none"]


def filter_responses(
    responses: Tensor,
    distance_mm: float,
    order: float = 2.0,
    cutoff: float = 1.0,
    window: Window = "hann",
    padding: Tensor | float | Literal["ends"] = "ends",
) -> Tensor:
    """Filter profiles along their last axis with ``H(k) = (2 pi |k|)^p W(k)``.

    Outside the stack the response is taken to be constant, so that the ends of a stack make no
    false second derivative; that constant is subtracted first, so that emptiness becomes zero for
    every order (for p > 0 the filter removes constants anyway).

    Args:
        responses: ``(..., S)`` encoder outputs along the planes of a stack: ``(A, S)`` profiles,
            or class activation maps with the slice axis moved to the end.
        distance_mm: Distance of neighbouring planes.
        order: p, in [0, 2].
        cutoff: The window's end as a fraction of the Nyquist frequency, in (0, 1].
        window: ``hann`` and ``cosine`` fall to 0 at the cutoff; ``none`` cuts off there.
        padding: The response outside the stack: a number or a tensor that broadcasts to
            ``(..., 1)``, normally the encoder's response to an empty slice; or ``ends``: the line
            through each profile's first and last value is subtracted and zero follows. For stacks
            that begin and end with empty slices that is the same; it makes p = 2 immune to linear
            trends as well as to offsets.

    Returns:
        ``(..., S)``, of the dtype and on the device of ``responses``; in units of a response per
        mm^p.
    """
    if not 0 <= order <= 2 or not 0 < cutoff <= 1:
        raise ValueError(f"order {order} is not in [0, 2] or cutoff {cutoff} not in (0, 1]")
    count = responses.shape[-1]
    # Single precision where the device has nothing else (Apple's GPU).
    dtype = torch.float32 if responses.device.type == "mps" else torch.float64
    q = responses.to(dtype)
    if isinstance(padding, str):
        ramp = torch.linspace(0, 1, count, dtype=dtype, device=q.device)
        q = q - torch.lerp(q[..., :1], q[..., -1:], ramp)
    else:
        q = q - torch.as_tensor(padding, dtype=dtype, device=q.device)

    # Four times the length: filters of fractional order fall off slowly, as |s|^-(1 + p).
    length = next_fast_len(4 * count, real=True)
    frequency = torch.fft.rfftfreq(length, d=distance_mm, dtype=dtype, device=q.device)
    relative = frequency * (2 * distance_mm / cutoff)  # 1 at the cutoff
    transfer = (2 * math.pi * frequency) ** order * (relative <= 1 + 1e-9)
    if window == "hann":
        transfer = transfer * torch.cos(relative * (math.pi / 2)) ** 2
    elif window == "cosine":
        transfer = transfer * torch.cos(relative * (math.pi / 2))
    elif window != "none":
        raise ValueError(f"unknown window {window!r}")
    filtered = torch.fft.irfft(torch.fft.rfft(q, n=length) * transfer, n=length)
    return filtered[..., :count].to(responses.dtype)


class Backprojector:
    """Sums filtered profiles or stacks over directions on a target grid, as they come.

    The heatmap is ``f(x) = sum_i w_i g_i(x) / (2 pi sum_i w_i)`` and the agreement of the
    directions ``max(sum w g, 0)^2 / (sum w . sum w g^2)``, where ``g_i(x)`` is what direction i
    puts at x. By Cauchy and Schwarz the agreement lies in [0, 1]: 1 where every direction says the
    same, 0 where they cancel or say no (this project's definition).

    Memory: two float32 arrays of the target's size and tables of a few tens of megabytes.

    Profiles are interpolated linearly, at positions that are exact along the rows (i) of the grid
    and rounded from row to row to 1/32 of the slice distance, on a lattice fixed in space. So any
    part of a grid gets the same values as the whole, and the rounding is an error in position of
    at most 1/64 of a slice distance, independent from direction to direction; a kink is rounded
    off over a step as small.

    Args:
        geometry: The target grid: any spacing, oblique, flipped, a region of interest, ...
        center: ``(3,)`` LPS mm: offsets of the planes count from here along each normal.
        device: Where to compute. Apple's GPUs ("mps") are replaced by the CPU.
        agreement: Whether to sum squares for `agreement` as well.
    """

    _FINENESS = 32  # table entries per slice distance
    _PHASE = 0.377  # keeps round-number grids away from rounding ties, which noise would decide
    _TABLE_BYTES = 24 * 2**20
    _SLAB_VOXELS = 2**19

    def __init__(
        self,
        geometry: Geometry,
        center: npt.ArrayLike,
        *,
        device: torch.device | str = "cpu",
        agreement: bool = True,
    ) -> None:
        self.geometry = geometry
        self.center: FloatArray = np.asarray(center, dtype=np.float64)
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.weight = 0.0
        self._sum = torch.zeros(geometry.shape, device=self.device)
        self._squares = torch.zeros(geometry.shape, device=self.device) if agreement else None
        # Directions wait in tables until these are full, see add() and flush(). The buffers are
        # kept: fresh memory of this size costs more than what is computed in it.
        self._table = torch.empty(0, device=self.device)
        self._square_table = torch.empty(0, device=self.device)
        self._scratch = torch.empty(0, device=self.device)
        self._lines = 0
        self._rows: list[Tensor] = []
        # The row's voxel from which positions along it count: the one closest to the center, so
        # that it is the same in every part of a grid. (Not rounded at one half: see _PHASE.)
        along = geometry.lps_to_index(self.center)[0]
        self._anchor = math.floor(along + 0.5 + 0.123)

    def add(
        self,
        profile: Tensor | npt.ArrayLike,
        offsets: npt.ArrayLike,
        normal: npt.ArrayLike,
        weight: float,
    ) -> None:
        """Add one direction's filtered profile.

        Args:
            profile: ``(S,)`` filtered responses. Beyond its ends the end values continue.
            offsets: ``(S,)`` offsets of its planes from the center, mm, ascending and equally
                spaced.
            normal: ``(3,)`` unit normal, LPS.
            weight: The direction's quadrature weight.
        """
        offsets = np.asarray(offsets, dtype=np.float64)
        values = np.asarray(
            profile.detach().cpu() if isinstance(profile, Tensor) else profile, dtype=np.float64
        )
        distance = offsets[1] - offsets[0] if len(offsets) > 1 else 1.0
        step = distance / self._FINENESS
        slices, _, voxels = self.geometry.shape

        # Signed distance of a voxel, in table steps: rows (k, j) give a base, i a ramp.
        n = np.asarray(normal, dtype=np.float64)
        per_i, per_j, per_k = (n @ self.geometry.affine[:3, :3]) / step
        start = n @ (self.geometry.index_to_lps((self._anchor, 0, 0)) - self.center) / step
        ramp = per_i * (np.arange(voxels) - self._anchor)
        base = (
            start + per_k * np.arange(slices)[:, None] + per_j * np.arange(self.geometry.shape[1])
        )
        row = np.floor(base.ravel() + self._PHASE).astype(np.int32)

        # The table R[t, i]: the profile along a row that starts at step t. Rows that lie wholly
        # beyond the stack are all alike, and share its first and last lines.
        before = math.floor(offsets[0] / step - ramp.max()) - 2
        behind = math.ceil(offsets[-1] / step - ramp.min()) + 2
        low = min(max(int(row.min()), before), behind)
        high = max(min(int(row.max()), behind), low)
        row = row.clip(low, high) - low
        lines = high - low + 1
        shift = np.floor(ramp).astype(np.int64)
        fraction = ramp - shift
        first = int(shift.min())
        reach = int(shift.max()) - first
        position = (low + first + np.arange(lines + reach + 1) + 0.5 - self._PHASE) * step
        fine = torch.from_numpy(np.interp(position, offsets, values)).to(self.device, torch.float32)
        # Line t of column i is fine[t + shift[i]], interpolated: windows of the fine profile.
        windows = fine.mul_(weight).unfold(0, lines, 1)
        shifts = torch.from_numpy(shift - first).to(self.device)
        fractions = torch.from_numpy(fraction).to(self.device, torch.float32)[:, None]
        place = self._reserve(lines)
        here, there = self._scratch[: 2 * voxels * lines].view(2, voxels, lines)
        torch.index_select(windows, 0, shifts, out=here)
        torch.index_select(windows, 0, shifts + 1, out=there)
        self._table[place].copy_(here.lerp_(there, fractions).T)
        if self._squares is not None and weight:
            # w g^2 = (w g)^2 / w
            squares = self._square_table[place]
            torch.mul(self._table[place], self._table[place], out=squares).mul_(1 / weight)
        self._rows.append(torch.from_numpy(row + place.start).to(self.device))
        self.weight += weight

    def _reserve(self, lines: int) -> slice:
        """Room for that many lines in the tables, after making some if need be."""
        voxels = self.geometry.shape[2]
        if self._lines + lines > len(self._table):
            self.flush()
        if lines > len(self._table):
            capacity = max(lines, self._TABLE_BYTES // (4 * voxels))
            self._table = torch.empty((capacity, voxels), device=self.device)
            if self._squares is not None:
                self._square_table = torch.empty_like(self._table)
        if 2 * voxels * lines > len(self._scratch):
            self._scratch = torch.empty(2 * voxels * lines, device=self.device)
        self._lines += lines
        return slice(self._lines - lines, self._lines)

    def flush(self) -> None:
        """Add the directions that wait: each row of the grid gets a sum of lines of the table.

        A sum of lines of a table is what an embedding bag is: contiguous, vectorised and parallel
        on CPU and GPU. Several directions at once, because the target is far larger than caches.
        """
        if not self._rows:
            return
        voxels = self.geometry.shape[2]
        rows = torch.stack(self._rows, dim=1)
        slab = max(1, self._SLAB_VOXELS // voxels)
        for target, table in ((self._sum, self._table), (self._squares, self._square_table)):
            if target is None:
                continue
            flat = target.view(-1, voxels)
            for begin in range(0, len(rows), slab):
                part = slice(begin, begin + slab)
                flat[part] += functional.embedding_bag(rows[part], table, mode="sum")
        self._rows, self._lines = [], 0

    def add_stack(
        self,
        maps: Tensor,
        stack: PlaneStack,
        weight: float,
        *,
        support: npt.NDArray[np.bool_] | None = None,
        stride: tuple[float, float] | None = None,
        first_pixel: tuple[float, float] | None = None,
    ) -> None:
        """Add one direction's stack of maps (class activation maps), trilinearly looked up.

        Args:
            maps: ``(S, h, w)`` maps of the stack's slices, of any resolution. Beyond its ends the
                border values continue.
            stack: The planes of the slices.
            weight: The direction's quadrature weight.
            support: ``(K, J, I)`` bool on the target grid: only the bounding box of each slab's
                support is computed, the rest stays as it is.
            stride: Slice pixels per map pixel, (row, column); by default ``(H / h, W / w)``.
            first_pixel: Where the centre of map pixel (0, 0) lies in the slice, (row, column)
                pixels; by default the maps cover the slice's area exactly:
                ``(stride - 1) / 2``.
        """
        count, height, width = maps.shape
        if stride is None:
            stride = (stack.shape[0] / height, stack.shape[1] / width)
        if first_pixel is None:
            first_pixel = ((stride[0] - 1) / 2, (stride[1] - 1) / 2)
        distance = stack.offsets[1] - stack.offsets[0] if count > 1 else 1.0

        # An affine map takes a voxel (i, j, k) to the maps' (column, row, slice), and from there
        # to grid_sample's coordinates (2 x + 1) / n - 1.
        axes = np.stack([stack.u, stack.v, stack.normal])
        pixel = np.array([stack.spacing_mm, stack.spacing_mm, 1.0])
        unit = np.array([stride[1], stride[0], distance])
        zero = np.array([
            (stack.shape[1] - 1) / 2 - first_pixel[1],
            (stack.shape[0] - 1) / 2 - first_pixel[0],
            -stack.offsets[0],
        ])  # fmt: skip
        size = np.array([width, height, count])
        matrix = (axes @ self.geometry.affine[:3, :3]) / pixel[:, None] / unit[:, None]
        origin = (axes @ (self.geometry.origin - stack.center) / pixel + zero) / unit
        steps = torch.from_numpy(matrix * 2 / size[:, None])
        start = torch.from_numpy((2 * origin + 1) / size - 1)

        volume = maps.detach().to(self.device, torch.float32)[None, None]
        slices, rows, voxels = self.geometry.shape
        thickness = max(1, self._SLAB_VOXELS // (rows * voxels))
        for begin in range(0, slices, thickness):
            end = min(begin + thickness, slices)
            box = _bounding_box(None if support is None else support[begin:end], rows, voxels)
            if box is None:
                continue
            (j0, j1), (i0, i1) = box
            ramps = [
                (steps[:, axis, None] * torch.arange(a, b)).to(self.device)
                for axis, (a, b) in enumerate(((i0, i1), (j0, j1), (begin, end)))
            ]
            lines = (start.to(self.device)[:, None, None] + ramps[2][:, :, None]) + ramps[1][
                :, None
            ]
            grid = lines.float()[..., None] + ramps[0].float()[:, None, None]
            # Rows as a batch of one volume without copies: the CPU kernel is parallel over it.
            grid = grid.flatten(1, 2).permute(1, 2, 0)[:, None, None]
            values = functional.grid_sample(
                volume.expand(len(grid), -1, -1, -1, -1),
                grid,
                mode="bilinear",
                padding_mode="border",
                align_corners=False,
            ).view(end - begin, j1 - j0, i1 - i0)
            self._sum[begin:end, j0:j1, i0:i1].add_(values, alpha=weight)
            if self._squares is not None:
                self._squares[begin:end, j0:j1, i0:i1].addcmul_(values, values, value=weight)
        self.weight += weight

    def heatmap(self) -> Tensor:
        """``(K, J, I)`` float32: the reconstruction from the directions added so far."""
        self.flush()
        return self._sum * self._scale()

    def agreement(self) -> Tensor:
        """``(K, J, I)`` float32 in [0, 1]: how far the directions added so far agree."""
        self.flush()
        if self._squares is None:
            raise ValueError("this backprojector sums no squares")
        result = torch.zeros_like(self._sum)
        for out, total, squares in zip(result, self._sum, self._squares, strict=True):
            positive = total.clamp(min=0)
            torch.div(positive * positive, squares * self.weight, out=out)
            out.nan_to_num_(0.0, 0.0, 0.0).clamp_(0, 1)
        return result

    def preview(self, stride: int = 1) -> npt.NDArray[np.float32]:
        """The heatmap so far as an array, every ``stride``-th voxel along each axis."""
        self.flush()
        part = self._sum[::stride, ::stride, ::stride]
        return np.asarray((part * self._scale()).cpu().numpy())

    def _scale(self) -> float:
        return 1 / (2 * math.pi * self.weight) if self.weight else 0.0


def _bounding_box(
    support: npt.NDArray[np.bool_] | None, rows: int, voxels: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Ranges of j and i in which a slab ``(k, j, i)`` has support; None if nowhere."""
    if support is None:
        return (0, rows), (0, voxels)
    j, i = np.flatnonzero(support.any(axis=(0, 2))), np.flatnonzero(support.any(axis=(0, 1)))
    if len(j) == 0:
        return None
    return (int(j[0]), int(j[-1]) + 1), (int(i[0]), int(i[-1]) + 1)
