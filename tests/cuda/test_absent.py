"""What is said where there is no GPU, and that nothing of CUDA is touched by those who want none."""

import types

import pytest

import nbopt as nb
from nbopt.errors import DeviceError, ParameterError
from nbopt.kernels.cuda import device as cuda_device
from tests.cuda import SIMULATED
from tests.kernels import python

pytestmark = pytest.mark.skipif(SIMULATED, reason="the simulator is a device")
usable = not SIMULATED and not cuda_device.what_is_missing()
without = pytest.mark.skipif(usable, reason="this machine has a GPU")

WORK = """
import sys
import nbopt as nb
params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
opt = nb.optimizer.Momentum(0.1, parameters=params)
opt.step({"w": [1.0, 1.0]})
opt.state_dict(), params.fingerprint(), params["w"].__dlpack_device__()
heads = ("numba.cuda", "numba_cuda", "cuda", "nbopt.kernels.cuda")
sys.stdout.write(" ".join(name for name in sys.modules if name.startswith(heads)))
"""


def test_work_on_the_cpu_imports_nothing_of_cuda():
    assert python("-c", WORK) == ""


@without
@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "cuda:3"])
def test_the_error_says_what_is_missing_and_what_works(wanted):
    with pytest.raises(DeviceError) as found:
        nb.ParameterBuffer(device=wanted)
    text = str(found.value)
    assert text.startswith(f"device {wanted!r} cannot be used: ")
    assert text.endswith("device='cpu' works everywhere")
    assert cuda_device.what_is_missing() in text
    with pytest.raises(DeviceError):
        nb.ParameterBuffer.from_arrays({"w": [1.0]}, device=wanted)


@without
def test_auto_takes_the_cpu():
    params = nb.ParameterBuffer.from_arrays({"w": [1.0]}, device="auto")
    assert params.device == params["w"].device == "cpu"


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "cpu:0"])
def test_other_requests_are_refused(wanted):
    with pytest.raises(ParameterError, match="'cuda:<number>'"):
        nb.ParameterBuffer(device=wanted)


def test_a_device_is_text():
    with pytest.raises(TypeError, match="device must be a string, got 0"):
        nb.ParameterBuffer(device=0)


# --- each thing that can be missing ---------------------------------------------------------------

INSTALL = 'pip install "nbopt[cuda]"'


class Driver:
    def __init__(self, answer):
        self.answer = answer

    @property
    def is_available(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def said(
    monkeypatch, number=0, *, driver=True, answer=True, compiler=True, devices=1, implementation="NVIDIA"
):
    """What is said of a machine that is made up."""
    cuda = types.SimpleNamespace(
        implementation=implementation,
        cuda_error=lambda: "CUDA_ERROR_NO_DEVICE (100)",
        is_available=lambda: compiler,
        gpus=[None] * devices,
    )
    monkeypatch.setattr(cuda_device, "import_cuda", lambda: cuda)
    monkeypatch.setattr(cuda_device, "has_driver", lambda: driver)
    monkeypatch.setattr(cuda_device, "_driver_of", lambda: Driver(answer))
    return cuda_device.what_is_missing.__wrapped__(number)


def test_nothing_is_missing(monkeypatch):
    assert said(monkeypatch) == ""
    assert said(monkeypatch, 1, devices=2) == ""


def test_no_driver(monkeypatch):
    text = said(monkeypatch, driver=False)
    assert text.startswith("no NVIDIA driver was found")
    assert "nvidia-smi" in text
    assert INSTALL not in text


def test_no_package(monkeypatch):
    assert (
        said(monkeypatch, implementation="Built-in") == f"the package numba-cuda is not installed: {INSTALL}"
    )
    both = said(monkeypatch, implementation="Built-in", driver=False)
    assert both.startswith("no NVIDIA driver was found")
    assert both.endswith(INSTALL)


def test_no_device(monkeypatch):
    assert "found no GPU that it can use (CUDA_ERROR_NO_DEVICE (100))" in said(monkeypatch, answer=False)
    broken = said(monkeypatch, answer=ImportError("Error at driver init:\n  too old:"))
    assert broken == "the NVIDIA driver cannot be used (Error at driver init: too old)"


def test_no_compiler(monkeypatch):
    assert said(monkeypatch, compiler=False) == f"the CUDA compiler, NVVM, was not found: {INSTALL}"


def test_a_number_out_of_range(monkeypatch):
    assert said(monkeypatch, 1) == "this machine has one GPU, cuda:0"
    assert said(monkeypatch, 4, devices=3) == "this machine has 3 GPUs, cuda:0 to cuda:2"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ImportError("No module named 'cuda'"), "ImportError: No module named 'cuda'"),
        (AttributeError("no 'row_stack'"), "AttributeError: no 'row_stack'"),
        (RuntimeError("The toolkit\n  is too old."), "RuntimeError: The toolkit is too old"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_broken_package(error, told, monkeypatch):
    """It may fail in any way; who wants no GPU, or asks what there is, is served all the same."""

    def broken():
        raise error

    monkeypatch.setattr(cuda_device, "import_cuda", broken)
    monkeypatch.setattr(cuda_device, "what_is_missing", cuda_device.what_is_missing.__wrapped__)
    said = f"the package numba-cuda cannot be imported ({told}); install it anew: {INSTALL}"
    with pytest.raises(DeviceError) as found:
        nb.ParameterBuffer(device="cuda")
    assert said in str(found.value)
    assert nb.ParameterBuffer(device="auto").device == "cpu"
    assert nb.show_config("dict")["cuda"]["missing"] == said


def test_cuda_that_is_switched_off(monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_CUDA", 1)
    assert "NUMBA_DISABLE_CUDA" in cuda_device.what_is_missing.__wrapped__()


def test_the_install_line_names_an_extra_that_exists():
    import tomllib

    from tests.kernels import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any("numba-cuda" in line for line in project["optional-dependencies"]["cuda"])
