"""A local web server that fails in many ways, for tests of downloads."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes


class Server(ThreadingHTTPServer):
    """Serves `content`; its attributes say what goes wrong."""

    daemon_threads = True
    content = CONTENT
    tag = '"one"'
    ranges = True  # whether it knows ranges
    cuts = ()  # bytes sent before the connection is cut, one for each of the first requests
    statuses = ()  # answers in place of the file, likewise
    delay = 0.0  # seconds before each kilobyte
    length = True  # whether it says how long the file is
    wrong_range = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/file.tgz"

    def handle_error(self, request, client_address):
        """Clients that break off are what is tested here."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        count = len(server.requests)
        server.requests.append(dict(self.headers))
        if count < len(server.statuses):
            self.send_error(server.statuses[count])
            return
        start, content = 0, server.content
        asked = self.headers.get("Range", "")
        if server.ranges and asked and self.headers.get("If-Range", server.tag) == server.tag:
            start = int(asked[len("bytes=") : -1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            first = 0 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.cuts[count] if count < len(server.cuts) else len(content)
        step = 1000 if server.delay else len(content)
        for position in range(start, end, step):
            time.sleep(server.delay)
            self.wfile.write(content[position : min(position + step, end)])

    def log_message(self, *_):
        pass
