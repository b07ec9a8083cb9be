"""Attest: the documents of an image that a recipe built: two SBOMs and its provenance, as artifacts in the store.

Law: made once for an image, a recipe and a lock, and kept in the store under a key of these; what makes documents is
imported only then. The image is never changed. What a format says is its own module's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec

from builder.finding import stored_image
from builder.images import OpenedImage, open_found
from builder.lock import Lock
from builder.oci.descriptor import Descriptor
from builder.plan import make_plan
from builder.recipe import Recipe
from builder.tools import Tools
from builder.trust.attach import PREDICATE_TYPE, Document, artifact, is_whole
from builder.version import VERSION
from rootfs.digest import Digest, canonical_json
from rootfs.ports import Origin, Store, read_blob

FORMATS = ("spdx", "cyclonedx")
_REVISION = 2  # raise it when the documents come to say something else


def attest(
    image: Descriptor, at: str, recipe: Recipe, lock: Lock, tools: Tools, *, overrides: Sequence[str] = ()
) -> tuple[Descriptor, ...]:
    """Have the artifacts of an image of the store there, too; `at` is what the user calls it."""
    question = {
        "kind": "attest",
        "revision": _REVISION,
        "version": VERSION,
        "manifest": str(image.digest),
        "recipe": str(recipe.digest),
        "overrides": list(overrides),
        "lock": str(Digest.of(msgspec.json.encode(lock))),
    }
    key = Digest.of_value(question)
    kept = _kept(key, tools.store)
    if kept is not None:
        return kept
    task = "describe the image"
    tools.reporter.begin(task)
    documents = _documents(open_found(stored_image(image, tools.store, at), tools), recipe, lock, tools, overrides)
    made = tuple(artifact(one, image, tools.store, created=lock.epoch) for one in documents)
    kept_as = tools.store.put([canonical_json([one.to_dict() for one in made])]).digest
    tools.store.link(key, kept_as, Origin(kind="attest", title=at))
    tools.reporter.finish(task)
    return made


def sbom(image: OpenedImage, name: str, format_: str, store: Store, *, lock: Lock | None, files: bool) -> Document:
    """An SBOM of any image, in one of FORMATS; LockError when the lock is not the image's."""
    from builder.trust.survey import Surveyed, survey  # noqa: PLC0415 (a cached run needs none of it)

    surveyed = Surveyed(
        name=name,
        digest=image.descriptor.digest,
        created=image.config.created,
        architecture=image.config.platform.architecture,
        environment=image.environment,
        tree=image.tree,
    )
    contents = survey(surveyed, store, lock=lock, files=files)
    if format_ == "spdx":
        from builder.trust import spdx  # noqa: PLC0415

        return Document(media_type=spdx.MEDIA_TYPE, file_name=f"{name}.spdx.json", data=spdx.spdx(contents))
    from builder.trust import cyclonedx  # noqa: PLC0415

    data = cyclonedx.cyclonedx(contents)
    return Document(media_type=cyclonedx.MEDIA_TYPE, file_name=f"{name}.cdx.json", data=data)


def _documents(
    image: OpenedImage, recipe: Recipe, lock: Lock, tools: Tools, overrides: Sequence[str]
) -> Iterator[Document]:
    from builder.trust.provenance import MEDIA_TYPE, PREDICATE, provenance  # noqa: PLC0415

    for format_ in FORMATS:
        yield sbom(image, recipe.name, format_, tools.store, lock=lock, files=False)
    yield Document(
        media_type=MEDIA_TYPE,
        file_name=f"{recipe.name}.provenance.json",
        data=provenance(image.descriptor.digest, recipe, lock, make_plan(recipe, lock), overrides),
        annotations={PREDICATE_TYPE: PREDICATE},
    )


def _kept(key: Digest, store: Store) -> tuple[Descriptor, ...] | None:
    """What was made before, if all of it is still there."""
    found = store.lookup(key)
    if found is None:
        return None
    made = tuple(Descriptor.from_dict(value) for value in json.loads(read_blob(store, found)))
    return made if is_whole(made, store) else None
