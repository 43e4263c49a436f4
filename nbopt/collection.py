"""What is done to all parameters at once."""

from __future__ import annotations

import fnmatch
import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt import vectors
from nbopt._validation import as_flag, as_name, listed, nearest
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.memory import Array, Memory, as_values
from nbopt.parameter import Parameter
from nbopt.storage import Storage
from nbopt.strict import FixedItems, Strict
from nbopt.summary import Summary, summarize

__all__ = ["ParameterCollection"]


class ParameterCollection(FixedItems, Strict, Mapping[str, Parameter]):
    """A mapping of names to parameters of one storage; `ParameterBuffer` adds how they come to be."""

    dtype: np.dtype[Any]
    _memory: Memory

    _once = frozenset({"dtype", "device", "seed"})
    _instead = MappingProxyType(
        {view: f"params.{view}[:] = values" for view in ("flat", "flat_grad", "trainable_flat")}
        | {key: f"ParameterBuffer.from_arrays(params.numpy(), {key}=...)" for key in ("dtype", "device")}
    )

    def _mend(self, name: str) -> str:
        if name in self:
            return f"write params[{name!r}].value = array"
        return super()._mend(name)

    # Collections are equal when they are the same, not when their names are.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @abstractmethod
    def _seal(self) -> Storage:
        """Lay out the storage, once."""

    @abstractmethod
    def owns(self, array: Array) -> bool:
        """Whether an array may be a view of the storage."""

    # --- all of the storage

    @property
    def flat(self) -> NDArray[Any]:
        """View of what the model reads, 1-D; it contains padding, which is never read into a result.

        With weight norm that is w, which is not to be written here: write `trainable_flat`.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> params.flat[:2] += 1
        >>> params["w"].value
        array([2., 3.])
        """
        storage = self._seal()
        view: NDArray[Any] = storage.data[: storage.layout.effective_size]
        return view

    @property
    def flat_grad(self) -> NDArray[Any]:
        """View of the gradients of `flat`, at the same offsets.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> params.flat_grad[params.slices["w"]] = [3.0, 4.0]
        >>> params["w"].grad
        array([3., 4.])
        """
        view: NDArray[Any] = self._seal().grad[:]
        return view

    @property
    def trainable_flat(self) -> NDArray[Any]:
        """View of what an optimizer moves, 1-D: with weight norm g and v in place of w.

        After writing to it by hand, call `recompose`.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> params.trainable_flat[:] = 0.0
        >>> params["w"].value
        array([0., 0.])
        """
        storage = self._seal()
        view: NDArray[Any] = storage.data[storage.layout.trainable_start :]
        return view

    @property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in `flat` and `flat_grad`, by name.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0], "b": [3.0]})
        >>> params.flat[params.slices["b"]]
        array([3.])
        """
        effective = self._seal().layout.effective
        return {name: effective[name] for name in self}

    def use_stream(self, stream: Any) -> AbstractContextManager[None]:
        """Put into another CUDA stream whatever this buffer and its optimizers do inside a ``with``.

        Steps, edits and copies go there, after what they put into the stream before; at the end of the
        ``with`` that stream goes on after this one. Inside a capture a step becomes part of the graph, and a
        replay obeys the rates and hyper-parameters of its time. At first all goes into the default stream.

        Parameters
        ----------
        stream : a CUDA stream, or its handle
            Of PyTorch, CuPy, cuda.core, Numba, or whatever else has ``__cuda_stream__``; it must outlive the
            ``with``.

        Raises
        ------
        DeviceError
            If the buffer is on the CPU.
        TypeError
            If `stream` is no stream.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]}, device="auto")
        >>> if params.device != "cpu":
        ...     import torch
        ...
        ...     with params.use_stream(torch.cuda.current_stream()):
        ...         params["w"].value = [2.0]
        """
        return self._memory.use_stream(stream)

    # --- by name

    def select(self, pattern: str) -> list[Parameter]:
        """Return the parameters whose names match an `fnmatch` pattern, in creation order.

        Raises
        ------
        ParameterError
            If it matches nothing but the g or v of weight-normed parameters, which patterns do not find.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"a.w": [1.0], "a.b": [1.0], "c.b": [1.0]})
        >>> [p.name for p in params.select("*.b")]
        ['a.b', 'c.b']
        """
        as_name(pattern, "pattern")
        found = [p for name, p in self.items() if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            self._refuse_parts(pattern)
        return found

    def _refuse_parts(self, pattern: str) -> None:
        for p in self.values():
            for letter, part in (("g", p.weight_g), ("v", p.weight_v)):
                if part is not None and fnmatch.fnmatchcase(part.name, pattern):
                    raise ParameterError(
                        f"pattern {pattern!r} matches {part.name!r}, a part of {p.name!r}; patterns find "
                        f"whole parameters alone. Write params[{p.name!r}].weight_{letter}, as in "
                        f"params[{p.name!r}].weight_{letter}.trainable = False"
                    )

    def _matching(self, pattern: str) -> list[Parameter]:
        found = self.select(pattern)
        if not found:
            raise ParameterError(f"pattern {pattern!r} matches no parameter; there are: {listed(self)}")
        return found

    def freeze(self, pattern: str) -> None:
        """Set ``trainable=False`` on every parameter whose name matches an `fnmatch` pattern.

        Raises
        ------
        ParameterError
            If none matches.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"a.w": [1.0], "a.b": [1.0]})
        >>> params.freeze("*.w")
        >>> [p.trainable for p in params.values()]
        [False, True]
        """
        for parameter in self._matching(pattern):
            parameter.trainable = False

    def unfreeze(self, pattern: str) -> None:
        """Set ``trainable=True`` on every parameter whose name matches an `fnmatch` pattern.

        Raises
        ------
        ParameterError
            If none matches.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"a.w": [1.0], "a.b": [1.0]})
        >>> params.freeze("*")
        >>> params.unfreeze("*.b")
        >>> [p.trainable for p in params.values()]
        [False, True]
        """
        for parameter in self._matching(pattern):
            parameter.trainable = True

    def numpy(self, pattern: str = "*") -> dict[str, NDArray[Any]]:
        """Return copies of the values whose names match an `fnmatch` pattern, by name.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"a.w": [1.0], "a.b": [2.0]})
        >>> params.numpy("*.b")
        {'a.b': array([2.])}
        """
        return {p.name: p.numpy() for p in self.select(pattern)}

    def gather_grads(self) -> None:
        """Bring in gradients that are written elsewhere; steps from Python and clips call it first.

        Here it does nothing: the arrays of a buffer are where its gradients are written. A subclass whose
        gradients may lie in other arrays copies them in.

        Examples
        --------
        >>> import nbopt as nb
        >>> class OfParts(nb.ParameterBuffer):
        ...     def gather_grads(self):
        ...         self.set_grads({"w": [sum(parts)]})
        >>> params, parts = OfParts.from_arrays({"w": [1.0]}), [0.5, 1.5]
        >>> nb.optimizer.SGD(0.25, params).step()
        >>> params["w"].value
        array([0.5])
        """

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill every gradient with zeros.

        Parameters
        ----------
        set_to_zero : bool
            False also marks them absent: steps skip a parameter until its gradient is written again.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> params["w"].grad = [3.0]
        >>> params.clear_grad()
        >>> params["w"].grad
        array([0.])
        """
        keep = as_flag(set_to_zero, "set_to_zero")
        self._memory.clear(self._seal().grad)
        if not keep:
            self._seal().attributes[:, t.ATTRIBUTE_PRESENT] = 0.0

    def set_grads(self, grads: Mapping[str, ArrayLike | None] | ArrayLike) -> None:
        """Copy gradients in; all of them or, on an error, none.

        Parameters
        ----------
        grads : mapping of str to array_like, or vector
            Gradients by name (None: absent; names not given keep theirs), or a dense vector as `to_vector`
            gives.

        Raises
        ------
        ParameterError
            If a name is unknown, or a shape differs.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> params.set_grads({"w": [0.5, 0.5]})
        >>> params.to_vector("grad")
        array([0.5, 0.5])
        """
        if grads is None:
            raise TypeError("grads must be a mapping of names to gradients, or a vector, got None")
        if not isinstance(grads, Mapping):
            try:
                self.from_vector(grads, what="grad")
            except (TypeError, ParameterError) as error:
                raise type(error)(f"{error}; gradients by name are a mapping of names to arrays") from error
            return
        checked: dict[str, Array | None] = {}
        known = set(self)
        for name, grad in grads.items():
            if name not in known:
                raise ParameterError(
                    f"gradient for an unknown parameter {name!r}: {nearest(str(name), self)}"
                )
            checked[name] = (
                None
                if grad is None
                else as_values(self._memory, grad, f"gradient of {name!r}", self.dtype, self[name].shape)
            )
        for name, values in checked.items():
            if values is not None and self.owns(values):
                checked[name] = self._memory.read(values).copy()
        for name, values in checked.items():
            self[name].grad = values

    # --- vectors and tables

    def to_vector(self, what: str = "value", space: str = "effective", frozen: bool = True) -> NDArray[Any]:
        """Return values or gradients as one dense vector, in creation order, without padding.

        Parameters
        ----------
        what : {"value", "grad"}
            Values or gradients.
        space : {"effective", "trainable"}
            "trainable" has g and v in place of a weight-normed w, and their gradients.
        frozen : bool
            False leaves out what does not train.

        Returns
        -------
        numpy.ndarray
            1-D, a copy.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"a": [[1.0, 2.0]], "b": [3.0]}).to_vector()
        array([1., 2., 3.])
        """
        if what == "grad":
            self.gather_grads()
        return vectors.gather(self, what, space, frozen)

    def from_vector(
        self,
        x: ArrayLike,
        what: str = "value",
        space: str = "effective",
        frozen: bool = True,
    ) -> None:
        """Copy in what `to_vector` of the same arguments gives; all of it or, on an error, nothing.

        Parameters
        ----------
        x : array_like
            1-D, as long as what `to_vector` gives.
        what, space, frozen
            As in `to_vector`. Gradients of g and v cannot be written.

        Raises
        ------
        ParameterError
            If the vector has another length, or a slice of a weight-normed value would be zero.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"a": [[1.0, 2.0]], "b": [3.0]})
        >>> params.from_vector([4.0, 5.0, 6.0])
        >>> params["b"].numpy()
        array([6.])
        """
        vectors.scatter(self, x, what, space, frozen)

    def fingerprint(self) -> str:
        """Return a hash of names, shapes, dtype and every real element: the same for the same bits.

        Examples
        --------
        >>> import nbopt as nb
        >>> one = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> one.fingerprint() == nb.ParameterBuffer.from_arrays({"w": [1.0]}).fingerprint()
        True
        """
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self):
            for part in dict.fromkeys((self[name], *self[name]._moved)):
                digest.update(repr((part.name, part.shape, self.dtype.name)).encode())
                digest.update(np.ascontiguousarray(part._current()).tobytes())
        return digest.hexdigest()

    def summary(self) -> Summary:
        """Return a table of the parameters, one row each.

        Returns
        -------
        Summary
            Printed, a table. `rows` holds `name`, `shape`, `kind`, `trainable`, `lr`, `regularizer`, `clip`
            and `bytes` of each parameter, and of a weight-normed one `parts`, the rows of its v and g, which
            the table tells apart where they differ; `elements` and `bytes` are those of all.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}).summary()
        name  shape  kind   trainable  lr   regularizer  clip  bytes
        ------------------------------------------------------------
        w     2      plain  yes        x 1  inherited    yes      16
        1 parameters, 2 elements, 16 bytes
        """
        return summarize(self.values(), self.dtype)

    def recompose(self) -> None:
        """Write every weight-normed w from its g and v; needed only after writing to `trainable_flat`.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer(seed=0)
        >>> w = params.create_parameter([2, 3], name="w", attr=nb.WeightNormParamAttr())
        >>> before = w.numpy()
        >>> params.trainable_flat[:] *= 2
        >>> params.recompose()
        >>> bool(abs(w.value - 2 * before).max() < 1e-6)
        True
        """
        for parameter in self.values():
            if parameter._role == "normed":
                parameter._recompose()
