"""Fifty clients at once, for minutes: honest ones, some that stop or leave, some that flood and some that are hostile.

`OMS_STRESS_SECONDS` says for how long, 600 by default.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from conftest import process_of, running_app
from page_client import API, Visitor, ask
from PIL import Image
from test_hostile_values import CLICKS, HOSTILE, plain

from oms_app import GenerateRequest, Studio

SECONDS = float(os.environ.get("OMS_STRESS_SECONDS", "600"))
PROMPTS, SEEDS = ("black mountains", "white mountains", "red sea", "night"), range(6)
PAGE_SECONDS, GROWTH = 2.0, 1.05  # the page answers within; memory may grow, once it has settled
LONG = {"num_inference_steps": 200, "width": 128, "height": 128}
MiB = 2**20
# Asks for the page once in half a second, in a process of its own, and prints the seconds that each answer took.
WATCH = """
import sys, time, urllib.request
while True:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
            good = answer.status == 200 and len(answer.read()) > 1000
    except OSError:
        good = False
    print(time.monotonic() - began if good else 1e9, flush=True)
    time.sleep(0.5)
"""


class Flood:
    """What the clients share: until when they work, the right pictures, and what they found."""

    def __init__(self, address: str, right: dict[tuple[str, int], list[np.ndarray]]) -> None:
        self.address, self.right = address, right
        self.ends = time.monotonic() + SECONDS
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(what[:300])

    def honest(self, chance: random.Random) -> None:
        """A program that waits for its pictures, and looks at them."""
        prompt, seed = chance.choice(PROMPTS), chance.choice(SEEDS)
        status, text = ask(self.address, "generate", prompt=prompt, seed=seed)
        _, complete, data = text.partition("event: complete\ndata: ")
        if complete:
            for image, right in zip(json.loads(data)[0]["images"], self.right[prompt, seed], strict=True):
                with Image.open(image["image"]["path"]) as picture:
                    if np.abs(np.asarray(picture, int) - right).max() > 1:
                        self.fault(f"a wrong picture: {prompt} {seed} {image['variant']}")
            self.count("right pictures")
        elif status == 503 or "queue is full" in text:
            self.count("told that the queue is full")
            time.sleep(chance.uniform(0.5, 2))
        else:
            self.fault(f"a lost answer: {status} {text[-200:]}")

    def visitor(self, chance: random.Random) -> None:
        """A person in Create, who presses Stop now and then."""
        with Visitor(self.address) as visitor:
            prepare, stops = visitor.event("generate"), chance.random() < 0.4
            run = visitor.after(prepare)
            steps = {"Steps": 200} if stops else {}
            visitor.call(prepare, visitor.values(prepare, prompt=chance.choice(PROMPTS), **steps))
            if (joined := visitor.join(run["id"], visitor.values(run))).status_code != 200:
                self.count("told that the queue is full")
                time.sleep(chance.uniform(0.5, 2))
                return
            for message in visitor.messages():
                if stops and message["msg"] == "process_starts":
                    stop = visitor.event("stop")
                    visitor.call(stop, visitor.values(stop))
                if message["msg"] == "process_completed" and message.get("event_id") == joined.json()["event_id"]:
                    if not message["success"]:
                        self.fault(f"an answer of the page: {message}")
                    self.count("stopped" if stops else "pages with pictures")
                    return
            self.fault("a lost answer of the page")

    def leaver(self, chance: random.Random) -> None:
        """Asks for something long, and is gone."""
        with httpx.Client(base_url=self.address, timeout=60, trust_env=False) as http:
            begun = http.post(f"{API}/call/v2/generate", json={"prompt": "sea", "seed": 1, **LONG})
            if begun.status_code == 200 and chance.random() < 0.5:
                with http.stream("GET", f"{API}/call/generate/{begun.json()['event_id']}"):
                    time.sleep(chance.uniform(0, 2))
        self.count("left")
        time.sleep(chance.uniform(2, 6))

    def flooder(self, chance: random.Random) -> None:
        """Fills the queue with one session. What has begun to run no longer waits, and makes room for one more."""
        with Visitor(self.address) as visitor:
            generate = next(one for one in visitor.config["dependencies"] if one["api_name"] == "generate")
            data = ["sea", "", False, *[None] * (len(generate["inputs"]) - 3)]
            begun, last = 0, None
            if visitor.join(generate["id"], data).status_code == 200:
                with visitor.listening() as messages:  # else the visitor counts as gone, and others may wait instead
                    answers = [visitor.join(generate["id"], data) for _ in range(9)]
                    taken = [answer.json()["event_id"] for answer in answers if answer.status_code == 200]
                    for message in messages if taken else ():
                        begun += message["msg"] == "process_starts"
                        if (last := message.get("event_id")) == taken[-1]:
                            break
                if taken and last == taken[-1]:  # else the stream ended before, since all was done
                    self.count("floods that were counted")
                    if 1 + len(taken) - begun > 3:  # two wait, and one may be about to say that it begins
                        self.fault(f"{1 + len(taken)} of one visitor's requests were taken, {begun} had begun")
        self.count("floods")
        time.sleep(chance.uniform(2, 6))

    def hostile(self, chance: random.Random) -> None:
        """Values that no page sends, foreign Hosts and Origins, files that are no pictures."""
        with Visitor(self.address) as visitor:
            events = [one for one in visitor.config["dependencies"] if one["backend_fn"] and not one["queue"]]
            for event in chance.sample(events, 5):
                data = [chance.choice(HOSTILE)] * len(event["inputs"])
                answer = visitor.call(event, data, chance.choice(CLICKS))
                if not plain(answer):
                    self.fault(f"not one plain line: {event['api_name']} {answer}")
            for refused in (
                visitor.http.get("/config", headers={"Host": "evil.example"}),
                visitor.http.post(f"{API}/queue/join", json={}, headers={"Origin": "https://evil.example"}),
                visitor.http.post(f"{API}/queue/join", content=b"x" * 600_000),
                visitor.http.post(f"{API}/upload", files=[("files", ("a.png", chance.randbytes(9_000)))]),
            ):
                if refused.status_code not in (403, 413, 415, 421):
                    self.fault(f"not refused: {refused.request.url} {refused.status_code}")
        self.count("attacks")
        time.sleep(chance.uniform(1, 4))

    def work(self, client: int) -> None:
        counts = ((self.honest, 30), (self.visitor, 8), (self.leaver, 4), (self.flooder, 4), (self.hostile, 4))
        roles = [role for role, count in counts for _ in range(count)]
        chance = random.Random(client)
        while time.monotonic() < self.ends:
            try:
                roles[client](chance)
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                self.fault(f"{roles[client].__name__}: {type(error).__name__} {error}")
                time.sleep(1)


def right_pictures(presets: Path, home: Path) -> dict[tuple[str, int], list[np.ndarray]]:
    studio = Studio(presets=presets, device="cpu", home=home)
    requests = {(prompt, seed): GenerateRequest(prompt=prompt, seed=seed) for prompt in PROMPTS for seed in SEEDS}
    return {
        key: [np.asarray(image.image, int) for image in studio.generate(one).images] for key, one in requests.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_fifty_clients_at_once(presets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {
        "OMS_PRESETS": str(presets), "OMS_HOME": str(tmp_path / "served"), "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    right = right_pictures(presets, tmp_path / "alone")
    memory: list[int] = []
    with running_app(environment, tmp_path / "app.txt") as address:
        server = process_of(address)
        ask(address, "generate", prompt="sea", seed=1)
        flood = Flood(address, right)
        with subprocess.Popen([sys.executable, "-c", WATCH, address], stdout=subprocess.PIPE, text=True) as watcher:
            with ThreadPoolExecutor(50) as pool:
                clients = [pool.submit(flood.work, number) for number in range(50)]
                while time.monotonic() < flood.ends:
                    time.sleep(max(0.2, SECONDS / 200))
                    memory.append(server.memory_info().rss)
                for client in clients:
                    client.result()
            watcher.kill()
            assert watcher.stdout is not None
            waited = [float(line) for line in watcher.stdout.read().split()]
        status, text = ask(address, "generate", prompt="sea", seed=2)
        assert status == 200 and "event: complete" in text
    assert not flood.faults, (len(flood.faults), Counter(one[:60] for one in flood.faults).most_common(5))
    assert "Traceback" not in (tmp_path / "app.txt").read_text()
    tenth = len(memory) // 10
    settled, last = (float(np.mean(part)) for part in (memory[5 * tenth : 6 * tenth], memory[-tenth:]))
    with capsys.disabled():
        longest = sorted(waited)[-3:]
        print(f"{SECONDS:.0f} s: {dict(flood.counts)}; {len(waited)} pages, the slowest {longest} s; "
              f"memory {settled / MiB:.0f} to {last / MiB:.0f} MiB")  # fmt: skip
    assert max(waited) <= PAGE_SECONDS
    assert last <= GROWTH * settled
    assert flood.counts["right pictures"] > SECONDS / 10
    assert flood.counts["floods that were counted"] > SECONDS / 100
