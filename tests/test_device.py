"""Hardware: every choice has its reason, and in a world of one process gathering changes nothing."""

import os
import subprocess
import sys

import pytest
import torch

from soundssl import SoundsslError, device


def test_the_precision_is_chosen_with_a_reason():
    with device.start("cpu", "auto", 1) as accelerator:
        able = torch.cpu.get_capabilities()
        native = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
        native &= torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        assert (accelerator.dtype == torch.bfloat16) == native
        assert "because" in accelerator.reason and "cpu, 1 thread" in accelerator.reason
        assert "\n" not in accelerator.reason


@pytest.mark.parametrize("able", ["amx_bf16", "avx512_bf16"])
def test_a_processor_that_multiplies_bfloat16_does_so_unless_onednn_is_told_not_to(able, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {able: True})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for allowed, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda allowed=allowed: allowed)
        with device.start("cpu") as accelerator:
            assert accelerator.dtype == dtype and "because" in accelerator.reason


def test_an_instruction_set_without_bfloat16_chooses_float32():
    words = "from soundssl import device\nwith device.start('cpu') as a: print(a.dtype, a.reason)"
    run = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("torch.float32 ") and "multiplies no bfloat16" in run.stdout


def test_what_is_asked_for_is_taken():
    with device.start("cpu", "float32", 2) as accelerator:
        assert accelerator.dtype == torch.float32 and torch.get_num_threads() == 2
        assert accelerator.main and accelerator.reason.endswith("float32 as asked")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no device is called 'tpu'"), device.start("tpu"):
        pass
    with pytest.raises(ValueError, match="no precision is called 'half'"), device.start("cpu", "half"):
        pass


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # also where there is one
    with pytest.raises(SoundsslError, match=r"no CUDA device .*; give --device cpu"), device.start("cuda"):
        pass


def test_in_a_world_of_one_gathering_is_the_identity():
    tensor = torch.ones(3, requires_grad=True)
    assert device.gather(tensor) is tensor and device.rank() == 0
    assert not device.mean(tensor).requires_grad and torch.equal(device.mean(tensor), tensor.detach())
    assert device.any_process(True) and not device.any_process(False)


def test_running_a_network_equals_calling_it():
    from soundssl import models

    torch.manual_seed(0)
    network = models.build("plain", 4).eval()
    windows = torch.randn(2, 96, 64)
    with device.start("cpu", "float32", 1) as accelerator:
        ran = accelerator.run(accelerator.place(network), windows.half().numpy())
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(ran), network(windows.half().float()), atol=1e-5)


@pytest.mark.gpu
def test_cuda_and_cpu_agree():
    from soundssl import models

    torch.manual_seed(0)
    network = models.build("plain", 4).eval()
    windows = torch.randn(8, 96, 64).numpy()
    with device.start("cpu", "float32", 1) as accelerator:
        expected = accelerator.run(accelerator.place(network), windows)
    with device.start("cuda", "bfloat16") as accelerator:
        found = accelerator.run(accelerator.place(network), windows)
    assert abs(found - expected).max() < 0.05 * abs(expected).max()
