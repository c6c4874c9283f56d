"""Hardware: every choice has its reason, and in a world of one process gathering changes nothing."""

import pytest
import torch

from soundssl import SoundsslError, device


def test_the_precision_is_chosen_with_a_reason():
    with device.start("cpu", "auto", 1) as accelerator:
        able = torch.cpu.get_capabilities()
        native = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
        assert (accelerator.dtype == torch.bfloat16) == native
        assert "because" in accelerator.reason and "cpu, 1 thread" in accelerator.reason
        assert "\n" not in accelerator.reason


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
