"""The peers' word on mutated, rebased and indexed images: skopeo, umoci, podman, crane and regctl."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.cli import run as verb
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from rootfs.architecture import Architecture
from rootfs.store import DiskStore
from rootfs.tree import Tree, directory, file
from tests.integration.test_oci_layout import program as program  # noqa: PLC0414 (a fixture)
from tests.peers.registry import registry

pytestmark = pytest.mark.peer

HOST = Platform.of(Architecture.host())
Peer = Callable[[str], str]


def run(*argv: str | Path) -> str:
    """What a program prints; the test fails with what it said when it fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def ocibuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb in this process, with a store and a directory of its own; its stdout."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str, status: int = 0) -> str:
        name, *rest = argv
        got = verb([name, "--store", str(tmp_path / "used"), *rest])
        said = capsys.readouterr()
        assert got == status, said.err
        return said.err if status else said.out.strip()

    return call


@pytest.fixture
def images(program: bytes, tmp_path: Path) -> dict[str, Image]:
    """Layouts old, new, app (old and one more layer) and arm, in the current directory."""
    store = DiskStore(tmp_path / "made")
    base = Tree(
        [directory("bin"), directory("etc"), directory("proc"), directory("dev"), file("bin/main", program, 0o755)]
    )
    layers = {
        name: pack(tree, store, created_by=name, epoch=0, lowest=name != "app")
        for name, tree in {
            "old": base.with_entries([file("etc/greeting", b"old\n")]),
            "new": base.with_entries([file("etc/greeting", b"new\n")]),
            "app": Tree([directory("srv"), file("srv/app", b"app\n")]),
        }.items()
    }
    env = {"old": ("PATH=/bin", "GREETING=old"), "new": ("PATH=/bin", "GREETING=new")}
    env |= {"app": (*env["old"], "APP=1"), "arm": env["old"]}
    made = {}
    for name in ("old", "new", "app", "arm"):
        own = [layers["old"], layers["app"]] if name == "app" else [layers["new" if name == "new" else "old"]]
        platform = Platform(architecture="arm64", variant="v8") if name == "arm" else HOST
        config = ImageConfig(
            platform=platform, created=0, env=env[name], entrypoint=("/bin/main",), cmd=("/etc/greeting",)
        )
        made[name] = assemble(own, config)
        for document in (made[name].config, made[name].manifest):
            store.put([document])
        write_layout(tmp_path / name, store, made[name].descriptor, ref_name="x")
    return made


@pytest.fixture
def host(peer: Peer, tmp_path: Path) -> Iterator[str]:
    """A registry that speaks plain http."""
    with registry(peer("docker-registry"), tmp_path / "registry") as name:
        yield name


def test_skopeo_and_umoci_see_what_was_changed(
    ocibuild: Callable[..., str], images: dict[str, Image], peer: Peer, tmp_path: Path
) -> None:
    ocibuild("mutate", "app", "-o", "oci:changed:y", "--env", "HELLO=world", "--user", "7:8", "--expose", "80")
    seen = json.loads(run(peer("skopeo"), "inspect", "--config", f"oci:{tmp_path}/changed:y"))
    assert "HELLO=world" in seen["config"]["Env"]
    assert (seen["config"]["User"], seen["config"]["ExposedPorts"]) == ("7:8", {"80/tcp": {}})
    assert len(seen["rootfs"]["diff_ids"]) == len(images["app"].layers)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{tmp_path}/changed:y", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/srv/app").read_bytes() == b"app\n"
    process = json.loads((tmp_path / "bundle/config.json").read_text())["process"]
    assert "HELLO=world" in process["env"]


@pytest.mark.usefixtures("images")
def test_podman_runs_a_rebased_image(ocibuild: Callable[..., str], peer: Peer, tmp_path: Path) -> None:
    ocibuild("mutate", "app", "-o", "oci:moved:y", "--rebase-from", "old", "--rebase-onto", "new", "--workdir", "/srv")
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    podman = [peer("podman"), "--runtime", peer("runc"), "run", "--rm", "--quiet", "--network=none", *limits]
    assert run(*podman, f"oci:{tmp_path}/moved:y") == "new\nnew 0 /srv"


def test_crane_rebases_to_the_same_layers(
    ocibuild: Callable[..., str], images: dict[str, Image], peer: Peer, host: str
) -> None:
    crane = [peer("crane"), "--insecure"]
    for name in ("old", "new", "app"):
        run(peer("skopeo"), "copy", "--dest-tls-verify=false", f"oci:{name}:x", f"docker://{host}/apps:{name}")
    bases = [f"{host}/apps:{name}" for name in ("old", "new")]
    theirs = [word for pair in zip(("--old_base", "--new_base"), bases, strict=True) for word in pair]
    run(*crane, "rebase", f"{host}/apps:app", *theirs, "--tag", f"{host}/apps:theirs")
    own = [word for pair in zip(("--rebase-from", "--rebase-onto"), bases, strict=True) for word in pair]
    ocibuild("mutate", f"{host}/apps:app", "--push", f"{host}/apps:ours", "--plain-http", *own)
    run(*crane, "validate", "--remote", f"{host}/apps:ours")
    one, two = (json.loads(run(*crane, "manifest", f"{host}/apps:{tag}")) for tag in ("ours", "theirs"))
    assert [layer["digest"] for layer in one["layers"]] == [layer["digest"] for layer in two["layers"]]
    configs = [json.loads(run(*crane, "config", f"{host}/apps:{tag}")) for tag in ("ours", "theirs")]
    assert configs[0]["rootfs"] == configs[1]["rootfs"]
    assert one["annotations"]["org.opencontainers.image.base.name"] == f"{host}/apps:new"
    assert one["annotations"]["org.opencontainers.image.base.digest"] == str(images["new"].descriptor.digest)
    # the base is known by now: back again without naming it
    again = ocibuild(
        "mutate", f"{host}/apps:ours", "--push", f"{host}/apps:back", "--plain-http", "--rebase-onto", bases[0]
    )
    assert again.startswith(f"{host}/apps@sha256:")
    back = json.loads(run(*crane, "config", f"{host}/apps:back"))
    assert back == json.loads(images["app"].config)


@pytest.mark.usefixtures("images")
def test_crane_sets_the_same_config(ocibuild: Callable[..., str], peer: Peer, host: str) -> None:
    crane = [peer("crane"), "--insecure"]
    run(peer("skopeo"), "copy", "--dest-tls-verify=false", "oci:app:x", f"docker://{host}/apps:app")
    words = ["--env", "HELLO=world", "--label", "l=v", "--user", "7", "--workdir", "/srv"]
    run(*crane, "mutate", f"{host}/apps:app", *words, "--tag", f"{host}/apps:theirs")
    ocibuild("mutate", f"{host}/apps:app", *words, "--push", f"{host}/apps:ours", "--plain-http")
    one, two = (json.loads(run(*crane, "config", f"{host}/apps:{tag}"))["config"] for tag in ("ours", "theirs"))
    assert {**one, "Env": sorted(one["Env"])} == {**two, "Env": sorted(two["Env"])}


def test_an_index_of_two_platforms_is_one_to_others(
    ocibuild: Callable[..., str], images: dict[str, Image], peer: Peer, host: str, tmp_path: Path
) -> None:
    if HOST.architecture == "arm64":
        pytest.skip("needs a host of another platform than arm64")
    line = ocibuild("index", "arm", "old", "-o", "oci:both:y", "--push", f"{host}/apps:both", "--plain-http")
    digest = line.splitlines()[0].rpartition("@")[2]
    assert line.splitlines()[1] == f"{host}/apps@{digest}"
    for architecture, name in (("arm64", "arm"), (HOST.architecture, "old")):
        choose = ["--override-arch", architecture, *(["--override-variant", "v8"] if name == "arm" else [])]
        seen = json.loads(run(peer("skopeo"), *choose, "inspect", f"oci:{tmp_path}/both:y"))
        assert seen["Architecture"] == architecture
    assert run(peer("crane"), "--insecure", "digest", f"{host}/apps:both").strip() == digest
    own = run(peer("crane"), "--insecure", "digest", "--platform", "linux/arm64/v8", f"{host}/apps:both").strip()
    assert own == str(images["arm"].descriptor.digest)
    regctl = peer("regctl")
    listed = run(
        regctl, "--host", f"reg={host},tls=disabled", "manifest", "get", f"{host}/apps:both", "--format", "raw-body"
    )
    assert [one["platform"]["architecture"] for one in json.loads(listed)["manifests"]] == [HOST.architecture, "arm64"]
    chosen = ocibuild("mutate", "both", "--platform", "linux/arm64", "-o", "oci:one:y", "--env", "A=1")
    assert chosen.startswith("one:y@")
    both = ocibuild("mutate", "both", "-o", "oci:all:y", "--env", "A=1")
    run(peer("skopeo"), "copy", "--all", f"oci:{tmp_path}/all:y", f"oci:{tmp_path}/copied:y")
    index = json.loads((tmp_path / "copied/index.json").read_text())["manifests"][0]["digest"]
    assert index == both.rpartition("@")[2]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mutate", "app"], "nowhere to put the image"),
        (["mutate", "app", "-o", "oci:o", "--env", "X"], "is no NAME=VALUE"),
        (["mutate", "app", "-o", "oci:o", "--env", "=X"], "is no NAME=VALUE"),
        (["mutate", "app", "-o", "oci:o", "--env", "A=1", "--env", "A=2"], "twice"),
        (["mutate", "app", "-o", "oci:o", "--unset-env", "A=1"], "is no name"),
        (["mutate", "app", "-o", "oci:o", "--annotation", "org.opencontainers.image.created=now"], "RFC 3339"),
        (["mutate", "app", "-o", "oci:o", "--expose", "70000"], "not a port"),
        (["mutate", "app", "-o", "oci:o", "--expose", "80/http"], "not a port"),
        (["mutate", "app", "-o", "oci:o", "--volume", "data"], "not an absolute path"),
        (["mutate", "app", "-o", "oci:o", "--workdir", "srv"], "not an absolute path"),
        (["mutate", "app", "-o", "oci:o", "--user", "a b"], "holds spaces"),
        (["mutate", "app", "-o", "oci:o", "--entrypoint", "a 'b"], "cannot be read"),
        (["mutate", "app", "-o", "oci:o", "--cmd", "[1]"], "cannot be read"),
        (["mutate", "app", "-o", "oci:o", "--cmd", "[1"], "cannot be read"),
        (["mutate", "app", "-o", "oci:o", "--stop-signal", "TERM"], "not a signal"),
        (["mutate", "app", "-o", "oci:o", "--created", "2026-01-01"], "not a time"),
        (["mutate", "app", "-o", "oci:o", "--platform", "linux/s390x"], "no image for linux/s390x"),
        (["mutate", "app", "-o", "oci:o", "--rebase-from", "old"], "without --rebase-onto"),
        (["mutate", "app", "-o", "oci:o", "--rebase-onto", "new"], "does not say its base"),
        (["mutate", "app", "-o", "oci:o", "--rebase-from", "new", "--rebase-onto", "old"], "layer 1 of 1 differs"),
        (["mutate", "app", "--push", "localhost:1/a"], "no tag to push to"),
        (["mutate", "nothing", "-o", "oci:o"], "no such image"),
        (["index", "app", "old", "-o", "oci:o"], "two images for linux"),
        (["index", "app", "-o", "oci:o", "--annotation", "org.opencontainers.image.nam=x"], "no such name"),
    ],
)
@pytest.mark.usefixtures("images")
def test_what_cannot_be_meant_is_a_usage_error(
    ocibuild: Callable[..., str], argv: list[str], message: str, tmp_path: Path
) -> None:
    assert message in ocibuild(*argv, status=2)
    assert not (tmp_path / "o").exists()
