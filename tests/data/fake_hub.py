"""A stand-in for the hub on a local port, with one data set on it. Start it, set HF_ENDPOINT, read it."""

import hashlib
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "a" * 40


def parquet_bytes(texts):
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), stream)
    return stream.getvalue()


def _handler(name, files):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, body, status=200, **headers):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value, status=200, **headers):
            self.reply(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

        def entry(self, path):
            digest = hashlib.sha1(files[path]).hexdigest()
            return {"type": "file", "path": path, "size": len(files[path]), "oid": digest}

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked = json.loads(self.rfile.read(length) or b"{}").get("paths", [])
            self.json([self.entry(path) for path in asked if path in files])

        def do_GET(self):
            path = self.path.split("?")[0]
            self.server.asked.append(f"{self.command} {self.path}")
            if path.startswith(f"/datasets/{name}/resolve/"):
                file = path[len(f"/datasets/{name}/resolve/") :].partition("/")[2]
                if file not in files:
                    return self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=REVISION)
                etag = hashlib.sha1(files[file]).hexdigest()
                return self.reply(files[file], X_Repo_Commit=REVISION, ETag=f'"{etag}"')
            if path.startswith(f"/api/datasets/{name}"):
                rest = path[len(f"/api/datasets/{name}") :]
                if rest.startswith("/tree/"):
                    under = rest.split("/", 3)[3] if rest.count("/") > 2 else ""
                    recursive = "recursive=True" in self.path or "recursive=true" in self.path
                    found = {}
                    for file in files:
                        if under and not file.startswith(under + "/"):
                            continue
                        inner = file[len(under) + 1 :] if under else file
                        if "/" in inner and not recursive:
                            folder = (under + "/" if under else "") + inner.split("/")[0]
                            found[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
                        else:
                            found[file] = self.entry(file)
                    if under and not found:
                        return self.json({"error": "no entry"}, 404, X_Error_Code="EntryNotFound")
                    return self.json(list(found.values()))
                siblings = [{"rfilename": file} for file in files]
                return self.json(
                    {"id": name, "sha": REVISION, "siblings": siblings, "private": False, "tags": []}
                )
            self.json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

    return Handler


@contextmanager
def hub(name, files):
    """Serve the data set `name` with its `files` (path to bytes); gives the endpoint's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(name, files))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        server.server_close()
