"""The file itself: what other programs read in it, exported weights, and a file of format 1."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import nbopt as nb
from nbopt.errors import CheckpointError, ParameterError
from tests.checkpoint import Counter, bits, gradients, leftovers, model, momentum

# --- other readers ---------------------------------------------------------------------------------


def test_the_safetensors_package_reads_all_of_it(tmp_path):
    params = model()
    nb.save(tmp_path / "a", params, momentum(params), extra=Counter(1))
    found = nb.load(tmp_path / "a")
    arrays = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
    with safetensors.safe_open(tmp_path / "a", framework="numpy") as file:
        assert set(file.keys()) == set(arrays)
        metadata = file.metadata()
        for key, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(key), array, strict=True)
    assert metadata["nbopt"] == "1"
    sections = json.loads(metadata["objects"])
    assert [section["kind"] for section in sections] == ["ParameterBuffer", "Optimizer", "Counter"]
    assert sections[1]["values"]["learning_rate"] == 0.1


def test_arrays_are_aligned(tmp_path):
    counter = Counter()
    counter.history = np.ones(3, np.uint8)
    params = model("float64")
    nb.save(tmp_path / "a", counter, params, small=model("float32"))
    content = (tmp_path / "a").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tree = json.loads(content[8:start])
    tree.pop("__metadata__")
    widths = {"F64": 8, "F32": 4, "U8": 1}
    assert start % 8 == 0
    assert all(entry["data_offsets"][0] % widths[entry["dtype"]] == 0 for entry in tree.values())


# --- export ----------------------------------------------------------------------------------------


def test_export_writes_composed_weights(tmp_path):
    params = model()
    nb.export(tmp_path / "a", params)
    assert bits(nb.load(tmp_path / "a")) == bits(params.numpy())
    assert bits(safetensors.numpy.load_file(tmp_path / "a")) == bits(params.numpy())
    nb.export(tmp_path / "a", params, "*.weight")
    assert list(nb.load(tmp_path / "a")) == ["fc.weight", "out.weight"]
    again = nb.ParameterBuffer.from_arrays(nb.load(tmp_path / "a"))
    assert bits(again.numpy()) == bits(params.numpy("*.weight"))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "make", [lambda p: nb.ModelAverage(0.5, p), lambda p: nb.ExponentialMovingAverage(0.5, p)]
)
def test_export_of_averages(make, tmp_path):
    params = model()
    average, opt = make(params), momentum(params)
    update = getattr(average, "update", None) or average.step
    for i in range(3):
        opt.step(gradients(params, i))
        update()
    before = params.fingerprint()
    nb.export(tmp_path / "a", params, average=average)
    assert params.fingerprint() == before
    with average.apply():
        averaged = params.numpy()
    assert bits(nb.load(tmp_path / "a")) == bits(averaged)
    assert averaged["fc.bias"].tobytes() != params["fc.bias"].value.tobytes()


def test_export_refuses(tmp_path):
    params = model()
    with pytest.raises(ParameterError, match=r"'conv' matches no parameter; there are: fc\.weight"):
        nb.export(tmp_path / "a", params, "conv")
    with pytest.raises(ParameterError, match=r"a part of 'fc\.weight'"):
        nb.export(tmp_path / "a", params, "fc.weight_v")
    with pytest.raises(TypeError, match="takes a ParameterBuffer, got dict"):
        nb.export(tmp_path / "a", {})
    with pytest.raises(TypeError, match=r"average must have apply\(\), got int"):
        nb.export(tmp_path / "a", params, average=3)
    with pytest.raises(ParameterError, match="ModelAverage averages parameters of another buffer"):
        nb.export(tmp_path / "a", params, average=nb.ModelAverage(0.5, model()))
    assert not list(tmp_path.iterdir())
    nb.export(tmp_path / "a", params)
    with pytest.raises(CheckpointError, match=r"nothing for ParameterBuffer\n.*has: weights"):
        nb.restore(tmp_path / "a", params)


# --- the golden file -------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint-1.safetensors"


def golden_objects(seed):
    """What the golden file was made of, with seed 0, three steps and a counter of 3."""
    params = nb.ParameterBuffer(dtype="float32", seed=seed)
    params.create_parameter([2, 3], name="fc.weight", attr=nb.WeightNormParamAttr(dim=1))
    params.create_parameter([3], name="fc.bias", is_bias=True)
    params.create_parameter([], name="größe/0", attr=nb.initializer.Constant(float(seed)))
    return params, nb.optimizer.Momentum(0.125, 0.5, params), Counter(seed)


GOLDEN_VALUES = {
    "fc.bias": [-1.0, 0.5, 0.25],
    "fc.bias.velocity": [8.0, -4.0, -2.0],
    "fc.weight_g": [[5.0, 2.0, 0.5]],
    "fc.weight_v": [[3.0, 0.0, -1.0], [4.0, 2.0, 0.0]],
    "größe/0": 1e-42,
    "note/history": [1.0, 0.1],
}


def test_a_file_of_format_1_stays_readable():
    found = nb.load(GOLDEN)
    for key, value in GOLDEN_VALUES.items():
        dtype = np.float64 if key == "note/history" else np.float32
        np.testing.assert_array_equal(found[key], np.asarray(value, dtype), strict=True)
    scalars = {"step_count": 3, "fc.bias.step": 3, "größe/0.step": 2, "note/count": 3, "rule": "momentum"}
    scalars |= {"learning_rate": 0.0625, "note/best": float("inf"), "steps_skipped": 0}
    assert {key: found[key] for key in scalars} == scalars
    params, opt, note = golden_objects(1)
    nb.restore(GOLDEN, params, opt, note=note)
    np.testing.assert_array_equal(params["fc.weight"].value, np.float32([[3.0, 0.0, -0.5], [4.0, 2.0, 0.0]]))
    assert [p.has_grad for p in params.values()] == [True, True, False]
    assert (opt.get_lr(), opt.step_count, note.count) == (0.0625, 3, 3)


def test_the_same_objects_still_give_the_golden_file(tmp_path):
    """A change of the format must come with a new version, and a second golden file."""
    params, opt, note = golden_objects(1)
    nb.restore(GOLDEN, params, opt, note=note)
    nb.save(tmp_path / "a", params, opt, note=note)
    assert (tmp_path / "a").read_bytes() == GOLDEN.read_bytes()
