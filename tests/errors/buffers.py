"""Wrong arguments of buffers, and of the parameters that are made in them."""

import numpy as np

import nbopt as nb
from nbopt.errors import DeviceError, ParameterError

Buffer, Attr, Normed, init = nb.ParameterBuffer, nb.ParamAttr, nb.WeightNormParamAttr, nb.initializer
ONE = np.ones(1, np.float32)


def create(*args, **kwargs):
    return Buffer(seed=0).create_parameter(*args, **kwargs)


def arrays(values, *args, **kwargs):
    return Buffer.from_arrays(values, *args, **kwargs)


TABLE = {
    "buffer-dtype-text": (lambda m: Buffer("w"), TypeError, "dtype must be float32 or float64, got 'w'"),
    "buffer-dtype-half": (
        lambda m: Buffer("float16"),
        TypeError,
        "dtype ... float32 or float64, got float16",
    ),
    "buffer-dtype-int": (lambda m: Buffer(np.int32), TypeError, "dtype ... float32 or float64, got int32"),
    "buffer-dtype-big-endian": (lambda m: Buffer(">f4"), TypeError, "dtype ... float32 or float64, got >f4"),
    "buffer-dtype-none": (lambda m: Buffer(None), TypeError, "dtype ... float32 or float64, got None"),
    "buffer-arrays": (lambda m: Buffer({"w": ONE}), TypeError, "dtype ... got dict ... from_arrays({...})"),
    "buffer-device-gpu": (
        lambda m: Buffer(device="gpu"),
        ParameterError,
        "device must be 'cpu', 'cuda', 'cuda:<number>' or 'auto', got 'gpu'; did you mean 'cuda'?",
    ),
    "buffer-device-gpu-1": (lambda m: Buffer(device="gpu:1"), ParameterError, "did you mean 'cuda:1'?"),
    "buffer-device-capitals": (lambda m: Buffer(device="CPU"), ParameterError, "'CPU'; did you mean 'cpu'?"),
    "buffer-device-letters": (lambda m: Buffer(device="cuda:x"), ParameterError, "device ... got 'cuda:x'"),
    "buffer-device-number": (lambda m: Buffer(device=0), TypeError, "device must be a string, got 0"),
    "buffer-device-beyond": (
        lambda m: Buffer(device="cuda:99"),
        DeviceError,
        "device 'cuda:99' cannot be used: ... device='cpu' works everywhere",
    ),
    "buffer-seed-negative": (lambda m: Buffer(seed=-1), ParameterError, "seed must be >= 0, got -1"),
    "buffer-seed-float": (lambda m: Buffer(seed=0.5), TypeError, "seed must be an integer, got float 0.5"),
    "buffer-seed-true": (lambda m: Buffer(seed=True), TypeError, "seed must be an integer, got bool True"),
    "buffer-misspelt": (
        lambda m: Buffer(seeds=0),
        TypeError,
        "ParameterBuffer got an unknown argument 'seeds'; did you mean 'seed'? ... dtype, device, seed",
    ),
    "create-shape-in-two": (
        lambda m: create(3, 4),
        TypeError,
        "name must be a string, got int 4; the shape comes first, ... create_parameter([3, 4])",
    ),
    "create-name-first": (
        lambda m: create("w", [3]),
        TypeError,
        "got list [3]; ... create_parameter([3], name='w')",
    ),
    "create-nothing": (
        lambda m: create(),
        TypeError,
        "create_parameter ... argument: 'shape'; write ... (shape,",
    ),
    "create-shape-negative": (
        lambda m: create([2, -1], "w"),
        ParameterError,
        "shape of parameter 'w' ... >= 0, got -1",
    ),
    "create-shape-float": (
        lambda m: create([2.5], "w"),
        TypeError,
        "shape of parameter 'w' ... integer, got float 2.5",
    ),
    "create-shape-none": (
        lambda m: create(None, "w"),
        TypeError,
        "shape of parameter 'w' ... sequence of integers, got NoneType",
    ),
    "create-shape-text": (
        lambda m: create("23", "w"),
        TypeError,
        "shape of parameter 'w' ... sequence of integers, got str '23'",
    ),
    "create-shape-true": (
        lambda m: create([True], "w"),
        TypeError,
        "shape of parameter 'w' ... integer, got bool True",
    ),
    "create-shape-set": (
        lambda m: create({2}, "w"),
        TypeError,
        "shape of parameter 'w' ... sequence of integers, got set",
    ),
    "create-shape-huge": (
        lambda m: create([2**30] * 2, "w"),
        ParameterError,
        "shape of parameter 'w' ... fit a memory",
    ),
    "create-name-empty": (lambda m: create([1], ""), ParameterError, "name must not be empty; leave it None"),
    "create-name-number": (lambda m: create([1], name=7), TypeError, "name must be a string, got int 7"),
    "create-name-surrogate": (lambda m: create([1], "\ud800"), ParameterError, "name '\\ud800' is no text"),
    "create-attr-number": (
        lambda m: create([1], "w", 0.1),
        TypeError,
        "attr of parameter 'w' must be None ... ParamAttr ... got float 0.1",
    ),
    "create-attr-class": (lambda m: create([1], "w", Attr), TypeError, "attr of parameter 'w' ... got type"),
    "create-attr-dict": (
        lambda m: create([1], "w", {"lr": 1}),
        TypeError,
        "attr of parameter 'w' ... got dict {'lr': 1}",
    ),
    "create-bias-number": (
        lambda m: create([1], "w", is_bias=1),
        TypeError,
        "is_bias of parameter 'w' must be True or False, got int 1",
    ),
    "create-initializer-array": (
        lambda m: create([1], "w", default_initializer=ONE),
        TypeError,
        "default_initializer of parameter 'w' must be an Initializer",
    ),
    "create-misspelt": (
        lambda m: create([1], bias=True),
        TypeError,
        "create_parameter got an unknown argument 'bias'; did you mean 'is_bias'?",
    ),
    "create-after-sealing": (
        lambda m: m.params.create_parameter([1], "k"),
        ParameterError,
        "parameter 'k' comes too late ... before the first .value",
    ),
    "create-shared-shape": (
        lambda m: m.params.create_parameter([9], "w"),
        ParameterError,
        "parameter 'w' exists with shape (2, 3) ... shape (9,)",
    ),
    "create-shared-attr": (
        lambda m: m.params.create_parameter([2, 3], "w", Attr(need_clip=False)),
        ParameterError,
        "parameter 'w' exists with ... need_clip=True ... conflicts with ... need_clip=False",
    ),
    "create-name-of-a-part": (lambda m: m.normed.create_parameter([1], "w_v"), ParameterError, "'w_v'"),
    "create-dim-beyond": (
        lambda m: create([2, 3], "w", Normed(dim=2)),
        ParameterError,
        "parameter 'w' of shape (2, 3) has no axis dim=2",
    ),
    "create-zero-slice": (
        lambda m: arrays({"w": [[0.0], [1.0]]}, {"w": Normed(dim=0)}),
        ParameterError,
        "parameter 'w': weight norm needs a direction, but slice 0 along axis 0 is zero ... initializer",
    ),
    "create-zero-tensor": (
        lambda m: create([2], "w", Normed(initializer=init.Constant(0.0))),
        ParameterError,
        "parameter 'w': weight norm needs a direction, but the whole tensor is zero",
    ),
    "create-normed-bias": (
        lambda m: create([2], "b", Normed(), is_bias=True),
        ParameterError,
        "parameter 'b': a bias starts at zero ... initializer",
    ),
    "arrays-list": (
        lambda m: arrays([1.0]),
        TypeError,
        "arrays must be a mapping of names to arrays, got list",
    ),
    "arrays-ragged": (
        lambda m: arrays({"w": [[1], [1, 2]]}),
        ParameterError,
        "array 'w' is no array of numbers",
    ),
    "arrays-complex": (
        lambda m: arrays({"w": [1j]}),
        TypeError,
        "array 'w' must hold real numbers, got dtype complex128",
    ),
    "arrays-boolean": (
        lambda m: arrays({"w": [True]}),
        TypeError,
        "array 'w' must hold real numbers, got dtype bool",
    ),
    "arrays-text": (
        lambda m: arrays({"w": "1"}),
        TypeError,
        "array 'w' must hold real numbers, got dtype <U1",
    ),
    "arrays-none": (
        lambda m: arrays({"w": None}),
        TypeError,
        "array 'w' must hold real numbers, got dtype object",
    ),
    "arrays-name": (lambda m: arrays({3: ONE}), TypeError, "name must be a string, got int 3"),
    "arrays-too-large": (
        lambda m: arrays({"w": [1.0, 1e39]}, dtype="float32"),
        ParameterError,
        "'w' does not fit float32: element (1,) is 1e+39; use a float64 buffer",
    ),
    "arrays-attrs-one": (
        lambda m: arrays({"w": ONE}, Attr()),
        TypeError,
        "attrs must be a mapping ... got ParamAttr; write attrs={'*': attr}",
    ),
    "arrays-attrs-no-match": (
        lambda m: arrays({"w": ONE}, {"v": Attr()}),
        ParameterError,
        "pattern 'v' matches no array: w",
    ),
    "arrays-attrs-wrong": (
        lambda m: arrays({"w": ONE}, {"w": 0.1}),
        TypeError,
        "attribute of pattern 'w' ... got float 0.1",
    ),
    "arrays-misspelt": (
        lambda m: arrays({"w": ONE}, attr={}),
        TypeError,
        "from_arrays got an unknown argument 'attr'; did you mean 'attrs'?",
    ),
}
