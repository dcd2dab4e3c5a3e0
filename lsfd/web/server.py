"""A web server for one folder and one machine."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from lsfd.errors import LsfdError
from lsfd.web.build import INDEX

ADDRESS = "127.0.0.1"
"""Only this machine is answered."""

NAMES = ("127.0.0.1", "localhost", "::1")
"""Of this machine, as its browsers call it; whatever the port, which may be forwarded."""

PORT = 8765

HEADERS = {
    # Nothing is loaded from elsewhere or sent anywhere. WebAssembly counts as evaluated code.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    # The two that browsers ask for before WebAssembly may use several threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_TYPES = {
    "": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
"""By the ends of names: not left to what the machine thinks of them."""


class _Handler(SimpleHTTPRequestHandler):
    """Answers with files of the folder, and with nothing that lies elsewhere."""

    protocol_version = "HTTP/1.1"
    server_version = "lsfd"
    sys_version = ""
    extensions_map = _TYPES

    def parse_request(self) -> bool:
        """Refuse what was asked of another name: a page elsewhere that gave it our address."""
        if not super().parse_request():
            return False
        if _host(self.headers.get("Host", "")) in NAMES:
            return True
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        return False

    def send_head(self) -> BinaryIO | None:
        """Refuse what a link leads out of the folder to, and what is no path."""
        root = Path(self.directory).resolve()
        try:
            inside = Path(self.translate_path(self.path)).resolve().is_relative_to(root)
        except (ValueError, OSError):  # A null byte, or links in a circle.
            inside = False
        if inside:
            return super().send_head()
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def list_directory(self, path: Any) -> None:
        """List nothing."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add the headers that go with every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *message: Any) -> None:
        """Say nothing."""


def _host(header: str) -> str | None:
    """Return the name, without the port, of the header that says whom a browser asked."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def page_server(folder: Path, port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of a folder, bound to this machine's own address, not yet running.

    Args:
        folder: what :func:`~lsfd.web.build.build_page` wrote.
        port: 1 to 65535, or 0 for any that is free.

    Raises:
        LsfdError: the folder holds no page, or the port cannot be had.
    """
    if not (folder / INDEX).is_file():
        raise LsfdError(f"{folder} holds no page: there is no {INDEX}")
    if not 0 <= port <= 65535:
        raise LsfdError(f"a port is a number from 0 to 65535, not {port}")
    try:
        return ThreadingHTTPServer((ADDRESS, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise LsfdError(
            f"port {port} cannot be had ({error.strerror}); choose another one, or 0 for any"
        ) from error


def serve(folder: Path, port: int = PORT) -> None:
    """Show a page in this machine's browsers until Ctrl-C.

    Arguments and errors as in :func:`page_server`.
    """
    with page_server(folder, port) as server:
        print(f"http://{ADDRESS}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
