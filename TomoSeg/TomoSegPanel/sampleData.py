"""Sample data for the module SampleData."""

from __future__ import annotations

from pathlib import Path

from TomoSegLib.models.locations import shipped_models_folder

CATEGORY = "TomoSeg"


def registerSampleData() -> None:
    """Tell the module SampleData of the sample that ships, where it does."""
    sample = sampleFile()
    if not sample.is_file():
        return
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="TomoSegSimulatedFLAIR",
        uris=sample.as_uri(),
        fileNames=sample.name,
        nodeNames="simulated FLAIR",
        thumbnailFileName=None,
        loadFileType="VolumeFile",
    )


def sampleFile() -> Path:
    """The sample volume, beside the models that ship."""
    return shipped_models_folder().parent / "Samples" / "simulated-flair.nii.gz"
