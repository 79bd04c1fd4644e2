"""The demo's workload: a real HTTP server that says which task it is. Run as `python -m swarm.commands.demo_server PORT`.

It shares its port, so that all "machines" of the demo can stand on one loopback interface.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer any path with one line of text."""
        environment = os.environ
        text = (
            f"{environment['SERVICE']} slot {environment['SLOT']} on {environment['NODE']} task {environment['TASK']}\n"
        )
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    allow_reuse_port = True
    daemon_threads = True


if __name__ == "__main__":
    with _Server(("127.0.0.1", int(sys.argv[1])), _Page) as server:
        print(f"serving on port {sys.argv[1]}", flush=True)
        server.serve_forever()
