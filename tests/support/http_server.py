"""An HTTP server on this machine, in a thread of the test process."""

from __future__ import annotations

import http.server
import threading
from typing import ClassVar

Handler = http.server.BaseHTTPRequestHandler


class LocalServer:
    """Answers requests with `answer`, and records them.

    Attributes:
        asked: the requests in order, such as "GET /path"; `answer` adds to it.
        url: the address of the server.
    """

    protocol: ClassVar[str] = "HTTP/1.0"

    def __init__(self) -> None:
        self.asked: list[str] = []
        server = self

        class Answering(http.server.BaseHTTPRequestHandler):
            protocol_version = self.protocol

            def do_GET(self) -> None:
                server.answer(self)

            def do_HEAD(self) -> None:
                server.answer(self)

            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def answer(self, handler: Handler) -> None:
        """Answer one request."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
