"""Recipe: what the user wrote, parsed strictly from TOML.

Law: pure; bytes in, a frozen Recipe out. A recipe says what an image is, never where or how fast it is made. An unknown
key is refused with its path and the nearest known one.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from builder.oci.annotations import fault_of
from rootfs.digest import Digest
from rootfs.errors import RecipeError

# What makes systemd a running part of an image. libsystemd0 and libudev1 are client libraries that Essential packages
# pre-depend on (coreutils, util-linux): they cannot be left out of an image that has those.
SYSTEMD = (
    "dbus",
    "dbus-user-session",
    "libnss-systemd",
    "libpam-systemd",
    "systemd",
    "systemd-sysv",
    "udev",
)

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=64)]
Scripts = Literal["native", "run", "dpkg"]
Variant = Literal["custom", "essential", "apt", "minbase"]
Compression = Annotated[str, Meta(pattern=r"^(gzip|zstd|estargz|zstd:chunked)(:[0-9]{1,2})?$")]
Port = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}/(tcp|udp|sctp)$")]
Volume = Annotated[str, Meta(pattern=r"^/[^\0]*$", max_length=4096)]
Signal = Annotated[str, Meta(pattern=r"^(SIG[A-Z0-9+-]+|[1-9][0-9]?)?$")]
Budget = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[int, Meta(ge=0, le=86400)]
March = Annotated[str, Meta(pattern=r"^[a-z0-9.-]*$", max_length=32)]
ModuleName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=64)]
PipVersion = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=32)]
PythonVersion = Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+((a|b|rc)[0-9]+)?)?$")]


class Repository(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[base.repository]]`: an archive beside Debian's, and the only key that may sign it.

    `key` is a file (its path relative to the recipe) or the armored certificate itself.
    """

    url: str
    suite: str
    components: tuple[str, ...] = ("main",)
    key: str


class Base(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[base]`: the Debian below CPython, or by itself (`ocibuild rootfs`).

    `suite` left empty is the one that the CPython version wants. `variant` is what comes along with `packages`:
    nothing (`custom`), the Essential packages (`essential`), those and apt (`apt`), those and Priority: required
    (`minbase`); `omit` names packages that stay out although others depend on them. `security`, `updates`, `backports`
    add the archives of these names; `snapshot` (a timestamp) takes all as they were then. `slim` names rules of what
    to leave out, `exclude_paths` and `include_paths` are dpkg's globs. `maintainer_scripts`: `native` knows the effect
    of each or stops; `run` has dpkg run them all when one is unknown; `dpkg` always.
    """

    suite: str = ""
    components: tuple[str, ...] = ("main",)
    security: bool = True
    updates: bool = False
    backports: bool = False
    snapshot: str = ""
    repository: tuple[Repository, ...] = ()
    variant: Variant = "essential"
    packages: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    deny: tuple[str, ...] = SYSTEMD
    slim: tuple[str, ...] = ()
    exclude_paths: tuple[str, ...] = ()
    include_paths: tuple[str, ...] = ()
    maintainer_scripts: Scripts = "native"

    @property
    def digest(self) -> Digest:
        """The digest of what is said: what a lock of a rootfs alone belongs to."""
        return Digest.of_value(msgspec.to_builtins(self))


class Python(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[python]`: the interpreter. `version` is exact or a line (`3.14`: the newest known).

    `variant` is plain, optimized (PGO) or optimized-lto (PGO and LTO). `modules` asks for what is left out by default,
    `without` leaves more out, `headers = false` what extensions are compiled with. `shared` puts libpython into a file
    of its own; `free_threaded` is the build without a GIL (3.13+), `jit` the one with the just-in-time compiler
    (3.14+); `march` a CPU level (`x86-64-v3`); `pip` is the bundled one, none, or an exact version. `training` in
    `parallel` is faster and gives another profile every time; `train_without` leaves tests out of it. `layout`: whether
    the interpreter is laid out by BOLT; `auto` is where that was measured to be of use.
    """

    version: PythonVersion
    variant: Literal["plain", "optimized", "optimized-lto"] = "plain"
    configure: tuple[str, ...] = ()
    modules: tuple[Literal["tkinter"], ...] = ()
    without: tuple[ModuleName, ...] = ()
    headers: bool = True
    shared: bool = False
    free_threaded: bool = False
    jit: bool = False
    march: March = ""
    compiler: Literal["gcc", "clang"] = "gcc"
    pyc: Literal["unchecked-hash", "none"] = "unchecked-hash"
    pip: bool | PipVersion = True
    training: Literal["serial", "parallel"] = "serial"
    train_without: tuple[ModuleName, ...] = ()
    layout: Literal["none", "bolt", "auto"] = "none"

    @property
    def said(self) -> dict[str, Any]:
        """The JSON value; as an image's, with `layout` only when it says something."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        if self.layout == "none":
            del value["layout"]
        return value


class Healthcheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[image.healthcheck]`: Docker's extension; the words of a command, and seconds (0: Docker's default)."""

    test: Annotated[tuple[str, ...], Meta(min_length=1)]
    interval: Seconds = 0
    timeout: Seconds = 0
    start_period: Seconds = 0
    retries: Annotated[int, Meta(ge=0, le=100)] = 0


class Image(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[image]`: the config of the image (image-spec, config.md), its layers and its tag; `{version}` is CPython's.

    `annotations` are the manifest's, beside `created` and `version`. `layering`: `parts` is a layer each for the base,
    the interpreter and pip; `packages` shares the base out by source package, among at most `budget` layers.
    """

    tag: str
    compression: Compression = "gzip"
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("python3",)
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    user: str = ""
    workdir: str = ""
    annotations: dict[str, str] = {}
    expose: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    stop_signal: Signal = ""
    healthcheck: Healthcheck | None = None
    layering: Literal["parts", "packages"] = "parts"
    budget: Budget = 10

    @property
    def said(self) -> dict[str, Any]:
        """The JSON value. Keys from `annotations` on are there when they say something: older digests stay right."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        fields = msgspec.structs.fields(self)
        later = fields[[one.name for one in fields].index("annotations") :]
        plain = Image(tag="")
        for one in later:
            if getattr(self, one.name) == getattr(plain, one.name):
                del value[one.name]
        return value


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image. The digest is that of the parsed values: comments and layout do not count."""

    name: Name
    base: Base = Base()
    python: Python
    image: Image

    @property
    def digest(self) -> Digest:
        """The digest of what the recipe says."""
        return Digest.of_value(msgspec.to_builtins(self) | {"python": self.python.said, "image": self.image.said})

    @classmethod
    def parse(cls, data: bytes, *, at: str, overrides: Sequence[str] = ()) -> Recipe:
        """From TOML; `overrides` are `key.path=value` texts that take the place of what the file says.

        RecipeError names the file, the key and the nearest known key.
        """
        try:
            table = tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError("the recipe is not TOML", at=at, because=str(error)) from error
        for override in overrides:
            _override(table, override)
        try:
            recipe = msgspec.convert(table, cls)
        except msgspec.ValidationError as error:
            raise _explain(str(error), at) from error
        for name, value in recipe.image.annotations.items():
            if fault := fault_of(name, value):
                raise RecipeError(f"image.annotations: {name} is not as it must be", at=at, because=fault)
        return recipe

    def tag(self, version: str) -> str:
        """The image's tag, with `{version}` (CPython's) filled in; RecipeError for another placeholder."""
        try:
            return self.image.tag.format(version=version)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise RecipeError(f"image.tag cannot be filled in: {self.image.tag}", hint="known: {version}") from error


def _override(table: dict[str, Any], text: str) -> None:
    """Set one value; the text is TOML for booleans, lists and the one number there is, else a string."""
    path, equals, value = text.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise RecipeError(f"not an override: {text}", hint="write --set python.version=3.14.7")
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError(f"not an override: {text}", because=f"{key} is not a table")
    literal = (
        value[:1] in ("[", '"', "'") or value in ("true", "false") or (path == "image.budget" and value.isdecimal())
    )
    try:
        table[keys[-1]] = tomllib.loads(f"value = {value}")["value"] if literal else value
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not an override: {text}", because=str(error)) from error


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


def _explain(message: str, at: str) -> RecipeError:
    unknown = _UNKNOWN.match(message)
    if unknown:
        path = unknown["path"] or ""
        key = f"{path}.{unknown['field']}" if path else unknown["field"]
        known = _known_keys(path)
        near = difflib.get_close_matches(unknown["field"], known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(known)}"
        return RecipeError(f"unknown key `{key}`", at=at, hint=hint)
    place = _PLACE.search(message)
    where = f"key `{place['path']}`" if place and place["path"] else "the recipe"
    words = _known_values(place["path"]) if place and "enum value" in message else []
    choice = f"known: {', '.join(words)}" if words else None
    return RecipeError(f"{where} is not as it must be", at=at, because=_PLACE.sub("", message), hint=choice)


def _known_keys(path: str) -> list[str]:
    kind = _type_of(path)
    return [f.name for f in msgspec.structs.fields(kind)] if isinstance(kind, type) else []


def _known_values(path: str) -> list[str]:
    """The words that a key may have; of a list (`modules[0]`), that it may hold."""
    key, in_list, _ = path.partition("[")
    kind = _type_of(key)
    return [str(value) for value in get_args(get_args(kind)[0] if in_list else kind)]


def _type_of(path: str) -> Any:
    """The type of the table or key at a path of the recipe; None where there is none."""
    kind: Any = Recipe
    for key in filter(None, path.split(".")):
        kind = {f.name: f.type for f in msgspec.structs.fields(kind)}.get(key)
    return kind
