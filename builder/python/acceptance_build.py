"""What is asked of a finished image: that packages can be installed in it, wheels as well as sources.

Law: as `builder.python.acceptance`, of which this is the second half. `wheels` is a directory of wheels, or empty.
"""

from __future__ import annotations

from builder.python.verify import Check

# Variables that only CPython's own Makefile reads (the flags of what is built into it), that say where that ran, or
# that are the caller's.
_OWN_VARIABLES = (
    "*_NODIST",
    "BOLT_*",
    "CONFIG_ARGS",
    "COVERAGE_*",
    "LIB*_CFLAGS",
    "LIB*_LDFLAGS",
    "LTO*",
    "MODULE_*",
    "PGO_*",
    "PROFILE_TASK",
    "PY_CORE_*",
    "PY_STDMODULE_CFLAGS",
    "PY_BUILTIN_MODULE_CFLAGS",
    "PY_LDFLAGS_NOLTO",
    "TEST*",
    "abs_builddir",
    "abs_srcdir",
    "userbase",
)

_SYSCONFIG = f"""
import fnmatch, os, sysconfig
values = sysconfig.get_config_vars()
faults = []
for name, value in sorted(values.items()):
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in {_OWN_VARIABLES!r}):
        continue
    words = str(value).replace("=", " ").replace("-I", " ").replace("-L", " ").split()
    for word in words:
        if word == "/build" or word.startswith(("/build/", "/pip/", "/tmp/", "-flto", "-fprofile", "-specs", "-g0")):
            faults.append("%s has %s" % (name, word))
compiler = (values.get("CC") or "").split()[:1]
linker = (values.get("LDCXXSHARED") or values.get("LDSHARED") or "").split()
known = {{"gcc": "g++", "clang": "clang++"}}
if compiler and compiler[0] not in known:
    faults.append("CC is " + values["CC"])
else:
    plus = known[compiler[0]]
    if (values.get("CXX") or "").split()[:1] != [plus]:
        faults.append("CXX is %s" % values.get("CXX"))
    if linker[:1] != [plus] or "-shared" not in linker:
        faults.append("LDCXXSHARED is %s" % values.get("LDCXXSHARED"))
if "-O3" not in (values.get("OPT") or values.get("CFLAGS") or "") + (values.get("PY_CFLAGS") or ""):
    faults.append("no -O3 in CFLAGS")
assert not faults, "; ".join(faults)
for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts"):
    assert os.path.isdir(sysconfig.get_paths()[name]), name
"""

_DETAILS = """
import json, os, sys, sysconfig
path = os.path.join(sysconfig.get_paths()["stdlib"], "build-details.json")
with open(path) as stream:
    details = json.load(stream)
prefix = os.path.join(os.path.dirname(path), details["base_prefix"])
assert os.path.realpath(prefix) == os.path.realpath(sys.base_prefix), details["base_prefix"]
named = [details["base_interpreter"]]
named += [details.get("libpython", {}).get(name) for name in ("dynamic", "dynamic_stableabi", "static")]
named += [details.get("c_api", {}).get(name) for name in ("headers", "pkgconfig_path")]
absent = [name for name in named if name and not os.path.exists(os.path.join(prefix, name))]
assert not absent, "not there: " + ", ".join(absent)
assert details["language"]["version"] == "%d.%d" % sys.version_info[:2], details["language"]
"""

# PEP 552: the flags of an unchecked hash are 1.
_BYTECODE = """
import importlib.util, os, sysconfig
stdlib = sysconfig.get_paths()["stdlib"]
stale, count = [], 0
for directory, folders, files in os.walk(stdlib):
    folders[:] = [name for name in folders if not name.endswith("-packages")]
    for name in files:
        if not name.endswith(".py"):
            continue
        path = os.path.join(directory, name)
        try:
            with open(importlib.util.cache_from_source(path), "rb") as stream:
                head = stream.read(8)
        except OSError:
            head = b""
        count += 1
        if head != importlib.util.MAGIC_NUMBER + bytes([1, 0, 0, 0]):
            stale.append(os.path.relpath(path, stdlib))
assert not stale, "%d of %d modules have no unchecked .pyc: %s" % (len(stale), count, ", ".join(stale[:5]))
"""

_PIP = """
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "pip", "--version"])
subprocess.check_call([sys.executable, "-m", "pip", "check"])
"""

_VENV = """
import os, subprocess, sys, tempfile
where = os.path.join(tempfile.mkdtemp(), "venv")
subprocess.check_call([sys.executable, "-m", "venv", where])
python = os.path.join(where, "bin", "python")
program = "import sys; assert sys.prefix != sys.base_prefix; import ssl, sqlite3, ctypes; print(sys.prefix)"
assert subprocess.check_output([python, "-c", program]).decode().strip() == where
subprocess.check_call([os.path.join(where, "bin", "pip"), "--version"])
"""

_TAGS = """
import os, platform, sys
try:
    from pip._vendor.packaging.tags import sys_tags
    found = [str(tag) for tag in sys_tags()]
except ImportError:  # pip 19
    from pip._internal.pep425tags import get_supported
    found = ["-".join(tag) for tag in get_supported()]
machine, glibc = platform.machine(), os.confstr(2).split()[1]
minor = int(glibc.split(".")[1])
python = "cp%d%d" % sys.version_info[:2]
abi = python + ("mu" if version < (3,) else "m" if version < (3, 8) else getattr(sys, "abiflags", "").replace("d", ""))
names = ["manylinux_2_%d" % number for number in range(17, minor + 1)] + ["manylinux2014"]
if not any("-manylinux_2_" in tag for tag in found):  # a pip older than PEP 600
    names = ["manylinux2014" if any("manylinux2014" in tag for tag in found) else "manylinux2010"]
wanted = ["%s-%s-%s_%s" % (python, abi, name, machine) for name in names]
missing = [tag for tag in wanted if tag not in found]
assert not missing, "glibc %s, but no wheel fits that is %s" % (glibc, ", ".join(missing))
"""

_INSTALL = """
import os, subprocess, sys, tempfile
if not wheels:
    raise NotTried(why_no_wheels)
where = tempfile.mkdtemp()
pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", wheels, "--no-cache-dir"]
pip += ["--disable-pip-version-check", "--no-compile", "--target", where]
"""

_NUMPY = f"""{_INSTALL}
subprocess.check_call(pip + ["--only-binary", ":all:", "numpy"])
sys.path.insert(0, where)
import numpy
matrix = numpy.array([[2.0, 1.0], [1.0, 3.0]])
assert numpy.allclose(numpy.linalg.inv(matrix).dot(matrix), numpy.eye(2))
assert numpy.arange(10 ** 6).sum() == 499999500000
"""

_CRYPTOGRAPHY = f"""{_INSTALL}
subprocess.check_call(pip + ["--only-binary", ":all:", "cryptography"])
sys.path.insert(0, where)
import warnings
warnings.simplefilter("ignore")
from cryptography.fernet import Fernet
fernet = Fernet(Fernet.generate_key())
assert fernet.decrypt(fernet.encrypt(b"secret")) == b"secret"
"""

_SOURCE = '''
import os, tempfile
SOURCE = r"""
#include <Python.h>
EXTRA
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(VALUE); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
#if PY_MAJOR_VERSION >= 3
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "NAME", "", -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModule_Create(&definition); }
#else
PyMODINIT_FUNC initNAME(void) { Py_InitModule("NAME", methods); }
#endif
"""
CPLUSPLUS = r"""
#include <stdexcept>
#include <string>
static long length(const std::string &text) {
    try { throw std::runtime_error(text); }
    catch (const std::exception &error) { return std::string(error.what()).size(); }
}
"""
def write(path, name, extra="", value="42"):
    with open(path, "w") as stream:
        stream.write(SOURCE.replace("NAME", name).replace("EXTRA", extra).replace("VALUE", value))
place = tempfile.mkdtemp()
'''

# What distutils and setuptools make of sysconfig's variables.
_EXTENSION = f"""{_SOURCE}
import shlex, subprocess, sys, sysconfig, warnings
warnings.simplefilter("ignore")
get = sysconfig.get_config_var
def build(name, source, compiler, linker):
    directory = sysconfig.get_paths()["include"]
    compiled, target = os.path.join(place, name + ".o"), os.path.join(place, name + (get("EXT_SUFFIX") or get("SO")))
    flags = shlex.split(get("CFLAGS")) + shlex.split(get("CCSHARED"))
    subprocess.check_call(shlex.split(compiler) + flags + ["-I", directory, "-c", source, "-o", compiled])
    subprocess.check_call(shlex.split(linker) + [compiled, "-o", target])
    sys.path.insert(0, place)
    assert __import__(name).answer() == 42
"""
_C = f"""{_EXTENSION}
write(os.path.join(place, "inc.c"), "inc")
build("inc", os.path.join(place, "inc.c"), get("CC"), get("LDSHARED"))
"""
_CXX = f"""{_EXTENSION}
write(os.path.join(place, "plus.cc"), "plus", CPLUSPLUS, "length(std::string(42, 'x'))")
build("plus", os.path.join(place, "plus.cc"), get("CXX"), get("LDCXXSHARED") or get("LDSHARED"))
"""
_SDIST = f"""{_INSTALL}{_SOURCE}
write(os.path.join(place, "inc.c"), "inc")
write(os.path.join(place, "plus.cc"), "plus", CPLUSPLUS, "length(std::string(42, 'x'))")
with open(os.path.join(place, "pyproject.toml"), "w") as stream:
    needs = '["setuptools", "wheel"]' if version < (3, 9) else '["setuptools"]'
    stream.write('[build-system]\\nrequires = %s\\nbuild-backend = "setuptools.build_meta"\\n' % needs)
with open(os.path.join(place, "setup.py"), "w") as stream:
    stream.write("from setuptools import Extension, setup\\nsetup(name='both', version='1', py_modules=[], "
                 "ext_modules=[Extension('inc', ['inc.c']), Extension('plus', ['plus.cc'], language='c++')])\\n")
subprocess.check_call(pip + [place])
sys.path.insert(0, where)
import inc, plus
assert (inc.answer(), plus.answer()) == (42, 42)
"""

BUILD_CHECKS = (
    Check(name="sysconfig", code=_SYSCONFIG),
    Check(name="build-details.json", code=_DETAILS, since=(3, 14)),
    Check(name="bytecode", code=_BYTECODE, since=(3, 7), only="pyc"),
    Check(name="pip", code=_PIP, only="pip"),
    Check(name="venv", code=_VENV, since=(3, 4), only="venv"),
    Check(name="manylinux tags", code=_TAGS, only="pip"),
    Check(name="NumPy wheel", code=_NUMPY, only="pip"),
    Check(name="cryptography wheel", code=_CRYPTOGRAPHY, only="pip"),
    Check(name="C extension", code=_C, library="gcc", only="gcc"),
    Check(name="C++ extension", code=_CXX, library="g++", only="gcc"),
    Check(name="sdist with extensions", code=_SDIST, library="gcc and g++", only="gcc"),
)
