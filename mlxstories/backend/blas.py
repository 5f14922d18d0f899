"""A fast BLAS under MLX on Linux.

The Linux CPU wheel of MLX is linked against the reference BLAS, whose matrix product runs at a
thirtieth of what the processor can do. MLX calls ``cblas_sgemm`` through the dynamic linker's table
of imported functions (ELF gABI, "Procedure Linkage Table"), so writing the address of OpenBLAS's
``cblas_sgemm`` into that one entry is enough. It works whether or not ``mlx.core`` was imported
first, and no other library in the process notices. On macOS, Metal and Accelerate are in use and
nothing is done here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import mmap
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_JUMP_SLOT = {"x86_64": 7, "aarch64": 1026}  # relocation types, from the processors' ELF supplements
_PT_DYNAMIC, _DT_STRTAB, _DT_SYMTAB, _DT_PLTRELSZ, _DT_JMPREL = 2, 5, 6, 2, 23


@dataclass(frozen=True)
class Blas:
    """The BLAS that MLX's CPU matrix products use: its name and where it was found."""

    name: str
    path: str


_BUNDLED = Blas("reference BLAS of the MLX wheel (slow)", "bundled")


@functools.cache
def install() -> Blas:
    """Point MLX at the fastest BLAS at hand, once per process, and say which one it is.

    A system OpenBLAS is preferred, then the one of the ``scipy-openblas32`` wheel. When neither can be
    put in place, or ``MLXSTORIES_BLAS=bundled`` is set, MLX stays as it is, slow and correct.
    """
    import mlx.core as mx

    if platform.system() != "Linux":
        return Blas("Accelerate", "system")
    if os.environ.get("MLXSTORIES_BLAS") == "bundled":
        return _BUNDLED
    _keep_freed_memory()
    slots = _import_slots(Path(mx.__file__).parent / "lib" / "libmlx.so", "cblas_sgemm")
    for name, path, symbol in _candidates():
        try:
            library = ctypes.CDLL(path)
            sgemm = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        if slots and sgemm:
            if "OPENBLAS_NUM_THREADS" not in os.environ:
                _use_one_thread(library, symbol)
            for slot in slots:
                _write_pointer(slot, sgemm)
            return Blas(name, path)
    return _BUNDLED


def _candidates():
    # by its name, which the loader finds without the compiler and the temporary file that find_library asks for
    yield "OpenBLAS (system)", "libopenblas.so.0", "cblas_sgemm"
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec and spec.origin:
        for path in Path(spec.origin).parent.glob("lib/libscipy_openblas*.so"):
            yield "OpenBLAS (scipy-openblas32)", str(path), "scipy_cblas_sgemm"


def _use_one_thread(library: ctypes.CDLL, symbol: str) -> None:
    """OpenBLAS's threads spin while they wait for each other: on a machine with any other work, small
    products become up to 50 times slower, which costs far more than a second thread gains."""
    prefix = symbol.removesuffix("cblas_sgemm")
    set_threads = getattr(library, f"{prefix}openblas_set_num_threads", None)
    if set_threads is not None:
        set_threads(1)


def _keep_freed_memory() -> None:
    """Keep large freed buffers in the process: by default glibc returns each one to the kernel, which
    costs a page fault for every 4 KiB of the next result."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return
    m_trim_threshold, m_mmap_threshold, limit = -1, -3, 1 << 30
    mallopt(m_mmap_threshold, limit)
    mallopt(m_trim_threshold, limit)


class _LoadedObject(ctypes.Structure):
    """``struct dl_phdr_info`` of <link.h>, as far as it is needed."""

    _fields_ = [
        ("base", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("header_count", ctypes.c_uint16),
    ]


def _import_slots(library: Path, symbol: str) -> list[int]:
    """Addresses of the table entries through which a loaded ``library`` calls ``symbol``."""
    found: list[int] = []
    callback_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(_LoadedObject), ctypes.c_size_t, ctypes.c_void_p
    )

    @callback_type
    def visit(info, _size, _data):
        loaded = info.contents
        if loaded.name.startswith(b"/") and os.path.realpath(loaded.name.decode()) == os.path.realpath(
            library
        ):
            found.extend(_slots_of(loaded, symbol.encode()))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(visit, None)
    return found


def _slots_of(loaded: _LoadedObject, symbol: bytes):
    def read(layout: str, address: int):
        return struct.unpack(layout, ctypes.string_at(address, struct.calcsize(layout)))

    headers = (read("<IIQQQQQQ", loaded.headers + 56 * i) for i in range(loaded.header_count))
    dynamic = next((h[3] for h in headers if h[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return
    table, address = {}, loaded.base + dynamic
    while (entry := read("<QQ", address))[0]:
        table[entry[0]] = entry[1]
        address += 16
    if not {_DT_STRTAB, _DT_SYMTAB, _DT_JMPREL, _DT_PLTRELSZ} <= table.keys():
        return
    for relocation in range(table[_DT_JMPREL], table[_DT_JMPREL] + table[_DT_PLTRELSZ], 24):
        offset, kind = read("<QQ", relocation)
        (name,) = read("<I", table[_DT_SYMTAB] + 24 * (kind >> 32))
        is_call = kind & 0xFFFFFFFF == _JUMP_SLOT.get(platform.machine())
        if is_call and ctypes.string_at(table[_DT_STRTAB] + name) == symbol:
            yield loaded.base + offset


def _write_pointer(address: int, value: int) -> None:
    page = address & ~(mmap.PAGESIZE - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 3):  # read and write
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.c_size_t.from_address(address).value = value
