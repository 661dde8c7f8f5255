"""Exceptions of libraries: failed allocations, and all others, which become one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from oms_app.errors import StudioError, one_line

# Messages of allocators that raise no specific type: CUDA's libraries, HIP, Apple's, the CPU's and oneDNN's.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusparse_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine to execute this computation",  # cuDNN without memory for any of its algorithms
    "could not create a primitive",
    "could not create a memory object",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in words for part in _OUT_OF_MEMORY)


@contextmanager
def library_errors(what: str, remedy: str) -> Iterator[None]:
    """Turns any exception of a library inside into a StudioError: `what (its message): remedy`.

    Files are untrusted, and libraries raise many types for them. StudioErrors and failed allocations pass unchanged.
    """
    try:
        yield
    except StudioError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = one_line(error) or type(error).__name__
        raise StudioError(f"{what} ({reason}): {remedy}") from error
