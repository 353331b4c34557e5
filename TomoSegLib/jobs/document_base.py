"""What all job documents are made of; see `TomoSegLib.jobs.document`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from TomoSegLib.models.card import StrictModel

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Millimetres = Annotated[float, Field(gt=0, le=2000)]
DEVICE = re.compile(r"^(auto|cpu|cuda(:\d{1,3})?|mps)$")


class JobModel(StrictModel):
    """Base of the documents: no field may be unknown, and text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Region(JobModel):
    """A box of voxels of the first input, half-open like a Python slice.

    Attributes:
        start: First voxel ``(i, j, k)``.
        stop: One past the last voxel ``(i, j, k)``.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @model_validator(mode="after")
    def _not_empty(self) -> Region:
        if any(a < 0 or b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError("a region needs 0 <= start < stop along i, j and k")
        return self

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The region of an array ``[k, j, i]``."""
        i, j, k = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return k, j, i
