"""One hash on every x86 target (contract N3): this machine's own, AVX2 with fused multiply-add, plain SSE2.

Run as a script, it compiles for the target of its environment and prints what came out.
"""

import concurrent.futures
import hashlib
import json
import platform
import re
import sys

import llvmlite.binding
import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.kernels.cpu import arrays, compile_array, compile_step, run
from nbopt.kernels.tables import LANES
from tests.kernels import python
from tests.kernels.test_bits import ALWAYS, NEVER, NORMED, PLAIN, play

# No feature but those of the name; without the second variable those of the machine are added.
TARGETS = {
    "native": {},
    "haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
    "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}

# Powers of two that reach subnormal elements, sums that overflow, and factors outside the normal range.
EXTREMES = {
    "float32": {
        **{"sparse": 110, "large": 100, "lanes": -135, "over": -140, "normed_alone": 118, "cube": -120},
        **{
            "dim0": 60,
            "dim1_inner": -70,
            "whole": -100,
            "whole_matrix": 90,
            "dim_last": 30,
            "one_slice": -60,
        },
    },
    "float64": {
        **{"sparse": 1000, "large": 600, "lanes": -1040, "over": -1060, "normed_alone": 1010, "cube": -530},
        **{"dim0": 520, "dim1_inner": -560, "whole": -500, "whole_matrix": 600, "dim_last": 400},
        **{"one_slice": -700},
    },
}
MODELS = {"plain": list(PLAIN), "all": [*PLAIN, *NORMED]}
SIZES = [1, 2, 127, 129, 4095, 4097, 10_007, 70_001]

# dtype, threads or none, model: each is a compilation of up to 20 s.
QUICK = ["float32-serial-all", "float64-parallel-plain"]
LONG = ["float32-parallel-all", "float64-serial-all", "float64-parallel-all"]

HOST = dict(llvmlite.binding.get_host_cpu_features())
HAS_AVX2 = HOST.get("avx2", False) and HOST.get("fma", False)
needs_avx2 = pytest.mark.skipif(not HAS_AVX2, reason="this machine has no AVX2 with fused multiply-add")
pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="compares targets of x86-64"
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.slow)],
)
def found(request, tmp_path_factory):
    """What every target prints; each compiles anew, into a directory of its own."""
    targets = [target for target in TARGETS if target != "haswell" or HAS_AVX2]
    folders = [str(tmp_path_factory.mktemp(target)) for target in targets]

    def printed(target, folder):
        settings = {"NUMBA_CACHE_DIR": folder, "NUMBA_NUM_THREADS": "2", **TARGETS[target]}
        return json.loads(python("-m", "tests.kernels.test_targets", *request.param, **settings))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(targets, pool.map(printed, targets, folders), strict=True))


def test_generic_code_is_sse2(found):
    assert found["generic"]["code"] == {"registers": ["xmm"], "fused": False, "vex": False}


@needs_avx2
def test_haswell_code_is_avx2_with_fused_multiply_add(found):
    assert found["haswell"]["code"] == {"registers": ["xmm", "ymm"], "fused": True, "vex": True}


@needs_avx2
def test_native_code_is_at_least_that_of_haswell(found):
    assert found["native"]["code"]["fused"]
    assert set(found["native"]["code"]["registers"]) >= {"xmm", "ymm"}


@pytest.mark.parametrize("target", ["native", pytest.param("haswell", marks=needs_avx2)])
def test_no_target_changes_a_bit(target, found):
    assert found[target]["hashes"] == found["generic"]["hashes"]


def test_two_threads_change_no_bit_on_any_target(found):
    for target in found:
        for case, hashes in found[target]["hashes"].items():
            assert len(set(hashes)) == 1, (target, case)


def code():
    """What tells the target from the compiled sums of float32: registers, fusion, three-operand encoding."""
    (asm,) = compile_array(arrays.array_squares, np.dtype(np.float32)).inspect_asm().values()
    return {
        "registers": sorted(set(re.findall(r"%([xyz]mm)\d", asm))),
        "fused": bool(re.search(r"\tvfn?m(add|sub)", asm)),
        "vex": bool(re.search(r"\tv\w+\t.*%[xyz]mm", asm)),
    }


def norms(dtype):
    """A hash of norms of arrays of many sizes, around 1 and at both ends of the range."""
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    for exponent in (0, max(EXTREMES[dtype].values()), min(EXTREMES[dtype].values())):
        for size in SIZES:
            x = np.ldexp(rng.standard_normal(size), exponent).astype(dtype)
            alone = np.where(np.arange(size) % LANES == 0, x, 0)  # no other lane hides a rounding
            digest.update(f"{nb.norm(x).hex()} {nb.norm(alone).hex()}".encode())
    return digest.hexdigest()[:16]


def main() -> None:
    """Print, as JSON, the hashes that the arguments ask for, one for each number of threads."""
    hashes = {}
    for twin in sys.argv[1:]:
        dtype, kind, model = twin.split("-")
        parallel = kind == "parallel"
        run.PARALLEL_FROM = ALWAYS if parallel else NEVER
        # One thread runs the same twin as two: half the compilation.
        run.compile_step = lambda *key, parallel=parallel: compile_step(*key[:3], parallel)
        for case, exponents in (("usual", None), ("extreme", EXTREMES[dtype])):
            found = hashes[f"{twin} {case}"] = []
            for threads in (1, 2) if parallel else (1,):
                numba.set_num_threads(threads)
                found.append(play(dtype, MODELS[model], exponents))
        hashes[f"{dtype} norms"] = [norms(dtype)]
    sys.stdout.write(json.dumps({"code": code(), "hashes": hashes}))


if __name__ == "__main__":
    main()
