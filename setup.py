"""The shim for pip (all metadata is in ``setup.cfg``), and the optional compiled kernels."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(path.as_posix() for path in Path("nni_dynconv/csrc").glob("*.cpp"))
WINDOWS = os.name == "nt"


class BuildKernels(build_ext):
    """Build a plain shared library: it has a C interface, is loaded by ctypes, and is no Python module."""

    def get_export_symbols(self, ext):
        """Ask the linker for no ``PyInit_...``, which the library does not have."""
        return ext.export_symbols


# `optional`: where no compiler works, setuptools warns and installs the package without the kernels.
kernels = Extension(
    "nni_dynconv._kernels",
    SOURCES,
    depends=sorted(path.as_posix() for path in Path("nni_dynconv/csrc").glob("*.h")),
    language="c++",
    extra_compile_args=["/O2", "/std:c++17"] if WINDOWS else ["-O3", "-std=c++17", "-ffp-contract=fast", "-pthread"],
    extra_link_args=[] if WINDOWS else ["-pthread", "-ldl"] if sys.platform == "linux" else ["-pthread"],
    optional=True,
)

setup(ext_modules=[kernels] if SOURCES else [], cmdclass={"build_ext": BuildKernels})
