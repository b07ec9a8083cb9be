"""The sockets of the quirky registry: three listeners on the loopback and a tunnel to the host that is elsewhere.

`registry` is http, or https when asked for; `elsewhere` is https under a name that only the tunnel (an HTTPS proxy)
can reach, so that clients take it for a host of the internet; `plain` is http, for what must not go there.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.peers.certificates import Authority
from tests.peers.quirky import ELSEWHERE, Answer, Exchange, Fault, Quirky

_PIECE = 1 << 16
_SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "wrong": lambda body: bytes([body[0] ^ 1]) + body[1:],
    "short": lambda body: body[: len(body) // 2],
    "long": lambda body: body + bytes(1 << 20),
}
_DRIPS = 20


class Listener(ThreadingHTTPServer):
    """One of the three."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, label: str, registry: Quirky, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.label = label
        self.registry = registry
        self.context = context

    def finish_request(self, request: object, client_address: object) -> None:
        """In the connection's own thread, so that a handshake holds up nobody."""
        assert isinstance(request, socket.socket)
        request.settimeout(60)
        if self.context is None:
            self.RequestHandlerClass(request, client_address, self)
            return
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as wrapped:
            self.RequestHandlerClass(wrapped, client_address, self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news here."""


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        exchange = Exchange(
            listener=self.server.label,
            method=self.command,
            path=parts.path,
            query=parts.query,
            headers=headers,
            read=lambda: b"",
        )
        registry = self.server.registry
        fault = exchange.fault = registry.fault(exchange)
        exchange.read = self._body(exchange, fault if fault and fault.do == "cut" else None)
        if fault and fault.do in ("reset", "drop"):
            self._end(hard=fault.do == "reset")
            return
        try:
            answer = _scripted(fault, exchange) if fault and fault.do == "answer" else registry.answer(exchange)
        except ConnectionError:
            self._end(hard=True)
            return
        exchange.status = answer.status
        if fault and fault.do == "swallow":
            self._end(hard=False)
            return
        self._send(answer, exchange, fault)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names http.server looks for

    def _body(self, exchange: Exchange, cut: Fault | None) -> Callable[[], bytes]:
        """A function that gives the next piece of the request's body; ConnectionError where it is cut."""
        registry = self.server.registry
        limit = int(cut.at * registry.size) if cut else None
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        pieces = self._chunked() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._sized()

        def read() -> bytes:
            if exchange.received == limit:
                raise ConnectionResetError
            piece = next(pieces, b"")
            if cut and limit and exchange.received + len(piece) > limit and registry.cut(cut):
                piece = piece[: limit - exchange.received]
                exchange.received = limit
                return piece
            exchange.received += len(piece)
            return piece

        return read

    def _sized(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, _PIECE))  # type: ignore[attr-defined]
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionResetError
            size = int(line.split(b";")[0], 16)
            piece = self.rfile.read(size)
            if len(piece) < size:
                raise ConnectionResetError
            self.rfile.readline()
            if not size:
                return
            yield piece

    def _send(self, answer: Answer, exchange: Exchange, fault: Fault | None) -> None:
        body = _SPOILT.get(fault.do if fault else "", bytes)(answer.body)
        limit = self._limit(len(body), fault)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        silent = self.command == "HEAD" or answer.status == 204
        if answer.sized and answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        elif not silent:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if silent:
            return
        for piece in _pieces(body[:limit], slow=fault is not None and fault.do == "slow"):
            self.wfile.write(piece if answer.sized else b"%x\r\n%s\r\n" % (len(piece), piece))
            exchange.sent += len(piece)
        if limit is not None:
            self._end(hard=False)
        elif not answer.sized:
            self.wfile.write(b"0\r\n\r\n")

    def _limit(self, size: int, fault: Fault | None) -> int | None:
        """Where a body of this size breaks off."""
        if fault is None or fault.do != "cut" or self.command != "GET":
            return None
        limit = int(self.server.registry.size * fault.at)
        return limit if size > limit and self.server.registry.cut(fault) else None

    def _end(self, *, hard: bool) -> None:
        """The end of the connection, by a reset or in order."""
        self.close_connection = True
        if hard:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: object) -> None:
        """Silence."""


def _scripted(fault: Fault, exchange: Exchange) -> Answer:
    while exchange.read():
        pass
    headers = dict(fault.headers)
    if headers.get("Retry-After", "").startswith("@"):
        headers["Retry-After"] = formatdate(time.time() + float(headers["Retry-After"][1:]), usegmt=True)
    return Answer(status=fault.status, body=fault.body, headers=headers)


def _pieces(body: bytes, *, slow: bool) -> Iterator[bytes]:
    size = max(1, len(body) // _DRIPS) if slow else 1 << 20
    for start in range(0, len(body), size):
        yield body[start : start + size]
        if slow:
            time.sleep(0.1)


class Tunnel(threading.Thread):
    """An HTTPS proxy (CONNECT) that brings everybody to one place, whatever host is asked for."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connect(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                if not piece:
                    return
                head += piece
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def served(registry: Quirky, authority: Authority) -> Iterator[Tunnel]:
    """The registry on its listeners, as long as the `with` lasts; `registry.address` then has their origins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server())
    contexts = {"registry": context if registry.quirks.tls else None, "elsewhere": context, "plain": None}
    with ExitStack() as stack:
        ports = {}
        for label, one in contexts.items():
            listener = stack.enter_context(Listener(label, registry, one))
            thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown)
            ports[label] = listener.server_port
        registry.address |= {
            "registry": f"{'https' if registry.quirks.tls else 'http'}://localhost:{ports['registry']}",
            "elsewhere": f"https://{ELSEWHERE}",
            "plain": f"http://localhost:{ports['plain']}",
        }
        tunnel = Tunnel(ports["elsewhere"])
        tunnel.start()
        stack.callback(tunnel.close)
        yield tunnel
