"""The few operations that Numba has no word for. All use of llvmlite is here."""

# mypy: ignore-errors

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from nbopt.kernels.tables import ADDRESS_COLUMNS, CALL_CODE, CALL_SELF, CALL_TABLES, CALL_THREADS


def _on_stack(size, dtype):
    """A generator of `size` elements on the stack of the function, not initialised."""
    count = size.literal_value

    def generate(context, builder, signature, arguments):
        kind = context.get_data_type(dtype)
        with builder.goto_entry_block():
            pointer = builder.alloca(ir.ArrayType(kind, count))
            pointer.align = 64
        return builder.bitcast(pointer, kind.as_pointer())

    return generate


@intrinsic(prefer_literal=True)
def stack(typing_context, size):
    """Return a pointer to `size` (a constant) float64 on the stack of the function, not initialised."""
    if isinstance(size, types.IntegerLiteral):
        return types.CPointer(types.float64)(size), _on_stack(size, types.float64)
    return None


@intrinsic(prefer_literal=True)
def scratch(typing_context, size, storage):
    """Return a pointer to `size` (a constant) elements of the storage dtype, as `stack` does."""
    if isinstance(size, types.IntegerLiteral):
        return types.CPointer(storage.dtype)(size, storage), _on_stack(size, storage.dtype)
    return None


@intrinsic
def alone(typing_context, value):
    """Return the one number that a function returned, by itself or in a tuple."""
    is_tuple = isinstance(value, types.BaseTuple)
    result = value.types[0] if is_tuple else value

    def generate(context, builder, signature, arguments):
        return builder.extract_value(arguments[0], 0) if is_tuple else arguments[0]

    return result(value), generate


@intrinsic
def borrow(typing_context, array):
    """Return `array` without its owner, which the caller keeps: its slices cost no reference count."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, value=arguments[0])
        view.meminfo = context.get_constant_null(types.MemInfoPointer(types.voidptr))
        view.parent = context.get_constant_null(types.pyobject)
        return view._getvalue()

    return array(array), generate


def _view(context, builder, kind, tables, index):
    """Build an array of type `kind` that owns nothing, from row `index` of a table of addresses."""

    def entry(column):
        at = builder.add(builder.mul(index, index.type(ADDRESS_COLUMNS)), index.type(column))
        return builder.load(builder.gep(tables, [at]))

    view = context.make_array(kind)(context, builder)
    width = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    itemsize = context.get_constant(types.intp, width)
    rows, columns = entry(1), entry(2)
    shape = [rows, columns] if kind.ndim == 2 else [columns]
    strides = [builder.mul(columns, itemsize), itemsize] if kind.ndim == 2 else [itemsize]
    populate_array(
        view,
        data=builder.inttoptr(entry(0), view.data.type),
        shape=shape,
        strides=strides,
        itemsize=itemsize,
        meminfo=None,
        parent=None,
    )
    return view._getvalue()


@intrinsic
def reals(typing_context, tables, index):
    """Return table `index` as a 2-D array of float64."""
    kind = types.Array(types.float64, 2, "C")

    def generate(context, builder, signature, arguments):
        return _view(context, builder, kind, *arguments)

    return kind(tables, types.int64), generate


@intrinsic
def integers(typing_context, tables, index):
    """Return table `index` as a 2-D array of int64."""
    kind = types.Array(types.int64, 2, "C")

    def generate(context, builder, signature, arguments):
        return _view(context, builder, kind, *arguments)

    return kind(tables, types.int64), generate


@intrinsic
def elements(typing_context, tables, index, storage):
    """Return table `index` as a 1-D array of the storage dtype."""
    kind = types.Array(storage.dtype, 1, "C")

    def generate(context, builder, signature, arguments):
        return _view(context, builder, kind, *arguments[:2])

    return kind(tables, types.int64, storage), generate


@intrinsic
def element_rows(typing_context, tables, index, storage):
    """Return table `index` as a 2-D array of the storage dtype."""
    kind = types.Array(storage.dtype, 2, "C")

    def generate(context, builder, signature, arguments):
        return _view(context, builder, kind, *arguments[:2])

    return kind(tables, types.int64, storage), generate


def _element(context, builder, signature, arguments):
    """Pointer to `array[row, column]`, the first three arguments; what is known now takes no instruction."""
    view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
    row, column = (
        context.get_constant(types.int64, kind.literal_value)
        if isinstance(kind, types.IntegerLiteral)
        else context.cast(builder, value, kind, types.int64)
        for kind, value in zip(signature.args[1:3], arguments[1:3], strict=True)
    )
    columns = builder.extract_value(view.shape, 1)
    return builder.gep(view.data, [builder.add(builder.mul(row, columns), column)])


@intrinsic(prefer_literal=True)
def read(typing_context, array, row, column):
    """Return `array[row, column]` of a C-contiguous array; indices count from the start."""

    def generate(context, builder, signature, arguments):
        return builder.load(_element(context, builder, signature, arguments))

    return array.dtype(array, row, column), generate


@intrinsic(prefer_literal=True)
def write(typing_context, array, row, column, value):
    """Set `array[row, column]` of a C-contiguous array; indices count from the start."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[3], _element(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(array, row, column, array.dtype), generate


def _quad(context, builder, dtype, tables, index, row, at):
    """Pointer to four elements of a table, which stand on a boundary of 16 bytes, in global memory."""
    base = builder.mul(index, index.type(ADDRESS_COLUMNS))
    address, columns = (
        builder.load(builder.gep(tables, [builder.add(base, index.type(column))])) for column in (0, 2)
    )
    width = index.type(context.get_abi_sizeof(context.get_data_type(dtype)))
    place = builder.mul(builder.add(builder.mul(row, columns), at), width)
    vector = ir.VectorType(context.get_data_type(dtype), 4)
    space = 1 if "CUDA" in type(context).__name__ else 0
    return builder.inttoptr(builder.add(address, place), ir.PointerType(vector, addrspace=space)), vector


@intrinsic
def copy_rows(typing_context, array, into, source, count):
    """Copy `count` rows of a C-contiguous 2-D array over others, which they do not overlap."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        columns = builder.extract_value(view.shape, 1)
        into, source, count = (builder.mul(value, columns) for value in arguments[1:])
        cgutils.memcpy(builder, builder.gep(view.data, [into]), builder.gep(view.data, [source]), count)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), generate


@intrinsic
def load4(typing_context, tables, index, row, at, storage):
    """Return elements `at` to `at + 3` of a row of a table; `at` is a multiple of 4."""
    dtype = storage.dtype

    def generate(context, builder, signature, arguments):
        pointer, _ = _quad(context, builder, dtype, *arguments[:4])
        quad = builder.load(pointer, align=16)
        parts = [builder.extract_element(quad, ir.IntType(32)(i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(dtype, 4)(tables, types.int64, types.int64, types.int64, storage), generate


@intrinsic
def store4(typing_context, tables, index, row, at, storage, a, b, c, d):
    """Write what `load4` reads."""
    dtype = storage.dtype

    def generate(context, builder, signature, arguments):
        pointer, vector = _quad(context, builder, dtype, *arguments[:4])
        quad = ir.Constant(vector, ir.Undefined)
        for i, value in enumerate(arguments[5:]):
            quad = builder.insert_element(quad, value, ir.IntType(32)(i))
        builder.store(quad, pointer, align=16)
        return context.get_dummy_value()

    where = (tables, types.int64, types.int64, types.int64, storage)
    return types.void(*where, dtype, dtype, dtype, dtype), generate


@intrinsic
def pointer(typing_context, address):
    """Return an address as a pointer to int64."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def enter(typing_context, call):
    """Run the machine code that `call` names and return its result; -1, and nothing, in a copy of `call`."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        word = ir.IntType(64)

        def column(index):
            return builder.load(builder.gep(view.data, [word(index)]))

        result = cgutils.alloca_once_value(builder, word(-1))
        owned = builder.icmp_signed("==", builder.ptrtoint(view.data, word), column(CALL_SELF))
        with builder.if_then(owned, likely=True):
            kind = ir.FunctionType(word, [word, word]).as_pointer()
            code = builder.inttoptr(column(CALL_CODE), kind)
            builder.store(builder.call(code, [column(CALL_TABLES), column(CALL_THREADS)]), result)
        return builder.load(result)

    return types.int64(call), generate


def _word(context, builder, signature, arguments):
    view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
    return builder.gep(view.data, [arguments[1]])  # of the first row


@intrinsic
def acquire(typing_context, array, index):
    """Turn `array[0, index]` (int64) from 0 to 1 in one atomic operation; return whether it was 0."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        pointer = _word(context, builder, signature, arguments)
        pair = builder.cmpxchg(pointer, ir.Constant(word, 0), ir.Constant(word, 1), "acq_rel", "monotonic")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.int64), generate


@intrinsic
def latest(typing_context, array, index):
    """Return `array[0, index]` (int64) as it is now, after everything that was read before."""

    def generate(context, builder, signature, arguments):
        builder.fence("acq_rel")
        return builder.load_atomic(_word(context, builder, signature, arguments), "acquire", align=8)

    return types.int64(array, types.int64), generate


@intrinsic
def release(typing_context, array, index):
    """Set `array[0, index]` (int64) to 0, after everything that was written before."""

    def generate(context, builder, signature, arguments):
        pointer = _word(context, builder, signature, arguments)
        builder.store_atomic(ir.Constant(ir.IntType(64), 0), pointer, "release", align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
