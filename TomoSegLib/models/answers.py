"""What is asked of the answers of a network, whoever made it, before they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.models.card import ModelCard

Invalid = Callable[[str], TomoSegError]
"""Makes an error of a reason why a network cannot be used."""


def checked_logits(
    ask: Callable[[Tensor], object],
    x: Tensor,
    expected: tuple[int, ...],
    card: ModelCard,
    invalid: Invalid,
    *,
    pieces: str,
    seen: str,
) -> Tensor:
    """A network's logits, if they are what they should be.

    Args:
        ask: The network.
        x: ``(B, C, K, J, I)`` float32.
        expected: Shape of the logits.
        card: The model's card.
        invalid: See `Invalid`.
        pieces: What ``x`` is a batch of, for messages.
        seen: What the network has seen of a scan, for messages.

    Returns:
        float32.

    Raises:
        TomoSegError: That of ``invalid`` if it fails, or gives something else;
            ``response-not-finite``.
        MemoryError, RuntimeError: Memory does not suffice (see `is_out_of_memory`).
    """
    try:
        output = ask(x)
    except Exception as error:  # anything that a foreign network may raise
        if is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise invalid(
            f"it fails on {pieces} of {x.shape[1]} channels and "
            f"{' x '.join(map(str, x.shape[2:]))} voxels: {reason}"
        ) from None
    if not isinstance(output, Tensor):
        raise invalid(f"it returns a {type(output).__name__}, not logits")
    if output.shape != expected:
        raise invalid(f"it returns {tuple(output.shape)} where {expected} is expected")
    if not bool(torch.isfinite(output).all()):
        raise TomoSegError(
            "response-not-finite",
            f"The answer of the model {card.name} to {seen} is not finite.",
            "Check that the scan is of the kind that the model's card asks for.",
        )
    return output.float()


def refuse_dependent(
    ask: Callable[[], tuple[Tensor, Tensor]],
    card: ModelCard,
    invalid: Invalid,
    *,
    pieces: str,
    smaller: str,
) -> None:
    """Refuse a network whose answer to one piece depends on the others of a batch.

    An exported program keeps the mode it was exported in: in training mode, batch norm mixes the
    pieces of a batch and dropout is random.

    Args:
        ask: Gives the logits of two pieces together, and those of the first alone.
        card: The model's card.
        invalid: See `Invalid`.
        pieces: What the network is given, for messages.
        smaller: Which other model would need less memory, for messages.

    Raises:
        TomoSegError: That of ``invalid``, ``out-of-memory``, and those of ``ask``.
    """
    try:
        both, alone = ask()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TomoSegError(
            "out-of-memory",
            f"There is not enough memory for two {pieces} of the model {card.name}.",
            f"Close other programs, or use a model {smaller}.",
        ) from None
    tolerance = 1e-3 * max(1.0, float(both.abs().max()))
    if float((both[:1] - alone).abs().max()) > tolerance:
        raise invalid(
            f"its logits depend on the other {pieces} or on chance; was it exported in "
            "training mode?"
        )
