"""Compiles the launches of a step for a GPU without one, and reads what came out."""

import functools
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from nbopt.kernels.cuda.device import import_cuda

ARITHMETIC = r"\b(add|sub|mul|div|sqrt|fma|mad|neg|abs|min|max)((?:\.\w+)*)\.(f32|f64)\b"


class Code(NamedTuple):
    """The PTX of one launch."""

    text: str

    def __repr__(self):
        return f"PTX of {len(self.text.splitlines())} lines"

    def found(self, pattern):
        """Every match in the instructions."""
        return re.findall(pattern, self.text)

    def arithmetic(self, kind):
        """How often each operation on float32 or float64 is written, with its rounding."""
        return Counter(
            operation + rounding for operation, rounding, what in self.found(ARITHMETIC) if what == kind
        )

    def blocks(self):
        """What runs without a jump, piece by piece."""
        pieces = re.split(r"^\$\w+:|^\s*(?:@!?%p\d+ )?(?:bra|ret)\b.*$", self.text, flags=re.MULTILINE)
        return [Code(piece) for piece in pieces]

    def quads(self, direction):
        """Loads (``"ld"``) or stores (``"st"``) of 16 bytes; what is 8 bytes wide goes in pairs."""
        return self.found(rf"\b{direction}\.global(?:\.\w+)*?\.(?:v4\.[bfu]32|v2\.[bfu]64)\b")


@functools.cache
def compiled(rule, dtype, normed, launch, fma=False):
    """Return the PTX of a launch by compute capability; with `fma`, as NVVM would have it."""
    from numba.cuda import compiler

    from nbopt.kernels.cuda.launch import SIGNATURE, bind_launches, roundings_as_written

    import_cuda()
    function = bind_launches(rule, np.dtype(dtype), normed)[launch]
    # numba.cuda.compile_ptx in its two parts: the first, which takes nearly all of the time, serves both.
    make = functools.partial(
        compiler._compile_pyfunc_with_fixup, function, SIGNATURE, device=False, cc=(9, 0), abi="numba"
    )
    if fma:
        library, _ = make()
        return {cc: Code(library.get_asm_str(cc=cc)) for cc in ((8, 0), (9, 0))}
    with roundings_as_written():
        library, _ = make()
        return {cc: Code(library.get_asm_str(cc=cc)) for cc in ((8, 0), (9, 0))}


def assembled(code, architecture):
    """What the assembler says of a kernel: its registers and what it spilled. No driver is needed."""
    from cuda.bindings import nvjitlink

    options = [f"-arch={architecture}", "-O3", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        data = code.text.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "step")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return log.decode()
