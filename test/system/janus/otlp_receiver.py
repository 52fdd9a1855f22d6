"""A collector for spans: OTLP over HTTP, decoded by the project's own proto/otlp_trace.proto."""

import http.server
import importlib.util
import subprocess
import tempfile
import threading

from .patience import patient, wait_for


def _load_proto():
    directory = tempfile.mkdtemp(prefix="janus-otlp-")
    subprocess.run(["protoc", "-Iproto", f"--python_out={directory}", "proto/otlp_trace.proto"],
                   check=True)
    spec = importlib.util.spec_from_file_location("otlp_trace_pb2",
                                                  f"{directory}/otlp_trace_pb2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proto = _load_proto()


def _plain(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Span:
    def __init__(self, raw, resource):
        span = proto.Span.FromString(raw)
        self.trace_id, self.span_id = span.trace_id.hex(), span.span_id.hex()
        self.parent_id, self.name, self.kind = span.parent_span_id.hex(), span.name, span.kind
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.attributes = _plain(span.attributes)
        self.checks = {attributes["janus.check.name"]: attributes["janus.check.passed"]
                       for attributes in (_plain(event.attributes) for event in span.events)}
        self.failed = span.status.code == proto.Status.ERROR
        self.state = span.trace_state
        self.resource = resource


class OtlpReceiver:
    """answers: (status, headers) for the next requests; then 200. Until `proceed` is set, none is
    answered."""

    def __init__(self, port=0, partial=None):
        self.spans, self.requests, self.answers = [], [], []
        self.partial = partial
        self.proceed = threading.Event()
        self.proceed.set()
        self._lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.proceed.wait(patient(60))
                status, headers, answer = receiver._take(self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _take(self, path, headers, body):
        with self._lock:
            self.requests.append((path, headers))
            status, more = self.answers.pop(0) if self.answers else (200, {})
            answer = proto.ExportTraceServiceResponse()
            if status == 200:
                for of_resource in proto.ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = _plain(of_resource.resource.attributes)
                    for of_scope in of_resource.scope_spans:
                        self.spans += [Span(raw, resource) for raw in of_scope.spans]
                if self.partial:
                    answer.partial_success.rejected_spans = self.partial
            return status, more, answer.SerializeToString()

    def find(self, name=None, count=1, **attributes):
        """The spans of that name with these attributes (a_b is a.b), once there are so many."""
        wanted = {key.replace("_", ".", 1): value for key, value in attributes.items()}

        def look():
            with self._lock:
                found = [span for span in self.spans if name in (None, span.name) and
                         all(span.attributes.get(key) == value for key, value in wanted.items())]
            return len(found) >= count and found

        return wait_for(look, f"{count} spans {name} with {wanted}")

    def stop(self):
        self.proceed.set()
        self.server.shutdown()
        self.server.server_close()
