# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/dense*: arrays in, arrays out. It trusts its caller (_network.py) on values
and shapes.

GIL contract: `Chain.run` takes its buffers with the GIL, releases it for the whole run, and raises nothing in between.
A chain changes nothing of itself after it was made, so any number of threads may run it at once. A ``level`` is a
position in ``available_levels()``; all levels give the same bits.
"""

import numpy as np

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


cdef extern from "dense.h" nogil:
    const int DENSE_MAX_LEVELS
    const int DENSE_ALIGN
    const size_t DENSE_BLOCK

    ctypedef enum dense_kind:
        DENSE_ADD
        DENSE_MULTIPLY
        DENSE_LOG
        DENSE_RELU
        DENSE_PRODUCT

    ctypedef struct dense_step:
        dense_kind kind
        float value
        const float *weights
        size_t n_out

    ctypedef struct dense_network:
        const dense_step *steps
        size_t n_steps, n_in, n_out, widest

    ctypedef struct dense_scratch:
        float *rows
        float *products
        uint32_t *used

    ctypedef struct dense_kernels:
        const char *name
        int (*run)(const dense_network *network, const float *inputs, size_t n, const dense_scratch *scratch,
                   float *outputs) noexcept nogil

    size_t dense_available(const dense_kernels **levels) noexcept
    size_t dense_padded(size_t n) noexcept


ALIGN = DENSE_ALIGN
ADD, MULTIPLY, LOG, RELU, PRODUCT = DENSE_ADD, DENSE_MULTIPLY, DENSE_LOG, DENSE_RELU, DENSE_PRODUCT

cdef const dense_kernels *_levels[DENSE_MAX_LEVELS]
cdef size_t _n_levels = dense_available(_levels)
cdef object _empty = np.empty, _float32 = np.dtype(np.float32)


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


def padded(size_t n):
    """The numbers that a row of n takes up in a matrix of weights."""
    return dense_padded(n)


cdef class Chain:
    """Steps one after the other: each ``(kind, value, weights, n_out)``, as csrc/dense.h says; weights are a float32
    matrix aligned to 64 bytes that nothing changes, or None."""

    cdef dense_network network
    cdef dense_step *steps
    cdef object owner

    def __cinit__(self, list steps, size_t n_in):
        cdef const float[:, ::1] weights
        cdef size_t i
        self.steps = <dense_step *>calloc(max(1, len(steps)), sizeof(dense_step))
        if self.steps == NULL:
            raise MemoryError
        self.network = dense_network(self.steps, len(steps), n_in, n_in, dense_padded(n_in))
        for i, (kind, value, matrix, n_out) in enumerate(steps):
            self.steps[i].kind, self.steps[i].value = kind, value
            if matrix is not None:
                weights = matrix
                self.steps[i].weights, self.steps[i].n_out = &weights[0, 0], n_out
                self.network.n_out = n_out
                self.network.widest = max(self.network.widest, dense_padded(n_out))
        self.owner = steps

    def __dealloc__(self):
        free(self.steps)

    def run(self, size_t level, inputs, size_t n):
        """float32 (n, n_in), C-contiguous, to float32 (n, n_out), and whether all of it is finite."""
        cdef Py_buffer source, target
        cdef dense_scratch scratch
        cdef bint finite = False
        cdef size_t rows = min(n, DENSE_BLOCK), widest = self.network.widest
        outputs = _empty((n, self.network.n_out), _float32)
        PyObject_GetBuffer(inputs, &source, PyBUF_C_CONTIGUOUS)
        PyObject_GetBuffer(outputs, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        scratch.rows = <float *>aligned_alloc(64, (2 * rows + 1) * widest * sizeof(float))
        if scratch.rows != NULL:
            scratch.products = scratch.rows + rows * widest
            scratch.used = <uint32_t *>(scratch.products + rows * widest)
            with nogil:
                finite = _levels[level].run(&self.network, <const float *>source.buf, n, &scratch,
                                            <float *>target.buf)
            free(scratch.rows)
        PyBuffer_Release(&source)
        PyBuffer_Release(&target)
        if scratch.rows == NULL:
            raise MemoryError
        return outputs, finite
