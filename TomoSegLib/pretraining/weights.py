"""Pre-trained weights on disk, and how a network for another task begins with them.

A pre-training leaves ``pretrained.safetensors`` with ``pretrained.json``, which says what they are.
A safetensors file alone will do where its network is known to be the same, such as a public
checkpoint of MONAI's BasicUNet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.models.building import read_weights
from TomoSegLib.models.card import Intensity
from TomoSegLib.models.folder import MAX_CARD_BYTES, MAX_FILE_BYTES, read_bounded
from TomoSegLib.models.locations import shipped_models_folder
from TomoSegLib.networks.unet import is_output_weight
from TomoSegLib.networks.unet3d import adapted_weights
from TomoSegLib.training.checkpoint import all_finite

WEIGHTS = "pretrained.safetensors"
RECORD = "pretrained.json"

T = TypeVar("T")
P = TypeVar("P", bound=BaseModel)

_HINT = "Give the folder of a pre-training, or a safetensors file of the same network."


def shipped_folder() -> Path:
    """Where pre-trained weights lie that come with the program, each in a folder of its name."""
    return shipped_models_folder().parent / "Pretrained"


@dataclass(frozen=True)
class Pretrained:
    """Weights to begin with.

    Attributes:
        weights: State dict of a U-Net, or of its encoder alone.
        record: What the pre-training wrote of itself; empty for a file without a record.
        source: Where they come from, for messages.
        sha256: Of the file.
    """

    weights: Mapping[str, Tensor]
    record: Mapping[str, Any]
    source: Path
    sha256: str

    @property
    def features(self) -> tuple[int, ...] | None:
        """Channels of the U-Net's levels as its weights have them; None for another network.

        The last convolutions' are the first level's where there is only an encoder.
        """
        names = ["conv_0", *(f"down_{n}.convs" for n in range(1, 5)), "upcat_1.convs"]
        found = [self.weights.get(f"{name}.conv_0.conv.weight") for name in names]
        if found[5] is None:
            found[5] = found[0]
        sizes = [value.shape[0] for value in found if value is not None and value.ndim in (4, 5)]
        return tuple(sizes) if len(sizes) == len(names) else None

    @property
    def dimensions(self) -> int:
        """2 or 3: of the network's convolutions."""
        return 2 if max((w.ndim for w in self.weights.values()), default=5) == 4 else 3

    @property
    def encoder(self) -> str:
        """Name of a 2D network's encoder; ``unet`` if the record does not say."""
        network = self.record.get("network")
        found = network.get("backbone", "unet") if isinstance(network, dict) else "unet"
        return found if isinstance(found, str) else "unet"

    @property
    def spacing_mm(self) -> float | None:
        """Voxel or pixel size of what was learnt from; None if the record does not say."""
        if "planes" in self.record:
            return self._part("planes", _Planes, lambda planes: planes.spacing_mm)
        return self._part("cubes", _Cubes, lambda cubes: cubes.spacing_mm)

    def intensity(self, modality: str) -> Intensity | None:
        """How volumes of a modality (CT or MR) were normalised; None if the record is silent."""

        def read(cubes: _Cubes) -> Intensity:
            lower, upper = cubes.ct_window if modality == "CT" else cubes.mr_percentiles
            method: Literal["window", "percentile"] = "window" if modality == "CT" else "percentile"
            return Intensity(method=method, lower=lower, upper=upper)

        return self._part("cubes", _Cubes, read)

    def _part(self, name: str, kind: type[P], read: Callable[[P], T]) -> T | None:
        if name not in self.record:
            return None
        try:
            return read(kind.model_validate(self.record[name]))
        except ValidationError as error:
            problem = error.errors()[0]
            raise _invalid(
                self.source, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            ) from None


class _Cubes(BaseModel):
    """What a record says of the cubes, as far as others need it."""

    spacing_mm: float = Field(ge=0.1, le=20.0)
    ct_window: tuple[float, float]
    mr_percentiles: tuple[float, float]


class _Planes(BaseModel):
    """What a record says of the images of planes, as far as others need it."""

    spacing_mm: float = Field(ge=0.1, le=20.0)


def save_pretrained(folder: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write weights and their record; the record comes last and holds the weights' hash."""
    content = save({name: t.detach().cpu().contiguous().clone() for name, t in weights.items()})
    document = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _no_record(folder: Path) -> TomoSegError:
    problem, hint = f"{folder} has no {RECORD}", _HINT
    if (model := folder / "model" / "weights.safetensors").is_file():
        problem += ": it holds a fine-tuning"
        hint = f"To begin with its network, give {model}."
    elif (folder / "checkpoint").is_dir():
        problem += ": its pre-training is not finished"
        hint = "Give the pre-training's command again to finish it."
    return TomoSegError("pretrained-unknown", f"{problem}.", hint)


def load_pretrained(source: Path) -> Pretrained:
    """Read pre-trained weights.

    Args:
        source: The folder of a pre-training, a safetensors file, or the name of weights that come
            with the program.

    Raises:
        TomoSegError: ``pretrained-unknown`` (nothing there), ``pretrained-invalid`` (damaged),
            ``model-weights-pickle``, ``model-weights-invalid``, ``model-file-too-large``.
    """
    record: dict[str, Any] = {}
    if source.name == str(source) and not source.exists():
        source = shipped_folder() / source if (shipped_folder() / source).is_dir() else source
    path = source
    if source.is_dir():
        path = source / WEIGHTS
        if not (source / RECORD).is_file():
            raise _no_record(source)
        try:
            content = read_bounded(source / RECORD, MAX_CARD_BYTES, missing="pretrained-unknown")
            record = json.loads(content)
            if not isinstance(record, dict):
                raise ValueError("it is not a record of a pre-training")
        except (ValueError, RecursionError) as error:
            raise _invalid(source / RECORD, str(error)) from None
    elif not source.is_file():
        raise TomoSegError("pretrained-unknown", f"There is nothing at {source}.", _HINT)
    content = read_bounded(path, MAX_FILE_BYTES, missing="pretrained-unknown")
    digest = hashlib.sha256(content).hexdigest()
    if record and record.get("sha256") != digest:
        raise _invalid(path, f"it is not the file that {RECORD} describes")
    weights = read_weights(content, path.name)
    if not all_finite(weights):
        raise _invalid(path, "it holds values that are not finite")
    return Pretrained(weights, record, source, digest)


def begin_with(network: nn.Module, pretrained: Pretrained, *, rescaled: bool = False) -> list[str]:
    """Fill a network with pre-trained weights as far as they go.

    The last layer begins anew. A first layer of one channel is repeated for several.

    Args:
        network: Changed in place.
        pretrained: The weights.
        rescaled: Give the blocks of the project's U-Nets (not the encoders of other networks in
            them) the scale that they had at random, see `_rescale`: they then learn as fast as
            random ones, which suits trainings of hundreds of steps. In the first few dozen steps
            it costs some of what was learnt.

    Returns:
        Names of weights that begin anew, the last layer's aside: the decoder's, where the
        pre-training had none.

    Raises:
        TomoSegError: ``pretrained-mismatch`` if the weights are those of another network.
    """
    own = network.state_dict()
    fitting = dict(adapted_weights(pretrained.weights, network))
    unknown = sorted(fitting.keys() - own.keys())
    other = sorted(n for n in fitting.keys() & own.keys() if fitting[n].shape != own[n].shape)
    problem = ""
    if unknown:
        problem = f"it has weights named {unknown[0]}, which the network has not"
    elif other:
        name = other[0]
        problem = f"{name} has shape {tuple(fitting[name].shape)}, not {tuple(own[name].shape)}"
    else:
        partly = {n.split(".")[0] for n in own.keys() - fitting.keys()} & {
            n.split(".")[0] for n in fitting
        }
        if not fitting or partly:
            problem = f"weights of {sorted(partly)[0] if partly else 'all layers'} are missing"
    if problem:
        raise TomoSegError(
            "pretrained-mismatch",
            f"{pretrained.source} holds weights of another network: {problem}.",
            "It needs a U-Net of this project or MONAI's BasicUNet with batch norm and the same "
            "--features.",
        )
    scaled = [name for name in fitting if rescaled and name.endswith("conv.weight")]
    sizes = {name: float(own[name].norm()) for name in scaled}  # before they are overwritten
    network.load_state_dict({**own, **fitting})
    _rescale(network, sizes)
    return sorted(n for n in own.keys() - fitting.keys() if not is_output_weight(n))


def _rescale(network: nn.Module, sizes: Mapping[str, float]) -> None:
    """Give convolutions before a batch norm another norm; what the network computes stays, but for
    the epsilon of batch norm.

    Batch norm takes the scale of what it gets away, so the weights' norm means nothing but how
    much a step of a given size turns them (T. van Laarhoven, "L2 regularization versus batch and
    weight normalization", 2017). It grows in training: twice or three times as long weights learn
    half or a third as fast as random ones at the same rate, and a pre-trained network would be
    behind for that alone.

    Args:
        network: Changed in place.
        sizes: Norms that weights shall have, by their name.
    """
    for name, block in network.named_modules():
        wanted = sizes.get(f"{name}.conv.weight", 0.0)
        norm = getattr(getattr(block, "adn", None), "N", None)
        if not wanted or not isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
            continue
        with torch.no_grad():
            factor = wanted / block.conv.weight.norm().clamp_min(1e-12)
            for value, power in (
                (block.conv.weight, 1),
                (block.conv.bias, 1),
                (norm.running_mean, 1),
                (norm.running_var, 2),
            ):
                if value is not None:
                    value.mul_(factor**power)


def _invalid(path: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "pretrained-invalid",
        f"{path} cannot be used: {reason}.",
        "Pre-train again, or copy it again.",
    )
