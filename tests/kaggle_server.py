"""Kaggle on 127.0.0.1, as far as its own client needs it: a redirect, a zip with ranges, and every way to fail."""

import contextlib
import io
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from unet_helpers.download import SECRETS

SIGNATURE = "SignedAddressSecret"


class KaggleServer:
    """Serves `content`. Each GET takes the next of `steps`, and is served whole when none is left.

    steps: ("cut", n) closes after n bytes, ("stall", n) sends n bytes and waits for the end of the test, at most a
        minute, ("status", s) responds with an error page.
    status: of the response to the first request; 302 sends the client on to the zip.
    sent: bytes of zip in each GET's response; requests: all (method, path, headers) in order.
    """

    def __init__(self, content: bytes = b""):
        self.content, self.status, self.steps = content, 302, []
        self.ended = threading.Event()
        self.sent, self.requests = [], []

    def __enter__(self):
        self._storage = self._listen(self._get)
        self._api = self._listen(self._post)
        self.url = f"http://127.0.0.1:{self._api.server_port}"
        return self

    def __exit__(self, *_):
        self.ended.set()
        for server in (self._api, self._storage):
            server.shutdown()
            server.server_close()

    def go_offline(self):
        """The zip's address no longer responds."""
        self._storage.shutdown()
        self._storage.server_close()

    def _listen(self, respond) -> ThreadingHTTPServer:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 120
            do_GET = do_POST = lambda handler: respond(handler)  # noqa: E731
            log_message = lambda *_: None  # noqa: E731

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _note(self, handler):
        self.requests.append((handler.command, handler.path, dict(handler.headers)))

    @staticmethod
    def _send(handler, status: int, body: bytes = b"", kind: str = "application/json", **headers):
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)

    def _post(self, handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        self._note(handler)
        if "IntrospectToken" in handler.path:
            self._send(handler, 200, json.dumps({"active": True, "username": "someone"}).encode())
        elif self.status == 302:
            # Another port: as on the real redirect, the Authorization header stays behind.
            address = f"http://127.0.0.1:{self._storage.server_port}/set.zip?X-Goog-Signature={SIGNATURE}"
            self._send(handler, 302, Location=address)
        else:
            page = json.dumps({"code": self.status, "message": "what the server says"}).encode()
            self._send(handler, self.status, page)

    def _get(self, handler):
        self._note(handler)
        kind, number = self.steps.pop(0) if self.steps else ("whole", None)
        if kind == "status":
            self._send(handler, number, b"<html>out of order</html>" * 9, "text/html")
            return
        first, status, headers = 0, 200, {}
        wanted = handler.headers.get("Range")
        if wanted:
            first, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        handler.close_connection = True
        headers |= {"Content-Length": len(self.content) - first, "Accept-Ranges": "bytes", "ETag": '"v1"'}
        headers["Connection"] = "close"
        headers["Last-Modified"] = "Mon, 05 Feb 2018 10:00:00 GMT"
        body = self.content[first:] if number is None else self.content[first:][:number]
        self.sent.append(len(body))
        self._send(handler, status, b"", "application/zip", **headers)
        with contextlib.suppress(OSError):  # the client went away
            handler.wfile.write(body)
            handler.wfile.flush()
            if kind == "stall":
                self.ended.wait(60)


def isolate(home: Path, monkeypatch) -> None:
    """A home without credentials, from which only 127.0.0.1 can be reached, and no data attached by Kaggle."""
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in SECRETS:  # what a test's Colab secrets set is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("unet_helpers.download.KAGGLE_INPUT", home / "no_kaggle_input")


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these members in this order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
