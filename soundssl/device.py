"""Hardware: device, precision, threads, processes. The only room that names CUDA or torch.distributed.

Every function is the identity in a world of one process, so objectives and loops are written once.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor, nn

from soundssl import SoundsslError

AT_ONCE = 64  # windows that run through a net at a time on a CPU: 256 take 400 MB more, and no less time
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)


@dataclass(frozen=True)
class Accelerator:
    """Hold where and how to compute. `reason` says in one line why; the command prints it."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    rank: int = 0
    world_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """Return the context in which convolutions and products run in the chosen precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, its maps in channels-last order where that is the faster one."""
        network.to(self.device)
        if self.dtype != torch.float32 or self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def send(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch to the device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    @torch.inference_mode()
    def run(self, network: nn.Module, windows: np.ndarray) -> np.ndarray:
        """Return what a network makes of windows, in float32. Shape: `[n, frames, bands]` → `[n, size]`.

        On a CPU so few at a time that their maps stay small.
        """
        given = torch.from_numpy(windows)
        with self.autocast():
            found = [
                network(each.to(self.device).float()).float().cpu() for each in given.split(self._at_once(len(given)))
            ]
        return torch.cat(found).numpy()

    def _at_once(self, count: int) -> int:
        return max(1, min(count, AT_ONCE)) if self.device.type == "cpu" else max(1, count)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over all processes; the module itself in a world of one."""
        if self.world_size == 1:
            return module
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            torch.distributed.barrier()


def choose(name: str = "auto", precision: str = "auto") -> Accelerator:
    """Return the accelerator of a process that is alone; threads and memory stay as its program has them.

    `name` is auto, cpu, cuda or cuda:N; `precision` auto, float32 or bfloat16. Raises ValueError for other names, and
    SoundsslError for a device that is not there.
    """
    device = _device(name)
    return Accelerator(device, *_precision(device, precision))


@contextlib.contextmanager
def start(name: str = "auto", precision: str = "auto", threads: int = 0) -> Iterator[Accelerator]:
    """Yield the accelerator of this process, in its process group when torchrun launched it; leave that at the end.

    Takes `name` and `precision` as `choose` does, and raises what it raises. `threads` of 0 takes every core.
    """
    alone = choose(name, precision)
    device = alone.device
    if device.type == "cpu":
        # Before there are threads, which take it over: of a million clusters most powers are below the normal numbers.
        torch.set_flush_denormal(True)
        torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or cores())
        _keep_memory()
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world_size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(minutes=30))
    where = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else f"cpu, {_threads()}"
    processes = f", {world_size} processes" if world_size > 1 else ""
    reason = f"computing on {where}{processes}, {alone.reason}"
    try:
        yield replace(alone, reason=reason, rank=rank, world_size=world_size)
    finally:
        if world_size > 1:
            torch.distributed.destroy_process_group()


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' * (count > 1)}"


def cores() -> int:
    """Return the number of cores that this process may use, as the scheduler says where it can be asked."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_memory() -> None:
    """Let the C library keep large blocks instead of returning them to the kernel at every step.

    Mapping and clearing the maps of a batch anew takes a third of a training step on a CPU. Other C libraries than
    glibc have no such call and need none.
    """
    if os.name != "posix":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**29)):
            library.mallopt(parameter, value)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"no device is called {name!r}; choose auto, cpu, cuda or cuda:N")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise SoundsslError("no CUDA device is to be seen here; give --device cpu")
        local = int(name.split(":")[1]) if ":" in name else int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise SoundsslError(
                f"there is no cuda:{local} here, only {torch.cuda.device_count()} devices; count from 0"
            )
        torch.cuda.set_device(local)
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda", local)
    return torch.device("cpu")


def _precision(device: torch.device, precision: str) -> tuple[torch.dtype, str]:
    """Choose bfloat16 where the hardware multiplies it natively, and say so."""
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision in choices:
        return choices[precision], f"{precision} as asked"
    if precision != "auto":
        raise ValueError(f"no precision is called {precision!r}; choose auto, float32 or bfloat16")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16 and channels-last because the card multiplies bfloat16"
        return torch.float32, "float32 because the card has no bfloat16"
    used = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    able = torch.cpu.get_capabilities() if used else {}  # oneDNN does it, unless ONEDNN_MAX_CPU_ISA says otherwise
    for flag, unit in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if able.get(flag):
            return torch.bfloat16, f"bfloat16 and channels-last because the processor has {unit}"
    return torch.float32, "float32 because the processor, or oneDNN on it, multiplies no bfloat16"


def gather(tensor: Tensor) -> Tensor:
    """Concatenate a tensor of every process along its first axis, in rank order; gradients find their way back.

    Each process's gradient is the sum of what all processes send back, so the mean that `wrap` takes is that of the
    mean loss over processes.
    """
    if not torch.distributed.is_initialized():
        return tensor
    if not tensor.is_floating_point():
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)
    return torch.cat(torch.distributed.nn.functional.all_gather(tensor.contiguous()))


@dataclass(frozen=True)
class Ranks:
    """Hold this process's number and how many there are; its methods reduce tensors in place over all of them."""

    rank: int
    count: int

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        torch.distributed.all_reduce(tensor)

    def maximum(self, tensor: Tensor) -> None:
        """Replace a tensor by its elementwise maximum over all processes."""
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)


def ranks() -> Ranks | None:
    """Return the processes among which work is shared, None in a world of one."""
    if not torch.distributed.is_initialized():
        return None
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())


def seed(number: int) -> None:
    """Seed torch's generators, from which the weights of a new network are drawn."""
    torch.manual_seed(number)


def random_state() -> list[Tensor]:
    """Return the states of torch's generators, of the CPU and of the current GPU where one is in use."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if used else [])]


def set_random_state(states: list[Tensor]) -> None:
    """Go on from states of torch's generators, as `random_state` gave them."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


def rank() -> int:
    """Return the number of this process."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


@torch.no_grad()
def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient."""
    if not torch.distributed.is_initialized():
        return tensor.detach()
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    if not torch.distributed.is_initialized():
        return flag
    where = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return bool(mean(torch.tensor(float(flag), device=where)) > 0)
