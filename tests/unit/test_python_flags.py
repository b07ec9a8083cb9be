"""The commands of every stage: which flags go where, what a version cannot do, and what would undo the design."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from builder.python import flags
from builder.python.flags import Commands, Options, commands
from builder.python.lines import LINES, Line, line_of
from rootfs.errors import RecipeError

TRAINED = ("optimized", "optimized-lto")
LTO = re.compile(r"-f(no-fat-)?lto")


def said(version: str = "3.14", **options: object) -> Commands:
    return commands(line_of(version), Options(**options))  # type: ignore[arg-type]


def text(command: tuple[str, ...]) -> str:
    return " ".join(command)


def variables(command: tuple[str, ...]) -> dict[str, str]:
    """The variables on a make command line."""
    return dict(word.split("=", 1) for word in command if re.match(r"[A-Z_]+=", word))


def test_a_plain_build_is_configured_made_and_installed() -> None:
    plain = said()
    assert plain.configure[:2] == ("/build/configure", "--prefix=/usr/local")
    assert (plain.builtin, plain.freeze, plain.instrument, plain.train, plain.practice) == ((), (), (), (), ())
    assert plain.compile[0] == plain.install[0] == "make"
    assert ("build_all" in plain.compile, "install" in plain.install) == (True, True)
    for command in (plain.configure, plain.compile, plain.install):
        assert not re.search(r"-fprofile|-flto", text(command))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
@pytest.mark.parametrize("variant", ["plain", *TRAINED])
def test_flags_of_our_own_objects_stay_out_of_what_extensions_see(line: Line, variant: str) -> None:
    """Configure records its arguments; of make's variables only CFLAGS and LDFLAGS reach sysconfig (2.7 has no other,
    and reads those from the Makefile)."""
    made = commands(line, Options(variant=variant, march="x86-64-v3"))
    allowed = {"CFLAGS_NODIST", "LDFLAGS_NODIST"} if line.has_nodist else {"CFLAGS", "LDFLAGS"}
    allowed.add("LINKCC")  # how programs are linked, which no extension is
    assert not re.search(r" ([A-Z_]*FLAGS|-[Ofgm])", text(made.configure))
    for command in (made.instrument, made.compile, made.install):
        assert set(variables(command)) <= allowed
        assert not command or "-march=x86-64-v3" in text(command)


@pytest.mark.parametrize("version", [line.name for line in LINES])
def test_only_the_last_stage_is_optimised_at_link_time(version: str) -> None:
    made = said(version, variant="optimized-lto")
    for command in (made.configure, made.freeze, made.instrument, made.train):
        assert not LTO.search(text(command))
    for command in (made.compile, made.install):
        assert "-flto=auto" in text(command)
        assert "-flto-partition=balanced" in text(command)
        assert "-fno-fat-lto-objects" in text(command)
    assert not LTO.search(text(said(version, variant="optimized").compile))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_profile_serves_both_trained_variants(compiler: str) -> None:
    one, other = (said(variant=variant, compiler=compiler) for variant in TRAINED)
    assert replace(one, compile=(), install=()) == replace(other, compile=(), install=())
    assert one.compile != other.compile


@pytest.mark.parametrize("variant", TRAINED)
@pytest.mark.parametrize("version", [line.name for line in LINES])
def test_counters_are_added_to_atomically_and_used_strictly(version: str, variant: str) -> None:
    made = said(version, variant=variant)
    assert "-fprofile-generate -fprofile-update=atomic" in text(made.instrument)
    for command in (made.compile, made.install):
        assert "-fprofile-use" in text(command)
        assert "-fprofile-generate" not in text(command)
    assert "-Wno-coverage-mismatch" not in text(made.compile)
    assert "-Wno-error" not in text(made.compile)


def test_make_and_make_install_have_the_same_flags() -> None:
    """Or install would build all of it again."""
    made = said(variant="optimized-lto", march="x86-64-v3", shared=True)
    assert variables(made.compile) == variables(made.install)


@pytest.mark.parametrize("variant", TRAINED)
def test_an_interpreter_that_is_laid_out_keeps_what_tells_its_code_apart(variant: str) -> None:
    usual, laid_out = said(variant=variant), said(variant=variant, layout="bolt")
    for command in (laid_out.compile, laid_out.install):
        made = variables(command)
        assert made["LINKCC"].split()[-1] == "-Wl,-q"
        assert "-fno-reorder-blocks-and-partition" in made["CFLAGS_NODIST"].split()
        assert "--strip-all" not in text(command)
    assert "--strip-all" in text(usual.compile)
    assert replace(laid_out, compile=usual.compile, install=usual.install) == usual, "one profile serves both"


def test_2_7_takes_whole_flags() -> None:
    given = variables(said("2.7", variant="optimized").compile)
    assert {"CFLAGS", "LDFLAGS"} <= set(given)
    assert {"-fwrapv", "-fno-strict-aliasing", "-O3", "-DNDEBUG"} <= set(given["CFLAGS"].split())


def test_what_makes_frozen_modules_is_made_before_the_training_alone() -> None:
    assert said("3.14", variant="optimized").freeze[:3] == ("make", "Python/frozen.o", "Modules/getpath.o")
    assert said("3.9", variant="optimized").freeze == ()
    for command in (said(variant="optimized").instrument, said(variant="optimized").compile):
        kept = [command[place + 1] for place, word in enumerate(command) if word == "-o"]
        assert {"_bootstrap_python", "Programs/_freeze_module"} <= set(kept)


def test_a_trained_interpreter_holds_its_small_modules_where_setup_says_how() -> None:
    assert "_json" in said("3.12", variant="optimized").builtin
    assert said("3.11", variant="optimized").builtin == ()
    assert not {"_ssl", "_ctypes", "_sqlite3"} & set(said(variant="optimized").builtin)


def test_only_an_interpreter_of_one_piece_lies_at_a_fixed_address() -> None:
    assert "-no-pie" in text(said(variant="optimized").compile)
    for options in ({"variant": "plain"}, {"variant": "optimized", "shared": True}):
        assert "-no-pie" not in text(said(**options).compile)


def test_the_practice_is_a_program_that_the_counting_interpreter_runs() -> None:
    practice = said(variant="optimized").practice
    assert practice[:4] == ("setarch", "-R", "./python", "-c")
    compile(practice[4], "practice", "exec")
    assert len(practice[4]) < 128 << 10  # the longest argument that Linux takes (MAX_ARG_STRLEN)


def test_the_training_is_serial_at_fixed_addresses() -> None:
    train = said(variant="optimized").train
    assert train[:5] == ("setarch", "-R", "./python", "-m", "test")
    assert not any(word.startswith("-j") for word in train)


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.14"])
def test_a_parallel_training_says_so_before_the_first_test(version: str) -> None:
    """2.7 takes every word after the first test for a test."""
    serial, parallel = (said(version, variant="optimized", training=how).train for how in ("serial", "parallel"))
    first = next(place for place, word in enumerate(parallel) if word.startswith("test_"))
    assert "-j0" in parallel[:first]
    assert tuple(word for word in parallel if word != "-j0") == serial


def test_tests_are_left_out_of_the_training_by_name() -> None:
    every = said(variant="optimized").train
    fewer = said(variant="optimized", train_without=("test_json", "test_re")).train
    assert set(every) - set(fewer) == {"test_json", "test_re"}
    with pytest.raises(RecipeError, match="test_jsn is not a test of the training") as caught:
        said(variant="optimized", train_without=("test_jsn",))
    assert caught.value.hint == "did you mean test_json?"


def test_a_shared_library_is_found_while_training_and_in_the_image() -> None:
    made = said(variant="optimized", shared=True)
    assert "--enable-shared" in made.configure
    assert "--disable-shared" not in made.configure
    assert made.train[:5] == ("setarch", "-R", "env", "LD_LIBRARY_PATH=/build", "./python")
    assert "-Wl,-rpath,/usr/local/lib" in text(made.compile)
    assert "--disable-shared" in said().configure


def test_clang_counts_into_files_of_their_own_and_links_thin_objects_with_its_own_tools() -> None:
    made = said(variant="optimized-lto", compiler="clang", shared=True)
    for command in (made.train, made.practice):
        assert command[:6] == (
            *("setarch", "-R", "env", "LD_LIBRARY_PATH=/build"),
            *("LLVM_PROFILE_FILE=/build/code-%m.profclangr", "./python"),
        )
    given = variables(made.compile)
    assert given == variables(made.install)
    assert "-flto=thin" in given["CFLAGS_NODIST"]
    assert "-fuse-ld=lld" not in given["CFLAGS_NODIST"]
    assert {"-flto=thin", "-fuse-ld=lld"} <= set(given["LDFLAGS_NODIST"].split())
    assert given["AR"] == "llvm-ar"
    for other in (made.instrument, said(variant="optimized", compiler="clang").compile, said(compiler="clang").compile):
        assert "AR" not in variables(other)
        assert "lld" not in text(other)


@pytest.mark.parametrize(
    ("version", "options", "argument"),
    [
        ("3.13", {"free_threaded": True}, "--disable-gil"),
        ("3.14", {"jit": True}, "--enable-experimental-jit=yes"),
        ("3.14", {"compiler": "clang"}, "--with-tail-call-interp"),
        ("3.13", {"compiler": "clang"}, "CC=clang"),
        ("2.7", {}, "--enable-unicode=ucs4"),
        ("3.14", {}, "CXX=g++"),
    ],
)
def test_options_become_configures(version: str, options: dict[str, object], argument: str) -> None:
    assert any(word.startswith(argument) for word in said(version, **options).configure)


def test_an_option_that_a_line_does_not_know_is_not_given() -> None:
    assert "--with-tail-call-interp" not in said("3.13", compiler="clang").configure
    assert "--without-static-libpython" not in said("3.9").configure


@pytest.mark.parametrize(
    ("version", "options", "message", "hint"),
    [
        ("3.11", {"free_threaded": True}, "CPython 3.11 has no free_threaded", "3.13"),
        ("3.12", {"free_threaded": True}, "CPython 3.12 has no free_threaded", "3.13"),
        ("3.13", {"jit": True}, "CPython 3.13 has no jit", "3.14"),
        ("2.7", {"jit": True}, "CPython 2.7 has no jit", "3.14"),
        ("3.14", {"jit": True, "free_threaded": True}, "no JIT without the GIL", "not both"),
        ("2.7", {"compiler": "clang"}, "built with gcc only", "gcc"),
        ("3.14", {"variant": "fast"}, "unknown variant: fast", "plain, optimized, optimized-lto"),
    ],
)
def test_what_a_version_cannot_do_is_refused(version: str, options: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        said(version, **options)
    assert hint in (caught.value.hint or "")


def test_a_recipes_arguments_come_last() -> None:
    assert said(configure=("--with-dtrace",)).configure == (*said().configure, "--with-dtrace")


@pytest.mark.parametrize(
    "argument",
    [
        *("--prefix=/opt", "--enable-shared", "--disable-shared", "--with-lto", "--with-lto=thin", "CC=tcc"),
        *("--enable-optimizations", "--disable-gil", "--enable-experimental-jit=yes", "--with-ensurepip"),
        "CFLAGS_NODIST=-O1",
    ],
)
def test_arguments_that_would_undo_the_design_are_refused(argument: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(argument)) as caught:
        said(configure=("--with-dtrace", argument))
    assert caught.value.because


def test_the_environment_is_complete_and_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    environment = flags.environment(1780000000)
    assert environment["SOURCE_DATE_EPOCH"] == "1780000000"
    assert (environment["PYTHONHASHSEED"], environment["TZ"], environment["LC_ALL"]) == ("0", "UTC", "C.UTF-8")
    assert "CFLAGS" not in environment
    assert environment["ac_cv_broken_nice"] == "no"


def test_an_llvm_is_called_by_its_plain_names() -> None:
    assert flags.environment(0)["PATH"] == "/usr/bin:/bin"
    assert flags.environment(0, llvm="19")["PATH"] == "/usr/lib/llvm-19/bin:/usr/bin:/bin"


def test_jobs_are_in_no_command_but_added_when_it_is_run() -> None:
    made = said(variant="optimized-lto")
    for command in (made.freeze, made.instrument, made.compile, made.install):
        assert not any(word.startswith("-j") for word in command)
    assert flags.with_jobs(("make", "all"), 3) == ("make", "-j3", "all")
