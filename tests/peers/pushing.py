"""A program that pushes or pulls one blob, to be killed: VERB STORE HOST/REPOSITORY DIGEST SIZE.

It prints what became of the blob and the most memory the process ever had, in KiB.
"""

from __future__ import annotations

import sys
from pathlib import Path

from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.reference import Reference
from rootfs.digest import Digest
from rootfs.ports import Upload
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport


def peak() -> int:
    """KiB of this program alone (proc(5), VmHWM): ru_maxrss carries over what its parent had when it was started."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main(verb: str, place: str, reference: str, digest: str, size: str) -> None:
    store = DiskStore(Path(place))
    blob = Descriptor(media_type=LAYER_TAR, digest=Digest.parse(digest), size=int(size))
    with HttpTransport() as transport:
        journal = Journal(store.root / "registries")
        registry = Registry(transport, Reference.parse(reference), plain_http=True, journal=journal)
        if verb == "push":
            pushed = registry.upload(blob, Upload(open=lambda: store.open(blob.digest), size=blob.size))
            print(pushed.action, pushed.resumed, peak())
        else:
            registry.fetch(blob, store)
            print("fetched", 0, peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
