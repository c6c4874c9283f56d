"""A device that is not there: torch's fake tensors know their shapes, types and devices, and hold no values.

Tensors of two devices that meet are refused, as a GPU would refuse them. What reads a value would make the processor
wait for a GPU: `Waits` notes it and answers with something, so that the code behind it is seen too.

A fake CUDA tensor needs a torch that is built for CUDA, not a GPU. Without a GPU gradients cannot be asked of one: for
these, and for a torch that is built for CPUs, the fake device is torch's own `meta`, which is as far from the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
CUDA = torch.device("cuda", 0)
DEVICES = [CUDA, META] if torch.backends.cuda.is_built() else [META]  # those on which a forward pass can be faked

aten = torch.ops.aten
# Operators whose result has as many rows as values say, or that look at values to raise an error.
LOOKING = (
    *(aten.masked_select, aten.unique_dim, aten._unique, aten._unique2, aten.unique_consecutive, aten.equal),
    *(aten.repeat_interleave, aten.bincount, aten.histc, aten._linalg_check_errors, aten.argwhere, aten.combinations),
)


class Waits(TorchDispatchMode):
    """Note in `found` the operators for which the processor would wait for another device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None) -> Any:
        """Answer what cannot be known of a fake tensor; pass on the rest."""
        kwargs = kwargs or {}
        packet = operator.overloadpacket
        there = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and away(each.device)]
        if packet is aten._local_scalar_dense:
            if there:
                self._note(operator)
            return {torch.bool: True, torch.float32: 1.0, torch.float64: 1.0}.get(args[0].dtype, 1)
        if not there and not away(kwargs.get("device")):
            return operator(*args, **kwargs)
        if packet is aten.nonzero:
            self._note(operator)
            return _every_place(args[0])
        if packet in (aten.index, aten.index_put, aten.index_put_) and any(map(_is_mask, args[1])):
            if packet is aten.index or args[2].numel() > 1:  # a mask with one value is filled in without a look
                self._note(operator)
            if packet is aten.index:
                return operator(args[0], [place for mask in args[1] for place in _places(mask)])
        if packet in LOOKING:
            self._note(operator)
        if packet in (aten._to_copy, aten.copy_) and not _may_overlap(args, kwargs):
            self._note(operator)
        return operator(*args, **kwargs)

    def _note(self, operator) -> None:
        self.found.append(str(operator))


def away(device: torch.device | None) -> bool:
    """Return whether a device is another than the CPU."""
    return device is not None and torch.device(device).type != "cpu"


def _is_mask(place: torch.Tensor | None) -> bool:
    return place is not None and place.dtype in (torch.bool, torch.uint8)


def _every_place(mask: torch.Tensor) -> torch.Tensor:
    """Return the places of all values, as if none were zero."""
    return torch.empty(mask.numel(), mask.ndim, dtype=torch.int64, device=mask.device)


def _places(mask: torch.Tensor | None) -> list[torch.Tensor | None]:
    return list(_every_place(mask).unbind(1)) if mask is not None and _is_mask(mask) else [mask]


def _may_overlap(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Return whether a copy stays on its device, or is one that the processor need not wait for."""
    other = args[1].device if len(args) > 1 and isinstance(args[1], torch.Tensor) else kwargs.get("device")
    if other is None or away(args[0].device) == away(other):
        return True
    return bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))


@contextlib.contextmanager
def faked(patch) -> Iterator[tuple[FakeTensorMode, Waits]]:
    """Yield the mode of fake tensors and the waits within it; `patch` is pytest's monkeypatch.

    torch lets autocast be chosen for devices that are there, and knows none for `meta`: that gets a CPU's.
    """
    patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    patch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype"):
        patch.setattr(torch, name, _of_cpu(getattr(torch, name)))
    with FakeTensorMode() as mode, Waits() as waits:
        yield mode, waits


def _of_cpu(function):
    return lambda kind, *args, **kwargs: function("cpu" if kind == "meta" else kind, *args, **kwargs)


def state(module: torch.nn.Module, mode: FakeTensorMode, device: torch.device, learnt: bool) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module as fake ones on a device, as `module.to(device)` moves them.

    Tensors that a module keeps in other places stay where they are, as they would.
    """
    found = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        own = tensor if mode.is_our_fake(tensor) else mode.from_tensor(tensor)
        found[name] = own.detach().to(device, non_blocking=True)
        if learnt and isinstance(tensor, torch.nn.Parameter):
            found[name].requires_grad_(tensor.requires_grad)
    return found
