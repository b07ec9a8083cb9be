"""Scenarios of pushing when something breaks, and of secrets.

Sources: `DS` is the distribution-spec 1.1, `IS` the image-spec 1.1; the others are threads of those whom it befell.
"""

from __future__ import annotations

from tests.conformance.checks import (
    arrives,
    arrives_without_telling,
    once,
    refused,
    refused_without_telling,
    sent_at_most,
    waited,
)
from tests.conformance.scenario import ALL, DECILES, HERE, MANIFEST, QUIET, SAFE, UPLOAD, Scenario, at
from tests.peers.quirky import Fault, Quirks

WARNING = "this registry closes in May"

PUSHING_FAULTS = (
    Scenario(
        name="upload is cut",
        source="ggcr#1448; skopeo#2419",
        does="lets a body break off at each tenth, once; what came is kept",
        holds=ALL,
        check=arrives,
        quirks=at(*(Fault(on=UPLOAD, do="cut", at=share) for share in DECILES)),
    ),
    Scenario(
        name="upload is cut, and lost",
        source="zot routes.go",
        does="lets a body break off in the middle, and forgets the session",
        holds=ALL,
        check=arrives,
        quirks=at(Fault(on=UPLOAD, do="cut"), keeps_cut=False),
    ),
    Scenario(
        name="every upload is cut",
        source="moby#27623; RC#295",
        does="lets no body come further than 15 %; what came is kept",
        holds=f"{ALL}; at most twice the bytes were sent",
        check=sent_at_most(2),
        quirks=at(Fault(on=UPLOAD, do="cut", at=0.15, times=0)),
    ),
    Scenario(
        name="upload is reset",
        source="issue 6",
        does="resets the connection of an upload, once",
        holds=ALL,
        check=arrives,
        quirks=at(Fault(on=UPLOAD, do="reset")),
    ),
    Scenario(
        name="answer to an upload is lost",
        source="DS pushing blobs (416, GET)",
        does="takes a body, then closes the connection without a word",
        holds=ALL,
        check=arrives,
        sample="big",
        quirks=at(Fault(on=UPLOAD, do="swallow")),
    ),
    Scenario(
        name="stale _state",
        source="distribution 2.8, blobupload.go",
        does="loses an answer, and then ends the session when the old Location is used",
        holds=ALL,
        check=arrives,
        sample="big",
        quirks=at(Fault(on=UPLOAD, do="swallow"), strict=True),
    ),
    Scenario(
        name="session is lost",
        source="zot; moby#42615",
        does="answers 404 to the upload's next request, once",
        holds=ALL,
        check=arrives,
        quirks=at(Fault(on=UPLOAD, do="lose")),
    ),
    Scenario(
        name="answer to a manifest is lost",
        source="issue 6",
        does="takes the manifest, then closes the connection",
        holds=ALL,
        check=arrives,
        quirks=at(Fault(on=MANIFEST, do="swallow")),
    ),
    Scenario(
        name="storm while pushing",
        source="skopeo#1009; DS error codes",
        does="answers one of each kind of request with 500, 502, 503, or 504",
        holds=ALL,
        check=arrives,
        quirks=tuple(
            Quirks(
                faults=(
                    Fault(on="^HEAD .*/blobs/", status=status),
                    Fault(on="^POST .*/uploads/", status=status),
                    Fault(on=UPLOAD, status=status),
                    Fault(on=MANIFEST, status=status),
                )
            )
            for status in (500, 502, 503, 504)
        ),
    ),
    Scenario(
        name="429",
        source="containers/common#2494 (ACR)",
        does="answers a manifest's PUT with 429, once",
        holds=ALL,
        check=arrives,
        quirks=at(Fault(on=MANIFEST, status=429)),
    ),
    Scenario(
        name="429 with Retry-After in seconds",
        source="RFC 9110, 10.2.3",
        does="answers 429 and Retry-After: 3",
        holds=f"{ALL}; nobody came back before that",
        check=waited(3),
        quirks=at(Fault(on=MANIFEST, status=429, headers={"Retry-After": "3"})),
    ),
    Scenario(
        name="429 with Retry-After as a date",
        source="RFC 9110, 10.2.3",
        does="answers 429 and a date that is in 4 s",
        holds=f"{ALL}; nobody came back 3 s before that",
        check=waited(3),
        quirks=at(Fault(on=MANIFEST, status=429, headers={"Retry-After": "@4"})),
    ),
    Scenario(
        name="403 is final",
        source="DS error codes",
        does="answers a manifest's PUT with 403",
        holds=SAFE,
        check=refused,
        quirks=at(Fault(on=MANIFEST, status=403, times=0)),
    ),
    Scenario(
        name="warning",
        source="DS warnings",
        does="sends Warning: 299 with every answer",
        holds="it is shown once",
        check=once(WARNING),
        quirks=(Quirks(warning=WARNING),),
    ),
)

SECRETS = (
    Scenario(
        name="Basic",
        source="RFC 7617",
        does="wants a user and a password",
        holds=f"{ALL}; no secret is printed, in a URL, or in a file",
        check=arrives,
        login=True,
        quirks=(Quirks(realm="basic"),),
    ),
    Scenario(
        name="token",
        source="distribution token.md",
        does="sends everybody to its token server",
        holds=f"{ALL}; no secret is printed, in a URL, or in a file",
        check=arrives,
        login=True,
        quirks=(Quirks(realm="own"),),
    ),
    Scenario(
        name="token ends during an upload",
        source="moby#33558; buildx#324; jib#691",
        does="answers 401 to an upload's body, once: the token is over",
        holds=ALL,
        check=arrives,
        login=True,
        quirks=at(Fault(on=UPLOAD, do="revoke"), realm="own"),
    ),
    Scenario(
        name="foreign realm",
        source="CVE-2020-15157; ggcr#2258",
        does="names a token server on another host, of which nobody was told",
        holds=QUIET,
        check=refused_without_telling,
        login=True,
        quirks=(Quirks(realm="elsewhere"),),
    ),
    Scenario(
        name="Location on another host",
        source="DS HEAD, redirects",
        does="has uploads go to another host",
        holds=f"{ALL}; {QUIET}",
        check=arrives_without_telling,
        login=True,
        quirks=(Quirks(location="elsewhere", realm="own"),),
    ),
    Scenario(
        name="redirect to another host",
        source="DS HEAD, redirects",
        does="has its blobs in an object store, which takes no Authorization",
        holds=f"{HERE}; {QUIET}",
        check=arrives_without_telling,
        task="pull",
        login=True,
        quirks=(Quirks(redirects="elsewhere", realm="own"),),
    ),
    Scenario(
        name="Location leaves https",
        source="oras-go 2.6.1",
        does="sends, from https, an upload to plain http",
        holds=f"{SAFE}; nothing went over plain http",
        check=refused_without_telling,
        quirks=(Quirks(location="downgrade", tls=True),),
    ),
    Scenario(
        name="redirect leaves https",
        source="oras-go 2.6.1",
        does="sends, from https, a download to plain http",
        holds=f"{SAFE}; nothing went over plain http",
        check=refused_without_telling,
        task="pull",
        quirks=(Quirks(redirects="plain", tls=True),),
    ),
)
