"""What our own build leaves in sysconfig, taken out: extensions built later must not see it.

Law: text in, text out, on the files that hold CPython's build variables. Profile, link-time optimisation and stripping
are ours; the directory it was built in exists in no image (bpo-36235, Debian's and Fedora's packages do the like).
"""

from __future__ import annotations

import re
from pathlib import Path

_OURS = re.compile(
    r" ?(?:-Wl,(?:--strip-all|-z,now|-q)|-fuse-linker-plugin|-f(?:no-)?fat-lto-objects|-Wno-missing-profile|-no-pie"
    r"|-fno-(?:pie|plt|gcse|crossjumping|tree-tail-merge|reorder-blocks-and-partition)"
    r"|-f(?:lto|profile|random-seed|no-semantic-interposition)(?:[-=][^\s'\"]*)?)(?![\w-])"
)
# A path from the root, also behind -I and -L; not the Tools/build of CPython's own tree.
_BUILD = re.compile(r"(?:(?<=-[IL])|(?<![\w.]))/build(?=[/'\" ])")


def clean_sysconfig(library: Path) -> None:
    """Rewrite the build variables below lib/python3.*: the module, and from 3.14 on the JSON beside it."""
    for path in (*library.glob("_sysconfigdata*.py"), *library.glob("_sysconfig_vars*.json")):
        path.write_text(cleaned(path.read_text(), f"/usr/local/lib/{library.name}/config"))


def cleaned(text: str, instead: str) -> str:
    """The variables without our flags; `instead` stands for the directory of the build."""
    return _BUILD.sub(instead, _OURS.sub("", text))
