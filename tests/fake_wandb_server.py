"""A server on loopback that answers wandb's client as far as a run needs it, and keeps the history it is sent."""

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """`histories` by run id: lists of rows. `requests`: every path that was asked for. `runs`: what was upserted."""

    def __init__(self):
        self.histories, self.requests, self.runs, self.url = {}, [], {}, ""

    def answer(self, path, body):
        """The JSON that answers a POST."""
        if path.endswith("/file_stream"):
            name, sent = path.split("/")[-2], json.loads(body)
            part = sent.get("files", {}).get("wandb-history.jsonl")
            kept = self.histories.setdefault(name, [])
            if part:  # as the real one: lines from `offset` on are replaced
                kept[part["offset"] :] = [json.loads(line) for line in part["content"]]
            return {"limits": {}, "exitcode": None}
        if "graphql" not in path:
            return {}
        asked = json.loads(body)
        given, text = asked.get("variables") or {}, asked["query"]
        return {"data": self._data(asked.get("operationName"), given, text)}

    def _data(self, operation, given, text):
        if operation == "UpsertBucket":
            self.runs.setdefault(given["name"], {}).update({k: v for k, v in given.items() if v is not None})
            owner = {"id": "e", "name": "me"}
            project = {"id": "p", "name": given.get("project") or "p", "entity": owner}
            shown = {"displayName": given.get("displayName"), "config": "{}", "description": None}
            return {
                "upsertBucket": {
                    "bucket": {"id": "r", "name": given["name"], **shown, "project": project},
                    "inserted": given["name"] not in self.histories,
                }
            }
        if operation == "RunResumeStatus":
            rows, bucket = self.histories.get(given["name"]), None
            if rows is not None:
                tail = json.dumps([json.dumps(row) for row in rows[-1:]])
                bucket = {
                    "id": "r", "name": given["name"], "displayName": "n", "config": "{}", "tags": [], "notes": None,
                    "summaryMetrics": json.dumps(rows[-1] if rows else {}), "historyTail": tail, "eventsTail": "[]",
                    "logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(rows),
                    "wandbConfig": json.dumps({"t": 1}),
                }  # fmt: skip
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "viewer" in text.lower():
            viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "features": []}}
        return {"serverInfo": {"features": []}}


@contextmanager
def serving():
    """A `FakeServer` on a free port, with its address in `url`."""
    state = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            state.requests.append(self.path)
            data = json.dumps(state.answer(self.path, body) if self.command == "POST" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _reply  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
