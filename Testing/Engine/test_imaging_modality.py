"""What intensities say about the modality, and when a run doubts it."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.modality import looks_like_ct, modality_doubt
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.document import parse_job
from TomoSegLib.jobs.inputs import read_inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.training.finetuning_start import modality_of
from TomoSegLib.training.segmentation_manifest import LabelledCase

GRID = Geometry.from_parts((20, 24, 22), (2.0, 2.0, 2.0))


def body(air, tissue, *, dtype=np.int16):
    """A block of tissue with noise, in air."""
    rng = np.random.default_rng(0)
    array = np.full(GRID.shape, air, np.float32)
    array[4:16, 5:19, 4:18] = tissue
    array[4:16, 5:19, 4:6] -= 0.15 * (tissue - air)  # fat, or what is darker
    return Volume((array + rng.normal(0, 10, GRID.shape)).astype(dtype), GRID, "scan")


CT, MR = body(-1000, 40), body(0, 400)
STORED_CT = Volume((CT.array + 1100).astype(np.uint16), GRID, "scan")  # its intercept is lost
MASKED_CT = Volume(np.where(CT.array > -500, CT.array, 0), GRID, "scan")
NORMALISED_MR = body(-0.7, 1.5, dtype=np.float32)


@pytest.mark.parametrize(
    ("volume", "modality", "doubt"),
    [
        (CT, "MR", "looks like CT"),
        (CT, "MR T1 contrast-enhanced", "looks like CT"),
        (CT, "mri", "looks like CT"),
        (CT, "any", None),
        (CT, "T1-weighted MRI", "looks like CT"),
        (CT, "CT/MR", None),
        (MR, "MR", None),
        (NORMALISED_MR, "MR", None),
        (CT, "CT", None),
        (MASKED_CT, "CT", None),
        (STORED_CT, "CT", "Hounsfield"),
        (Volume(np.abs(MR.array), GRID, "scan"), "CT", "Hounsfield"),
        (CT, "PET", None),
        (CT, "", None),
        (replace(MR, metadata={"Modality": "CT"}), "MR", "is CT by its DICOM files"),
        (replace(CT, metadata={"Modality": "MR"}), "MR", None),
        (replace(MR, metadata={"Modality": "MR"}), "CT", "is MR by its DICOM files"),
        (replace(MR, metadata={"Modality": "PT"}), "MR", None),
    ],
)
def test_only_what_is_plainly_of_another_modality_is_doubted(volume, modality, doubt):
    found = modality_doubt(volume, modality, hounsfield=True)
    if doubt is None:
        assert found is None
    else:
        assert found is not None and doubt in found.message and found.hint


def test_of_a_large_volume_the_voxels_that_are_looked_at_lie_everywhere():
    array = np.full((128, 128, 256), 40, np.int16)
    array[:, :, :64] = -1000  # a step of the width would see these alone, or none
    assert looks_like_ct(array)
    array[:, :, 16:64] = 40
    assert not looks_like_ct(array)


def test_ct_without_a_value_below_zero_suits_a_model_that_takes_no_window():
    assert modality_doubt(STORED_CT, "CT", hounsfield=False) is None


@pytest.mark.parametrize("model", ["flair-lesion", "flair-lesion-segmenter", "t1c-core"])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_run_of_a_shipped_model_on_another_modality_goes_on_and_says_so(tmp_path, model, frames):
    for scan, codes in ((CT, ["modality-doubtful"]), (MR, [])):
        path = tmp_path / "scan.nii"
        array = scan.array.T if frames == 1 else np.stack([scan.array.T] * frames, axis=-1)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        document = {"kind": "run", "model": model, "output": str(tmp_path / "out")}
        report = Reporter(lambda _: None)
        read_inputs(parse_job({**document, "input": str(path)}), report)
        assert [warning.code for warning in report.warnings] == codes


@pytest.mark.parametrize(("scan", "modality"), [(CT, "CT"), (MR, "MR")])
def test_a_fine_tuning_takes_its_modality_from_the_intensities_and_says_so(
    tmp_path, scan, modality
):
    write_volume(scan, tmp_path / "scan.nrrd")
    path = tmp_path / "scan.nrrd"
    case = LabelledCase("scan", (path,), path, "train", "scan", "")
    with pytest.warns(match="taken for") as said:
        assert modality_of([case]) == modality
    assert len(said) == 1
