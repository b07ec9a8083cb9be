"""A registry in memory with a knob for each quirk that real ones have: distribution-spec 1.1 with referrers and tokens.

Law: knows requests and answers, and no sockets (`quirkyserver` has those). What it was asked is kept in `seen`, for the
checks of a scenario. Each knob's default is what the specification asks for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, quote

from tests.peers.registry import PASSWORD, USER

INDEX = "application/vnd.oci.image.index.v1+json"
ELSEWHERE = "elsewhere.example"
_FALLBACK = re.compile(r"sha256-[0-9a-f]{64}\Z")
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

_ROUTES = tuple(
    (re.compile(f"(?:{method}) {path}\\Z"), name)
    for method, path, name in (
        ("GET", "/v2/", "_base"),
        ("GET|POST", "/token", "_token"),
        ("POST", "/v2/(?P<repo>.+)/blobs/uploads/", "_begin"),
        ("GET|PATCH|PUT|DELETE", "/v2/(?P<repo>.+)/blobs/uploads/(?P<name>[^/]+)", "_session"),
        ("GET|PATCH|PUT|DELETE", "/far/upload/(?P<name>[^/]+)", "_session"),
        ("GET|HEAD", "/v2/(?P<repo>.+)/blobs/(?P<name>[^/]+)", "_blob"),
        ("GET|HEAD", "/far/blob/(?P<name>[^/]+)", "_far_blob"),
        ("GET|HEAD", "/v2/(?P<repo>.+)/manifests/(?P<name>[^/]+)", "_manifest"),
        ("PUT", "/v2/(?P<repo>.+)/manifests/(?P<name>[^/]+)", "_put_manifest"),
        ("GET", "/v2/(?P<repo>.+)/tags/list", "_tags"),
        ("GET", "/v2/(?P<repo>.+)/referrers/(?P<name>[^/]+)", "_referrers"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls requests whose `METHOD path?query` the expression `on` finds: after `skip` of them `times` (0: all).

    `do`: `answer` (with `status`, `headers`, `body`); `drop` the connection, or `reset` it; `cut` the body of the
    request or of the answer after the share `at` of the largest blob; `wrong`, `short` and `long` bodies of answers;
    `slow` ones; `lose` all upload sessions, or `revoke` all tokens, before it goes on as always; `swallow` the answer.
    A header `Retry-After: @2` is sent as the date that is in two seconds.
    """

    on: str
    do: str = "answer"
    times: int = 1
    skip: int = 0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    at: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """The knobs. Sizes are bytes; statuses those of HTTP.

    `location`: relative, absolute, query, elsewhere (another host), or downgrade (plain http). `patches`: how many an
    upload may have; `drops_from`: the number of the one from which on they are dropped without a word; `patch_limit`:
    the largest with a Content-Range. `strict`: a Location whose `_state` is old ends the session (distribution 2.8).
    `keeps_cut`: what came of a body that broke off counts. `realm`: "" (nobody is asked who he is), basic, own, or
    elsewhere. `redirects`: the listener that has the blobs. `page`: tags in one answer. `race`: another writer's index
    replaces the first that is put under a fallback tag. `lenient`: manifests are taken before what they point to.
    """

    faults: tuple[Fault, ...] = ()
    location: str = "relative"
    patch_status: int = 202
    drops_from: int = 0
    patches: int | None = None
    patch_limit: int = 0
    body_limit: int = 0
    minimum: int = 0
    strict: bool = False
    keeps_cut: bool = True
    single_post: bool = True
    mount_status: int = 201
    anonymous_status: int = 202
    realm: str = ""
    lifetime: int = 300
    referrers: bool = True
    race: bool = False
    page: int = 0
    head_length: bool = True
    lengths: bool = True
    ranges: bool = True
    content_digest: str = "right"
    redirects: str = ""
    warning: str = ""
    lenient: bool = False
    manifest_limit: int = 4 << 20
    tls: bool = False


@dataclass(kw_only=True)
class Exchange:
    """A request as it came to a listener (`registry`, `elsewhere` or `plain`), and what became of it.

    `read` takes the request's body piece by piece; ConnectionError when it breaks off.
    """

    listener: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    read: Callable[[], bytes] = field(repr=False)
    status: int = 0
    received: int = 0
    sent: int = 0
    at: float = field(default_factory=time.monotonic)
    fault: Fault | None = None

    @property
    def line(self) -> str:
        """Method, path and query."""
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query}"


@dataclass(kw_only=True)
class Answer:
    """What goes back; `sized` is whether its Content-Length is told."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sized: bool = True


@dataclass(kw_only=True)
class Upload:
    """An upload session: the bytes so far, and the query its Location had last."""

    repository: str
    data: bytearray = field(default_factory=bytearray)
    query: str = ""
    patches: int = 0


class Quirky:
    """The registry; `address` gives the origin of each listener, once they are there."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        self.quirks = quirks or Quirks()
        self.address: dict[str, str] = {}
        self.seen: list[Exchange] = []
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.early_tags: list[str] = []
        self.sessions: dict[str, Upload] = {}
        self.cancelled = 0
        self.granted: list[str] = []
        self.tokens: set[str] = set()
        self.warned = 0
        self.size = 1
        self.befallen = [0] * len(self.quirks.faults)
        self._raced = False
        self._lock = threading.RLock()

    def fault(self, exchange: Exchange) -> Fault | None:
        """What befalls this request."""
        with self._lock:
            self.seen.append(exchange)
            for number, fault in enumerate(self.quirks.faults):
                if re.search(fault.on, exchange.line):
                    past = self.befallen[number] - fault.skip + (fault.do != "cut")
                    self.befallen[number] += fault.do != "cut"
                    if (past > 0 or fault.do == "cut") and (not fault.times or past <= fault.times):
                        return fault
        return None

    def cut(self, fault: Fault) -> bool:
        """Whether a body breaks off now that is long enough for it."""
        with self._lock:
            number = self.quirks.faults.index(fault)
            self.befallen[number] += 1
            return not fault.times or self.befallen[number] <= fault.times

    def answer(self, exchange: Exchange) -> Answer:
        """What the specification and the knobs say."""
        if exchange.fault and exchange.fault.do == "lose":
            self.sessions.clear()
        if exchange.fault and exchange.fault.do == "revoke":
            self.tokens.clear()
        for pattern, name in _ROUTES:
            if found := pattern.match(f"{exchange.method} {exchange.path}"):
                answer: Answer = self._guard(exchange) or getattr(self, name)(exchange, **found.groupdict())
                if self.quirks.warning:
                    answer.headers["Warning"] = f'299 - "{self.quirks.warning}"'
                return answer
        return self._no(exchange, 404, "NAME_UNKNOWN")

    # Who may

    def _guard(self, exchange: Exchange) -> Answer | None:
        told = exchange.headers.get("authorization", "")
        if exchange.listener == "elsewhere" and exchange.path.startswith("/far/blob/") and told:
            return self._no(exchange, 400, "INVALID_ARGUMENT")  # object stores take one way to authenticate only
        if not self.quirks.realm or exchange.path == "/token" or exchange.path.startswith("/far/"):
            return None
        if self.quirks.realm == "basic":
            offer, good = 'Basic realm="quirky"', told == BASIC
        else:
            where = self.address["elsewhere" if self.quirks.realm == "elsewhere" else "registry"]
            scope = f"repository:{exchange.path[4:].rsplit('/', 2)[0]}:pull,push"
            offer = f'Bearer realm="{where}/token",service="quirky",scope="{scope}"'
            good = told.removeprefix("Bearer ") in self.tokens
        if good:
            return None
        answer = self._no(exchange, 401, "UNAUTHORIZED")
        answer.headers["WWW-Authenticate"] = offer
        return answer

    def _token(self, exchange: Exchange) -> Answer:
        body = _all(exchange)
        form = parse_qs(body.decode("latin-1"))
        if exchange.headers.get("authorization") != BASIC and form.get("password") != [PASSWORD]:
            return self._no(exchange, 401, "UNAUTHORIZED")
        token = f"quirky-{secrets.token_hex(16)}"
        self.tokens.add(token)
        self.granted.append(token)
        value = {"token": token, "access_token": token, "expires_in": self.quirks.lifetime}
        return Answer(status=200, body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _base(self, exchange: Exchange) -> Answer:
        headers = {"Docker-Distribution-API-Version": "registry/2.0", "Content-Type": "application/json"}
        return Answer(status=200, body=b"{}", headers=headers)

    # Blobs in

    def _begin(self, exchange: Exchange, repo: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(exchange.query).items()}
        if "mount" in query and (answer := self._mount(exchange, repo, query)):
            return answer
        name = secrets.token_hex(8)
        session = self.sessions[name] = Upload(repository=repo)
        if "digest" in query and self.quirks.single_post:
            return self._take(exchange, session) or self._finish(exchange, name, session, query["digest"])
        _all(exchange)
        extra = {"OCI-Chunk-Min-Length": str(self.quirks.minimum)} if self.quirks.minimum else {}
        return self._where(202, name, session, extra)

    def _mount(self, exchange: Exchange, repo: str, query: Mapping[str, str]) -> Answer | None:
        status = self.quirks.mount_status if "from" in query else self.quirks.anonymous_status
        there = [key for key in self.blobs if key[1] == query["mount"] and key[0] == query.get("from", key[0])]
        if status >= 400:
            return self._no(exchange, status, "UNSUPPORTED")
        if status != 201 or not there:
            return None
        self.blobs[repo, query["mount"]] = self.blobs[there[0]]
        place = f"/v2/{repo}/blobs/{query['mount']}"
        return Answer(status=201, headers={"Location": place, "Docker-Content-Digest": query["mount"]})

    def _session(self, exchange: Exchange, name: str, repo: str = "") -> Answer:
        session = self.sessions.get(name)
        if session is None:
            return self._no(exchange, 404, "BLOB_UPLOAD_UNKNOWN")
        wanted, told = (dict(parse_qsl(query, keep_blank_values=True)) for query in (session.query, exchange.query))
        if not self.quirks.strict:
            told["_state"] = wanted["_state"] if "_state" in told else ""
        if wanted != {key: value for key, value in told.items() if key != "digest"}:
            del self.sessions[name]
            return self._no(exchange, 400, "BLOB_UPLOAD_INVALID")
        match exchange.method:
            case "GET":
                return self._where(204, name, session)
            case "DELETE":
                del self.sessions[name]
                self.cancelled += 1
                return Answer(status=204)
            case "PATCH":
                return self._patch(exchange, name, session)
        refusal = self._take(exchange, session)
        return refusal or self._finish(exchange, name, session, parse_qs(exchange.query)["digest"][0])

    def _patch(self, exchange: Exchange, name: str, session: Upload) -> Answer:
        if session.patches == self.quirks.patches:
            return self._no(exchange, 405, "UNSUPPORTED")
        session.patches += 1
        if refusal := self._take(exchange, session):
            return refusal
        return self._where(self.quirks.patch_status, name, session)

    def _take(self, exchange: Exchange, session: Upload) -> Answer | None:
        """Append the request's body to the session, or say why not."""
        patch = exchange.method == "PATCH"
        dropped = patch and 0 < self.quirks.drops_from <= session.patches
        told = exchange.headers.get("content-range", "")
        start = len(session.data)
        if told and not dropped and not self.quirks.drops_from and int(told.split("-")[0]) != start:
            return self._no(exchange, 416, "RANGE_INVALID")
        came = bytearray()
        try:
            while piece := exchange.read():
                came += piece
        except ConnectionError:
            if self.quirks.keeps_cut:
                session.data += came
            else:
                self.sessions.pop(next((key for key, one in self.sessions.items() if one is session), ""), None)
            raise
        if self.quirks.body_limit and len(came) > self.quirks.body_limit:
            return self._no(exchange, 413, "SIZE_INVALID")
        if patch and told and self.quirks.patch_limit and len(came) > self.quirks.patch_limit:
            return self._no(exchange, 416, "RANGE_INVALID")
        if not dropped:
            session.data += came
        return None

    def _finish(self, exchange: Exchange, name: str, session: Upload, digest: str) -> Answer:
        del self.sessions[name]
        if digest_of(bytes(session.data), digest) != digest:
            return self._no(exchange, 400, "DIGEST_INVALID")
        self.blobs[session.repository, digest] = bytes(session.data)
        place = f"/v2/{session.repository}/blobs/{digest}"
        return Answer(status=201, headers={"Location": place, "Docker-Content-Digest": digest})

    def _where(self, status: int, name: str, session: Upload, extra: Mapping[str, str] | None = None) -> Answer:
        size = len(session.data)
        place = f"/v2/{session.repository}/blobs/uploads/{name}"
        session.query = f"_state={size}"
        match self.quirks.location:
            case "absolute":
                place = self.address["registry"] + place
            case "query":
                place = f"/far/upload/{name}"
                session.query = f"_state={size}&sig={quote('a/b+c==', safe='')}&X=%7E&empty=&upload_id={name}"
            case "elsewhere":
                place = f"{self.address['elsewhere']}/far/upload/{name}"
            case "downgrade":
                place = self.address["plain"] + place
        headers = {"Location": f"{place}?{session.query}", "Docker-Upload-UUID": name}
        return Answer(status=status, headers={**headers, "Range": f"0-{max(0, size - 1)}", **(extra or {})})

    # Blobs out

    def _blob(self, exchange: Exchange, repo: str, name: str) -> Answer:
        data = self.blobs.get((repo, name))
        if data is None:
            return self._no(exchange, 404, "BLOB_UNKNOWN")
        if self.quirks.redirects and exchange.method == "GET":
            place = f"{self.address[self.quirks.redirects]}/far/blob/{name}?sig=a%2Fb%3D"
            return Answer(status=307, headers={"Location": place})
        return self._body(exchange, data, {"Content-Type": "application/octet-stream"}, name)

    def _far_blob(self, exchange: Exchange, name: str) -> Answer:
        data = next((data for (_, digest), data in self.blobs.items() if digest == name), None)
        return self._no(exchange, 404, "NoSuchKey") if data is None else self._body(exchange, data, {}, name)

    def _body(self, exchange: Exchange, data: bytes, headers: dict[str, str], digest: str) -> Answer:
        """The bytes, or the range of them that is asked for."""
        if self.quirks.content_digest != "none":
            wrong = self.quirks.content_digest == "wrong"
            headers["Docker-Content-Digest"] = f"sha256:{'5' * 64}" if wrong else digest
        sized = self.quirks.head_length if exchange.method == "HEAD" else self.quirks.lengths
        told = re.match(r"bytes=(\d+)-(\d*)\Z", exchange.headers.get("range", ""))
        headers["ETag"] = f'"{digest}"'
        if told and self.quirks.ranges and exchange.method == "GET":
            start, end = int(told[1]), min(int(told[2] or len(data)), len(data) - 1)
            if start >= len(data):
                return self._no(exchange, 416, "RANGE_INVALID")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return Answer(status=206, body=data[start : end + 1], headers=headers, sized=sized)
        return Answer(status=200, body=data, headers=headers, sized=sized)

    # Manifests, tags, referrers

    def _manifest(self, exchange: Exchange, repo: str, name: str) -> Answer:
        digest = self.tags.get((repo, name), name)
        if (repo, digest) not in self.manifests:
            return self._no(exchange, 404, "MANIFEST_UNKNOWN")
        media_type, data = self.manifests[repo, digest]
        return self._body(exchange, data, {"Content-Type": media_type}, digest)

    def _put_manifest(self, exchange: Exchange, repo: str, name: str) -> Answer:
        data = _all(exchange)
        if len(data) > self.quirks.manifest_limit:
            return self._no(exchange, 413, "SIZE_INVALID")
        value = json.loads(data)
        digest = digest_of(data, name)
        absent = "" if _FALLBACK.match(name) else self.absent(repo, value)
        if absent and not self.quirks.lenient:
            return self._no(exchange, 404 if absent == "manifest" else 400, "MANIFEST_BLOB_UNKNOWN")
        if ":" in name and digest != name:
            return self._no(exchange, 400, "DIGEST_INVALID")
        with self._lock:
            self.manifests[repo, digest] = (exchange.headers.get("content-type", ""), data)
            if ":" not in name:
                self.tags[repo, name] = digest
                self.early_tags += [name] if self.incomplete(repo, digest) else []
                self._race(repo, name)
        headers = {"Location": f"/v2/{repo}/manifests/{digest}", "Docker-Content-Digest": digest}
        if self.quirks.referrers and value.get("subject"):
            headers["OCI-Subject"] = value["subject"]["digest"]
        return Answer(status=201, headers=headers)

    def _race(self, repo: str, name: str) -> None:
        """Another writer, who read the fallback tag before, has the last word."""
        if self.quirks.race and not self._raced and _FALLBACK.match(name):
            self._raced = True
            data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [self.rival()]}).encode()
            self.put(repo, INDEX, data, name)

    @staticmethod
    def rival() -> dict[str, object]:
        """What the other writer attached."""
        media_type = "application/vnd.oci.image.manifest.v1+json"
        return {"mediaType": media_type, "digest": f"sha256:{'7' * 64}", "size": 7, "artifactType": "x/rival"}

    def _tags(self, exchange: Exchange, repo: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(exchange.query).items()}
        tags = sorted(tag for repository, tag in self.tags if repository == repo)
        start = int(query.get("cursor", "0"))
        end = start + self.quirks.page if self.quirks.page else len(tags)
        body = json.dumps({"name": repo, "tags": tags[start:end]}).encode()
        headers = {"Content-Type": "application/json"}
        if end < len(tags):
            headers["Link"] = f'</v2/{repo}/tags/list?n=1&cursor={end}>; rel="next"'
        return Answer(status=200, body=body, headers=headers)

    def _referrers(self, exchange: Exchange, repo: str, name: str) -> Answer:
        if not self.quirks.referrers:
            return self._no(exchange, 404, "")
        rows = []
        for (repository, digest), (media_type, data) in self.manifests.items():
            value = json.loads(data)
            if repository == repo and (value.get("subject") or {}).get("digest") == name:
                row = {"mediaType": media_type, "digest": digest, "size": len(data)}
                row["artifactType"] = value.get("artifactType") or value["config"]["mediaType"]
                rows.append(row | {"annotations": value.get("annotations", {})})
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode()
        return Answer(status=200, body=body, headers={"Content-Type": INDEX})

    # For those who set a scene, or look at it afterwards

    def put(self, repo: str, media_type: str, data: bytes, tag: str = "") -> str:
        """Have a manifest; its digest."""
        digest = digest_of(data, "sha256:")
        self.manifests[repo, digest] = (media_type, data)
        if tag:
            self.tags[repo, tag] = digest
        return digest

    def absent(self, repo: str, value: Mapping[str, object]) -> str:
        """What a manifest points to and the repository has not: "blob", "manifest" or ""."""
        for kind, rows in (("manifest", value.get("manifests")), ("blob", value.get("layers"))):
            for row in rows if isinstance(rows, list) else ():
                there = self.manifests if kind == "manifest" else self.blobs
                if (repo, row["digest"]) not in there and not row.get("urls"):
                    return kind
        config = value.get("config")
        return "blob" if isinstance(config, dict) and (repo, config["digest"]) not in self.blobs else ""

    def incomplete(self, repo: str, digest: str) -> bool:
        """Whether something below this manifest is absent."""
        if (repo, digest) not in self.manifests:
            return True
        value = json.loads(self.manifests[repo, digest][1])
        children = [row["digest"] for row in value.get("manifests", ())]
        fallback = any(tag.startswith("sha256-") and found == digest for (_, tag), found in self.tags.items())
        return bool(self.absent(repo, value)) or (not fallback and any(self.incomplete(repo, one) for one in children))

    def _no(self, exchange: Exchange, status: int, code: str) -> Answer:
        _all(exchange)
        body = json.dumps({"errors": [{"code": code, "message": "said the quirky registry"}]}).encode()
        return Answer(status=status, body=body, headers={"Content-Type": "application/json"})


def digest_of(data: bytes, like: str) -> str:
    """The digest, by the algorithm of `like` (`sha512:...`), else sha256."""
    algorithm = "sha512" if like.startswith("sha512:") else "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _all(exchange: Exchange) -> bytes:
    return b"".join(iter(exchange.read, b""))
