"""The rows of the paper's Tables 2 and 3: one configuration each of one network and one loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.cubes import CubeOptions
from TomoSegLib.pretraining.tasks import PretextTask
from TomoSegLib.pretraining.transforms import GenesisTransforms


@dataclass(frozen=True)
class Preset:
    """What is pre-trained.

    Attributes:
        title: What tables and figures call it.
        pretext: The pretext task.
        scale_head: Whether restoration also tells scales.
        adversary: Whether there is a modality-invariant adversary.
        scales: Indices of the scales of the cubes, None for all.
    """

    title: str
    pretext: Literal["restoration", "patch-location", "jigsaw", "rotation", "cpc"] = "restoration"
    scale_head: bool = False
    adversary: bool = False
    scales: tuple[int, ...] | None = None


PRESETS = {
    "sar": Preset("SAR", scale_head=True, adversary=True),
    "sar-no-adversary": Preset("restoration + SA", scale_head=True),
    "sar-no-scale": Preset("restoration + MIAL", adversary=True),
    "sar-large": Preset("SAR, 1/2 alone", adversary=True, scales=(0,)),
    "sar-medium": Preset("SAR, 1/4 alone", adversary=True, scales=(1,)),
    "sar-small": Preset("SAR, 1/8 alone", adversary=True, scales=(2,)),
    "models-genesis": Preset("Models Genesis"),
    "patch-location": Preset("3D-RPL", "patch-location"),
    "jigsaw": Preset("3D-Jig", "jigsaw"),
    "rotation": Preset("3D-Rot", "rotation"),
    "cpc": Preset("3D-CPC", "cpc"),
}
"""Scratch, the remaining row, is fine-tuning without pre-training. A single scale leaves nothing to
tell, so there the scale head is off."""


def build_task(
    preset: Preset, network: UNet3D, cubes: CubeOptions, transforms: GenesisTransforms
) -> PretextTask:
    """A preset's task with new heads for a network; restoration undoes the transforms."""
    from TomoSegLib.pretraining import baselines
    from TomoSegLib.pretraining.tasks import Restoration

    channels = network.level_channels[-1]
    if preset.pretext == "restoration":
        return Restoration(channels, len(cubes.scales) if preset.scale_head else 0, transforms)
    if preset.pretext == "patch-location":
        return baselines.PatchLocation(channels, cubes.shape)
    if preset.pretext == "jigsaw":
        return baselines.Jigsaw(channels, cubes.shape)
    if preset.pretext == "rotation":
        return baselines.Rotation(channels)
    return baselines.ContrastivePrediction(channels, cubes.shape)
