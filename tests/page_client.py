"""A visitor without a browser: calls the events of the page as its script does, also with values that no page sends."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx

API = "/gradio_api"


class Visitor:
    """session: as Gradio names the open page. config: the page's components and events. heard: all answers, as text."""

    def __init__(self, address: str, login: tuple[str, str] | None = None) -> None:
        self.http = httpx.Client(base_url=address, timeout=60, trust_env=False)
        if login:
            self.http.post("/login", data={"username": login[0], "password": login[1]})
        self.session = uuid.uuid4().hex[:11]
        self.config = self.http.get("/config").json()
        self.heard = [json.dumps(self.config)]
        self._parts = {part["id"]: part["props"] for part in self.config["components"]}
        self._kinds = {part["id"]: part["type"] for part in self.config["components"]}

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def events(self, elem_id: str, kind: str) -> list[dict[str, Any]]:
        ids = {id_ for id_, props in self._parts.items() if props.get("elem_id") == elem_id}
        return [
            one for one in self.config["dependencies"] if any(to[0] in ids and to[1] == kind for to in one["targets"])
        ]

    def event(self, elem_id: str, kind: str = "click") -> dict[str, Any]:
        return self.events(elem_id, kind)[0]

    def after(self, event: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in self.config["dependencies"] if one.get("trigger_after") == event["id"])

    def kind(self, part: int) -> str:
        """Of a component, by its number: "state", "image" …"""
        return str(self._kinds[part])

    def changed(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event of the state that is the last output of `event`: what the page does when it has changed."""
        state = event["outputs"][-1]
        return next(one for one in self.config["dependencies"] if [state, "change"] in one["targets"])

    def loading(self, word: str) -> dict[str, Any]:
        """The event of the page's opening whose script contains a word."""
        events = self.config["dependencies"]
        return next(one for one in events if word in str(one["js"]) and one["targets"][0][1] == "load")

    def values(self, event: dict[str, Any], **changed: Any) -> list[Any]:
        """The inputs of an event as the page has them; `changed` by elem_id or label, _ for -."""
        found = []
        for id_ in event["inputs"]:
            props = self._parts[id_]
            names = [str(props.get(name) or "").replace("-", "_") for name in ("elem_id", "label")]
            found.append(next((changed[name] for name in names if name in changed), props.get("value")))
        return found

    def call(self, event: dict[str, Any], data: Any, event_data: Any = None, **headers: str) -> dict[str, Any]:
        """The last message of the event; {"status"} if it was not taken."""
        if not event["queue"]:  # the page calls such events so, too
            answer = self.direct(event["id"], data, event_data=event_data)
            self.heard.append(answer.text)
            if answer.status_code not in (200, 500):
                return {"status": answer.status_code, "text": answer.text}
            return {"output": answer.json(), "success": answer.status_code == 200}
        answer = self.join(event["id"], data, event_data, **headers)
        if answer.status_code != 200:
            return {"status": answer.status_code, "text": answer.text}
        wanted = answer.json()["event_id"]
        for message in self.messages():
            if message.get("event_id") == wanted and message["msg"] == "process_completed":
                return message
        return {}

    def join(self, number: Any, data: Any, event_data: Any = None, **headers: str) -> httpx.Response:
        body = {"data": data, "fn_index": number, "session_hash": self.session, "event_data": event_data}
        return self.http.post(f"{API}/queue/join", json=body, headers=headers)

    def direct(self, number: int, data: Any, name: str = "predict", event_data: Any = None) -> httpx.Response:
        """Past the queue."""
        body = {"data": data, "fn_index": number, "session_hash": self.session, "event_data": event_data}
        return self.http.post(f"{API}/run/{name}", json=body)

    def messages(self) -> Iterator[dict[str, Any]]:
        with self.listening() as messages:
            yield from messages

    @contextmanager
    def listening(self) -> Iterator[Iterator[dict[str, Any]]]:
        """The messages of the session's events, as they come; read or not, the visitor is there."""
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as stream:
            yield self._read(stream)

    def _read(self, stream: httpx.Response) -> Iterator[dict[str, Any]]:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                self.heard.append(line)
                yield json.loads(line[5:])


def ask(address: str, name: str, **values: Any) -> tuple[int, str]:
    """A program's call of a public endpoint: status and answer."""
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
        begun = http.post(f"{API}/call/v2/{name}", json=values)
        if begun.status_code != 200:
            return begun.status_code, begun.text
        return 200, http.get(f"{API}/call/{name}/{begun.json()['event_id']}").text
