"""The report of a run served live, on this machine alone, while the run trains."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mlxstories.errors import StoriesError

ADDRESS = "127.0.0.1"
_LOOK_EVERY = 1.0  # seconds
_CONNECTIONS = 64  # at a time
_REST = 9  # times as long as the last page took to make, so that training keeps the machine


class _Http(ThreadingHTTPServer):
    """A thread for each connection. Where there are too many, the oldest is cut off: one that has been open for long
    is idle or slow, and must keep nobody out."""

    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(self, *arguments):
        self._open: dict[socket.socket, None] = {}
        self._counting = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request, client_address):
        with self._counting:
            self._open[request] = None
            if len(self._open) > _CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        with self._counting:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """A client that went away is nobody's error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Server:
    """Serves one page at ``/``; whoever asks with the tag of the last one hears only whether it has changed.

    Only requests that name this machine are answered: a page of another site whose name was made to lead here (DNS
    rebinding) sends its own name as the host.

    Raises:
        StoriesError: the port is taken, or not allowed.
    """

    def __init__(self, port: int):
        try:
            self._http = _Http((ADDRESS, port), _handler(self))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoriesError(
                f"port {port} cannot be served: {reason}; choose another --port, or 0 for a free one."
            ) from error
        self._page = (b"", "")

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self._http.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """The names under which this machine may be asked."""
        return {f"{name}:{self._http.server_port}" for name in (ADDRESS, "localhost")}

    def show(self, html: str) -> None:
        """Serve this page from now on."""
        body = html.encode()
        self._page = (body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    @property
    def page(self) -> tuple[bytes, str]:
        """The page and its tag."""
        return self._page

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Answer requests in other threads until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def keep_up(server: Server, changed: Callable[[], object], make: Callable[[], str]) -> None:
    """Make the page anew whenever ``changed()`` gives another value; never returns."""
    seen: object = None
    while True:
        now = changed()
        rest = _LOOK_EVERY
        if now != seen:
            began = time.process_time()
            server.show(make())
            seen = now
            rest = max(rest, _REST * (time.process_time() - began))
        time.sleep(rest)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a browser opens connections that it does not use
        server_version = "mlxstories"
        sys_version = ""

        def do_GET(self):
            self._answer(with_body=True)

        def do_HEAD(self):
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            body, tag = server.page
            if self.headers.get("Host") not in server.hosts:
                self._send(
                    HTTPStatus.FORBIDDEN, b"This page is served to its own machine alone.\n", with_body
                )
            elif self.path.partition("?")[0] != "/":
                self._send(HTTPStatus.NOT_FOUND, b"There is only /.\n", with_body)
            elif self.headers.get("If-None-Match") == tag:
                self._send(HTTPStatus.NOT_MODIFIED, b"", False, ETag=tag)
            else:
                self._send(HTTPStatus.OK, body, with_body, "text/html", ETag=tag)

        def _send(
            self, status: HTTPStatus, body: bytes, with_body: bool, kind="text/plain", **headers
        ) -> None:
            self.send_response(status)
            if status != HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
            for name, value in {
                "Cache-Control": "no-cache",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Referrer-Policy": "no-referrer",
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
