"""What is asked of a finished image: the checks of its Python, as data.

Law: values and text only. Each check is a program for 2.7 and every 3.x (see `builder.python.verify`) that uses
nothing but the image's own files, the loopback and, where it says so, wheels bound at `wheels`. What is left out
on purpose stands here with its reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from builder.python.acceptance_build import BUILD_CHECKS
from builder.python.verify import Check, module_checks, select

LEFT_OUT = "ocibuild.python.without"
"""The label that says which modules a recipe left out, with commas between them."""

# Patterns of modules of the standard library that are not imported though they are there, and why.
NOT_IMPORTED: Mapping[str, str] = {
    "*.__main__": "it runs the program",
    "*.test": "tests of the module, which need the test suite",
    "*.tests": "tests of the module, which need the test suite",
    "_LWPCookieJar": "2.7: a part of cookielib, which imports it",
    "_MozillaCookieJar": "2.7: a part of cookielib, which imports it",
    "_ios_support": "iOS only",
    "_pyrepl.windows_console": "Windows only",
    "_pyrepl.windows_eventqueue": "Windows only",
    "antigravity": "it opens a web browser",
    "asyncio.windows_events": "Windows only",
    "asyncio.windows_utils": "Windows only",
    "bsddb": "2.7: needs Berkeley DB 5, which no image carries",
    "compiler.*": "2.7: it warns that it is gone in 3.0",
    "ctypes.wintypes": "Windows only (2.7 refuses it)",
    "dbhash": "2.7: needs bsddb",
    "distutils._msvccompiler": "Windows only",
    "distutils.command.bdist_msi": "Windows only",
    "distutils.msvc9compiler": "Windows only",
    "distutils.msvccompiler": "Windows only",
    "encodings.cp65001": "Windows only",
    "encodings.mbcs": "Windows only",
    "encodings.oem": "Windows only",
    "hotshot.stones": "2.7: it runs a benchmark",
    "lib2to3.pgen2.conv": "it imports a module of its first author's",
    "macpath": "classic Mac OS, deprecated",
    "msilib": "Windows only",
    "multiprocessing.popen_spawn_win32": "Windows only",
    "sitecustomize": "not of the standard library: the image's own",
    "test": "the test suite, where an image carries it",
    "this": "it prints a poem",
    "turtledemo.*": "it opens windows",
}

# Patterns of what CPython names as its standard library (3.10+) and an image need not have, and why.
MAY_BE_ABSENT: Mapping[str, str] = {
    "_ios_support": "iOS only",
    "_msi": "Windows only",
    "_overlapped": "Windows only",
    "_scproxy": "macOS only",
    "_tkinter": "Tcl/Tk: only when the recipe asks for tkinter",
    "_winapi": "Windows only",
    "_wmi": "Windows only",
    "idlelib": "a development environment that needs tkinter",
    "msilib": "Windows only",
    "msvcrt": "Windows only",
    "nis": "needs libnsl; gone in 3.13",
    "nt": "Windows only",
    "ossaudiodev": "sound cards; gone in 3.13",
    "tkinter": "only when the recipe asks for it",
    "turtle": "needs tkinter",
    "turtledemo": "needs tkinter",
    "winreg": "Windows only",
    "winsound": "Windows only",
}

# The certificate and the key of "localhost" for a handshake inside the sandbox, and for nothing else.
_TEST_CERTIFICATE = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIMBg2zy4qCpK40orbtRCl6xmZUbGrexOd0znHlk8yZBuoAoGCCqGSM49
AwEHoUQDQgAElSljpuPgrL6FkbAbOQLBj1vOW/rnINfmhsQ+qyLiso+Hv94TlIhQ
J3aeazH1DzY6II4Q38890r963i6z/lV35g==
-----END EC PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBpTCCAUugAwIBAgIUZjdlhJimNxj6NFhH31xmsCVjx/QwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIxNDYwMloYDzIxMjYxMDI4
MjE0NjAyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASVKWOm4+CsvoWRsBs5AsGPW85b+ucg1+aGxD6rIuKyj4e/3hOUiFAn
dp5rMfUPNjogjhDfzz3Sv3reLrP+VXfmo3kwdzAdBgNVHQ4EFgQU7udnVnRoqC+R
HKD+VjVHsLVwYaUwHwYDVR0jBBgwFoAU7udnVnRoqC+RHKD+VjVHsLVwYaUwFAYD
VR0RBA0wC4IJbG9jYWxob3N0MA4GA1UdDwEB/wQEAwIChDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDSRWUlB/WMvgKYe3CwtnwZWsUFYRfzRmqA
fDF3EyVnvgIgBaZv2s39LVNOXoKKoyiVYObbK9jw9qNj125BhHzIPCw=
-----END CERTIFICATE-----
"""

_IMPORTS = """
import fnmatch, os, pkgutil, sys, warnings
warnings.simplefilter("ignore")
failed, done = [], [0]

def wanted(name):
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in not_imported)

def visit(name, is_package):
    if not wanted(name):
        return
    try:
        __import__(name)
    except BaseException as error:
        if getattr(error, "name", None) not in without:
            failed.append("%s (%s: %s)" % (name, type(error).__name__, error))
        return
    done[0] += 1
    if is_package:
        walk(sys.modules[name].__path__, name + ".")

def walk(path, prefix):
    for found in sorted(pkgutil.iter_modules(path, prefix), key=lambda found: found[1]):
        visit(found[1], found[2])

for name in sys.builtin_module_names:
    visit(name, False)
stdlib = os.path.dirname(os.__file__)
walk([path for path in sys.path if path.startswith(stdlib) and "-packages" not in path], "")
assert not failed, "%d of %d: %s" % (len(failed), len(failed) + done[0], "; ".join(failed))
assert done[0] > 200, done[0]
"""

# An extension went with the module that it works for.
_COMPLETE = """
import fnmatch, importlib.util, sys
workers = ["_" + name.rpartition(".")[2] for name in without]
def absent(name):
    if name in without or name in workers or name.startswith(tuple(worker + "_" for worker in workers)):
        return False
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in may_be_absent):
        return False
    try:
        return importlib.util.find_spec(name) is None
    except ValueError:
        return False
missing = sorted(name for name in sys.stdlib_module_names if absent(name))
missing = [name for name in missing if not name.startswith(("_test", "_xx", "xx", "_ctypes_test"))]
assert not missing, ", ".join(missing)
"""

_ACCELERATORS = """
import importlib
names = "_bisect _csv _heapq _io _json _pickle _random _struct _datetime _elementtree _lsprof".split()
names += "_asyncio _queue _contextvars _statistics".split() if version >= (3, 8) else []
failed = []
for name in names:
    try:
        importlib.import_module(name)
    except ImportError:
        failed.append(name)
assert not failed, "only in Python, and so slow: " + ", ".join(failed)
"""

_TLS = """
import os, socket, ssl, tempfile, threading
path = os.path.join(tempfile.mkdtemp(), "localhost.pem")
with open(path, "w") as stream:
    stream.write(certificate)
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(path)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(5)

def serve():
    while True:
        plain, _ = listener.accept()
        try:
            secure = server.wrap_socket(plain, server_side=True)
            secure.sendall(secure.recv(100).upper())
            secure.close()
        except (OSError, socket.error):
            plain.close()

thread = threading.Thread(target=serve)
thread.daemon = True
thread.start()

def talk(context, name="localhost"):
    plain = socket.create_connection(listener.getsockname(), 20)
    secure = context.wrap_socket(plain, server_hostname=name)
    secure.sendall(b"hello")
    assert secure.recv(100) == b"HELLO"
    spoken = secure.version()
    secure.close()
    return spoken

def refused(context, name):
    try:
        talk(context, name)
    except (ssl.SSLError, ValueError):  # 2.7 has a ValueError for the name
        return True

assert talk(ssl.create_default_context(cafile=path)) in ("TLSv1.2", "TLSv1.3")
if hasattr(ssl, "TLSVersion"):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=path)
        context.minimum_version = context.maximum_version = version
        assert talk(context) == version.name.replace("_", "."), version
assert refused(ssl.create_default_context(), "localhost"), "a certificate that nobody vouches for is taken"
assert refused(ssl.create_default_context(cafile=path), "example.org"), "a certificate of another name is taken"
"""

# A directory of certificates is only read while a peer is verified: OpenSSL 1.1 on Debian has no file beside it.
_CERTIFICATES = """
import os, ssl
paths = ssl.get_default_verify_paths()
count = len(ssl.create_default_context().get_ca_certs())
if not count and paths.capath:
    count = len([name for name in os.listdir(paths.capath) if name.endswith(".0")])
assert count > 50, "%d certificates at %s" % (count, paths)
"""

_SQLITE = """
import os, sqlite3, sys, tempfile
base = sqlite3.connect(":memory:")
if sys.version_info >= (3, 2):
    base.enable_load_extension(True)
base.execute("create virtual table words using fts5(text)")
base.execute("insert into words values ('one two')")
assert base.execute("select count(*) from words where words match 'two'").fetchone() == (1,)
base.execute("create virtual table boxes using rtree(id, x0, x1)")
base.execute("insert into boxes values (1, 0, 2)")
assert base.execute("select id from boxes where x1 > 1").fetchone() == (1,)
assert base.execute('select json_extract(?, ?)', ('{"a": [1, 7]}', "$.a[1]")).fetchone() == (7,)
assert base.execute("select sum(n) over (order by n) from (select 1 as n)").fetchone() == (1,)
base.commit()
if version >= (3, 7):
    copy = sqlite3.connect(os.path.join(tempfile.mkdtemp(), "copy"))
    base.backup(copy)
    assert copy.execute("select count(*) from boxes").fetchone() == (1,)
if version >= (3, 11):
    again = sqlite3.connect(":memory:")
    again.deserialize(base.serialize())
    assert again.execute("select count(*) from boxes").fetchone() == (1,)
"""

_LZMA = """
import lzma
for check in (lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256):
    assert lzma.is_check_supported(check), check
    assert lzma.decompress(lzma.compress(b"x" * 9999, check=check)) == b"x" * 9999
"""

_ZSTD = """
from compression import zstd
options = {zstd.CompressionParameter.nb_workers: 2, zstd.CompressionParameter.checksum_flag: 1}
assert zstd.decompress(zstd.compress(b"x" * 9999, options=options)) == b"x" * 9999
"""

_HASHES = """
import hashlib
names = getattr(hashlib, "algorithms_guaranteed", None) or hashlib.algorithms
for name in sorted(names):
    hashlib.new(name, b"x")
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c44298fc1c14")
hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10)
if version >= (3, 6):
    hashlib.scrypt(b"x", salt=b"y", n=16, r=8, p=1)
"""

_CALLBACK = """
import ctypes
order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 3)(3, 1, 2)
ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), order(lambda a, b: a[0] - b[0]))
assert list(numbers) == [1, 2, 3]
"""

_FIND_LIBRARY = """
import ctypes, ctypes.util
for name in ("c", "ssl", "sqlite3"):
    if name == "c" or name not in without:
        found = ctypes.util.find_library(name)
        assert found, name
        ctypes.CDLL(found)
"""

_CURSES = """
import curses, os
curses.setupterm("xterm", os.open("/dev/null", os.O_WRONLY))
assert curses.tigetnum("colors") == 8 and curses.tigetstr("clear"), "xterm is not described"
assert version < (3,) or hasattr(curses, "unget_wch"), "not the wide curses"
"""

_READLINE = """
import readline
readline.parse_and_bind("tab: complete")
readline.add_history("one")
assert readline.get_history_item(1) == "one"
"""

_DECIMAL = """
import decimal
if version >= (3, 3):
    import _decimal
    assert decimal.Decimal is _decimal.Decimal, "the slow decimal"
assert decimal.Decimal(2).sqrt(decimal.Context(prec=9)) == decimal.Decimal("1.41421356")
"""

_POOL = """
import multiprocessing
def work(context):
    pool = context.Pool(2)
    assert pool.map(abs, range(-9, 0)) == list(range(9, 0, -1))
    pool.close()
    pool.join()
    queue = context.Queue()
    queue.put(1)
    assert queue.get(True, 20) == 1
work(multiprocessing)
if version >= (3, 4):
    for method in multiprocessing.get_all_start_methods():
        work(multiprocessing.get_context(method))
if version >= (3, 8):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=16)
    memory.close()
    memory.unlink()
"""

_ZONES = """
import os, time
os.environ["TZ"] = "Europe/Paris"
time.tzset()
assert time.tzname == ("CET", "CEST"), time.tzname
if version >= (3, 9):
    import datetime, zoneinfo
    summer = datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("America/New_York"))
    assert summer.utcoffset() == datetime.timedelta(hours=-4)
    assert len(zoneinfo.available_timezones()) > 400, len(zoneinfo.available_timezones())
"""

_LOCALE = """
import locale, os, sys
assert locale.getpreferredencoding().lower() == "utf-8", locale.getpreferredencoding()
locale.setlocale(locale.LC_ALL, "C.UTF-8")
assert version < (3,) or sys.getfilesystemencoding() == "utf-8", sys.getfilesystemencoding()
os.mkdir(u"/tmp/\\u00e9t\\u00e9 \\u6771\\u4eac")
"""

_CODECS = """
for name in "cp1252 idna gb18030 shift_jis euc_kr big5 iso2022_jp utf_16 punycode".split():
    assert u"abc".encode(name).decode(name) == u"abc", name
import unicodedata
assert unicodedata.name(u"\\u6771").startswith("CJK")
"""

# As docker's official images are tested (python-stack-size); musl's threads fail it. Frames of C need the most stack.
_RECURSION = """
import sys, threading
def down(depth):
    return down(depth - 1) if depth else 0
def through_c(depth):
    return list(map(through_c, [depth - 1])) if depth else []
def endless(depth):
    return endless(depth + 1)
def ends():
    try:
        endless(0)
    except RuntimeError:
        done.append("endless")
def in_thread(target, *arguments):
    thread = threading.Thread(target=target, args=arguments)
    thread.start()
    thread.join()
done = []
in_thread(lambda: done.append(through_c(450)))
in_thread(ends)
sys.setrecursionlimit(30000)
threading.stack_size(64 << 20)
in_thread(lambda: done.append(down(20000)))
assert len(done) == 3, "a thread ended early"
"""

_ASYNCIO = """
import asyncio
async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    writer.close()
    server.close()
asyncio.run(main())
"""

_SUBPROCESS = """
import subprocess, sys
assert subprocess.check_output([sys.executable, "-c", "print(6 * 7)"]).split() == [b"42"]
"""

_LIBPYTHON = """
import os, sysconfig
library = os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
assert os.path.exists(library), library
with open("/proc/self/maps") as stream:
    loaded = set(line.split()[-1] for line in stream if "/libpython" in line)
assert loaded <= set([os.path.realpath(library)]), "another libpython is loaded: %s" % loaded
"""

_NO_GIL = """
import sys, sysconfig
import _asyncio, _ctypes, _decimal, _elementtree, _hashlib, _json, _lzma, _sqlite3, _ssl, _zoneinfo, zlib
assert not sys._is_gil_enabled(), "a module of the standard library turned the GIL on"
assert "t-" in sysconfig.get_config_var("SOABI"), sysconfig.get_config_var("SOABI")
"""

_JIT = """
import os, subprocess, sys
program = "import sys; assert sys._jit.is_enabled()"
subprocess.check_call([sys.executable, "-c", program], env=dict(os.environ, PYTHON_JIT="1"))
"""

_UCS4 = "import sys; assert sys.maxunicode == 0x10ffff, 'UCS2: no cp27mu wheel fits'"

_CHECKS = (
    Check(name="every module imports", code=_IMPORTS),
    Check(name="no module is missing", code=_COMPLETE, since=(3, 10)),
    Check(name="accelerators", code=_ACCELERATORS, since=(3, 3)),
    Check(name="certificates", code=_CERTIFICATES, library="ca-certificates", modules=("ssl",)),
    Check(name="TLS handshake", code=_TLS, library="libssl", modules=("ssl",)),
    Check(name="sqlite features", code=_SQLITE, library="libsqlite3", modules=("sqlite3",)),
    Check(name="lzma checks", code=_LZMA, library="liblzma", since=(3, 3), modules=("lzma",)),
    Check(name="zstd threads", code=_ZSTD, library="libzstd", since=(3, 14), modules=("compression.zstd",)),
    Check(name="hashes", code=_HASHES, library="libcrypto", modules=("hashlib",)),
    Check(name="ctypes callback", code=_CALLBACK, library="libffi", modules=("ctypes",)),
    Check(name="find_library", code=_FIND_LIBRARY, library="/etc/ld.so.cache", modules=("ctypes",), only="ldconfig"),
    Check(name="terminal", code=_CURSES, library="ncurses-base", modules=("curses",)),
    Check(name="line editing", code=_READLINE, library="libreadline", modules=("readline",)),
    Check(name="fast decimal", code=_DECIMAL, modules=("decimal",)),
    Check(name="process pool", code=_POOL, modules=("multiprocessing",)),
    Check(name="time zones", code=_ZONES, library="tzdata"),
    Check(name="services", code="import socket; assert socket.getservbyname('https') == 443", library="netbase"),
    Check(name="C.UTF-8", code=_LOCALE, library="libc-bin"),
    Check(name="codecs", code=_CODECS),
    Check(name="deep recursion", code=_RECURSION),
    Check(name="asyncio", code=_ASYNCIO, since=(3, 7), modules=("asyncio",)),
    Check(name="subprocess", code=_SUBPROCESS),
    Check(name="shared libpython", code=_LIBPYTHON, only="shared"),
    Check(name="no GIL", code=_NO_GIL, only="free-threaded"),
    Check(name="JIT", code=_JIT, only="jit"),
    Check(name="UCS4", code=_UCS4, until=(3, 0)),
    *BUILD_CHECKS,
)


def image_checks(
    version: tuple[int, ...], *, facts: Collection[str] = ("pip",), without: Collection[str] = ()
) -> tuple[Check, ...]:
    """What must hold in a finished image with these facts (see `builder.verify`), but for modules left `without`."""
    chosen = select(_CHECKS, version, facts=facts, without=without)
    return (*module_checks(version, without), *chosen)


def check_values(version: tuple[int, ...], *, without: Collection[str] = ()) -> dict[str, object]:
    """What the checks see as globals; `wheels` (a directory) is the caller's to give."""
    return {
        "certificate": _TEST_CERTIFICATE,
        "may_be_absent": tuple(MAY_BE_ABSENT),
        "not_imported": tuple(NOT_IMPORTED),
        "version": version[:2],
        "without": tuple(without),
        "wheels": "",
        "why_no_wheels": "there are no wheels to try",
    }
