"""A chat endpoint on loopback that answers by a script, faults included. Standard library only."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPLATE = "Asked: {prompt}\nA: <<{response_a}>>\nB: <<{response_b}>>\nWho wins?"


@dataclass(frozen=True)
class Reply:
    """What the server sends. `wait_seconds` first; `hang_up`: no reply at all."""

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0
    hang_up: bool = False


def completion(text: str | None, logprobs: dict[str, float] | None = None, **message: Any) -> Reply:
    """A chat completion of 10 prompt tokens and 3 of its own.

    Args:
        logprobs: of the likeliest first tokens, the likeliest first, in OpenAI's form.
    """
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": "stop",
    }
    if logprobs is not None:
        top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    return Reply(
        body=json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})
    )


def error(status: int, message: str, **headers: str) -> Reply:
    """An error in OpenAI's form; `Retry_After="1"` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": message, "code": None}}), named)


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """Response A and response B in a request made from `TEMPLATE`."""
    question = body["messages"][0]["content"]
    found = re.search(r"A: <<(.*)>>\nB: <<(.*)>>\nWho wins\?$", question, re.DOTALL)
    assert found is not None
    return found.group(1), found.group(2)


def longer_wins(body: dict[str, Any]) -> Reply:
    """The judge that most tests ask."""
    a, b = (len(text) for text in shown(body))
    return completion(json.dumps({"winner": "A" if a > b else "B" if b > a else "tie"}))


class ChatServer:
    """Answers with `script(body)` and keeps what it was asked and what it answered with 200.

    Attributes:
        url: the base_url for a recipe.
        bodies, headers: of every request, in order.
        answered: questions that got a reply of status 200.
    """

    def __init__(self, script: Callable[[dict[str, Any]], Reply]) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.answered: list[str] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._handle(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(request.headers) | {"path": request.path})
            self.times.append(time.monotonic())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        reply = self.script(body)
        time.sleep(reply.wait_seconds)
        with self._lock:
            self._at_once -= 1
        if reply.hang_up:
            request.close_connection = True
            return
        content = reply.body.encode() if isinstance(reply.body, str) else reply.body
        # Noted before it is sent: whoever has the answer finds it noted.
        noted = [body["messages"][0]["content"]] if reply.status == 200 else []
        with self._lock:
            self.answered += noted
        try:
            request.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(content)
        except OSError:  # whoever asked has gone
            with self._lock:
                for question in noted:
                    self.answered.remove(question)


@contextmanager
def serving(script: Callable[[dict[str, Any]], Reply] = longer_wins) -> Iterator[ChatServer]:
    """A server for the length of a `with` block; `server.script` may be changed in it."""
    server = ChatServer(script)
    thread = threading.Thread(target=server._http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._http.shutdown()
        server._http.server_close()
        thread.join()
