"""A Kaggle on loopback: what its API answers to a push, with replies that a test may script.

It is an HTTP proxy too, so that the client's http://localhost reaches it on any port; whatever else is asked of the
proxy is refused and noted.
"""

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

USER, TOKEN = "someone", "KGAT_" + "0a" * 16
SUBMISSION = {"0a1b2c3d": [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}]}


@dataclass(frozen=True)
class Reply:
    """What a script says once, in place of the usual answer."""

    body: dict = field(default_factory=dict)
    status: int = 200
    headers: dict = field(default_factory=dict)
    after_s: float = 0.0
    drop: bool = False  # close the connection without an answer


class FakeKaggle(ThreadingHTTPServer):
    """scripts: route to replies, used up one by one. asked: (route, body). blobs: name to (token, bytes)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts, self.asked, self.blobs, self.versions, self.outside = {}, [], {}, {}, []
        self.output = {"submission.json": json.dumps(SUBMISSION), "other.txt": "stays there"}
        self.log = json.dumps([{"stream_name": "stdout", "time": 1.0, "data": "all is well\n"}])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that no longer waits is no fault; told by another thread, it would stand in another test's output."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def routes(self) -> list[str]:
        return [route for route, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.server.outside.append(self.path)
        self.send(403, {"message": "no internet here"})

    def do_GET(self):
        url = urlsplit(self.path)
        if self.refuse_outside(url):
            return
        self.send(200, self.server.output[url.path.removeprefix("/output/")].encode())

    def do_PUT(self):
        url, content = urlsplit(self.path), self.content()
        if self.refuse_outside(url) or self.scripted("upload"):
            return
        name = url.path.removeprefix("/upload/")
        self.server.blobs[name] = (f"token-{name}", content)
        self.send(200, {})

    def do_POST(self):
        url, content = urlsplit(self.path), self.content()
        if self.refuse_outside(url):
            return
        route, body = url.path.removeprefix("/api/v1/").split("Service/")[-1], json.loads(content)
        self.server.asked.append((route, body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and route != "IntrospectToken":
            return self.send(401, {"code": 401, "message": "Unauthorized"})
        if not self.scripted(route):
            self.send(*getattr(self, route)(body))

    def IntrospectToken(self, body):
        return 200, {"active": body["token"] == TOKEN, "username": USER}

    def GetDatasetStatus(self, body):
        known = body["datasetSlug"] in self.server.versions
        return (200, {"status": "READY"}) if known else (404, {"code": 404, "message": "Not found"})

    def GetDataset(self, body):
        return 200, {"currentVersionNumber": self.server.versions[body["datasetSlug"]]}

    def StartBlobUpload(self, body):
        return 200, {"token": f"token-{body['name']}", "createUrl": f"http://localhost/upload/{body['name']}"}

    def CreateDataset(self, body):
        self.server.versions[body["slug"]] = 1
        return 200, {"ref": body["slug"], "url": "u", "status": "ok"}

    def CreateDatasetVersion(self, body):
        self.server.versions[body["datasetSlug"]] += 1
        return 200, {"ref": body["datasetSlug"], "url": "u", "status": "ok"}

    def SaveKernel(self, body):
        return 200, {
            "ref": f"/code/{body['slug']}",
            "url": f"https://kaggle.test/code/{body['slug']}",
            "versionNumber": 3,
        }

    def GetKernelSessionStatus(self, body):
        return 200, {"status": "COMPLETE"}

    def ListKernelSessionOutput(self, body):
        files = [{"fileName": name, "url": f"http://localhost/output/{name}"} for name in self.server.output]
        return 200, {"files": files, "log": self.server.log}

    def scripted(self, route: str) -> bool:
        """Give the next scripted reply to `route`, if there is one."""
        if not (replies := self.server.scripts.get(route)):
            return False
        reply = replies.pop(0)
        time.sleep(reply.after_s)
        if reply.drop:
            self.close_connection = True
        else:
            self.send(reply.status, reply.body, reply.headers)
        return True

    def refuse_outside(self, url) -> bool:
        if url.hostname == "localhost":
            return False
        self.server.outside.append(self.path)
        self.send(403, {"message": "no internet here"})
        return True

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, body, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
