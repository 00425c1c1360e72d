"""Groma Instruct's construction against a recorded server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from groma_training.data.photo import Object, Photo, Turn
from groma_training.instruct_data.__main__ import collected, construct, prepared, suitable
from groma_training.instruct_data.client import Endpoint, estimate, image_tokens
from groma_training.instruct_data.marks import draw_marks
from groma_training.instruct_data.prompt import Rejected, parse_answer, request_text

GOOD = json.dumps([{"question": "What is happening?", "answer": "<p>A dog</p>[0] chases <p>two balls</p>[1][2]."},
                   {"question": "Who wins?", "answer": "Nobody yet."}])


@pytest.fixture
def server():
    """Answers from a list of (status, text); keeps the requests it got."""

    class Recorded(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.requests.append((self.headers, body))
            status, text = self.server.replies.pop(0)
            self.send_response(status)
            self.end_headers()
            answer = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 900, "completion_tokens": 60}}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Recorded)
    httpd.requests, httpd.replies = [], []
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()


@pytest.fixture
def photos(tmp_path):
    Image.new("RGB", (90, 60), "gray").save(tmp_path / "a.png")
    objects = [Object((5, 5, 30, 30), "dog"), Object((40, 5, 50, 15), "ball"), Object((60, 5, 70, 15), "ball")]
    return [Photo(key, str(tmp_path / "a.png"), 90, 60, list(objects), captions=["A dog plays."]) for key in "abc"]


def test_construction_is_checked_and_resumed(server, photos, tmp_path):
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "vision", "secret", wait=0.01)
    server.replies += [(503, ""), (200, f"```json\n{GOOD}\n```"), (200, "I cannot do that."), (200, GOOD)]
    log = tmp_path / "log.jsonl"
    tally = construct(photos[:2], endpoint, log, turns=2)
    assert tally == {"taken": 1, "no JSON list": 1} and len(server.requests) == 3
    headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer secret"
    assert body["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    construct(photos, endpoint, log, turns=2)
    assert len(server.requests) == 4, "answered photos are not paid for again"
    kept = collected(photos, log)
    assert [p.id for p in kept] == ["a", "c"]
    assert kept[0].turns[0].answer == "<p>A dog</p>[0] chases <p>two balls</p>[1][2]."
    assert "secret" not in log.read_text()


def test_a_photo_that_is_refused_is_passed_over_for_good(server, photos, tmp_path):
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "vision", wait=0.01)
    server.replies += [(400, "too large"), (200, None), (200, GOOD)]
    log = tmp_path / "log.jsonl"
    tally = construct(photos, endpoint, log, turns=2)
    assert sorted(fate.split(":")[0] for fate in tally) == ["refused", "refused", "taken"]
    construct(photos, endpoint, log, turns=2)
    assert len(server.requests) == 3 and [p.id for p in collected(photos, log)] == ["c"]


def test_what_is_asked_stands_in_the_request(server, photos, tmp_path):
    photos[0].turns = [Turn("What colour is the dog?", "Brown.")]
    server.replies += [(200, GOOD)]
    construct(photos[:1], Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "vision"), tmp_path / "log.jsonl", turns=2)
    text = server.requests[0][1]["messages"][1]["content"][0]["text"]
    assert "- What colour is the dog? Brown." in text


def test_refused_requests_are_not_repeated(server, photos, tmp_path):
    server.replies += [(401, "")]
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "vision", wait=0.01)
    with pytest.raises(RuntimeError, match="401"):
        construct(photos[:1], endpoint, tmp_path / "log.jsonl", turns=2)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("answer", "reason"), [
    ("<p>A dog</p>[9] runs after <p>a ball</p>[1].", "unknown region"),
    ("A dog[0] runs after <p>a ball</p>[1].", "torn apart"),
    ("<p>A dog</p>[0] in the bounding box and <p>a ball</p>[1].", "speaks about the marks"),
    ("A dog runs.", "hardly grounded")])
def test_broken_rules_are_named(answer, reason):
    text = json.dumps([{"question": "Q?", "answer": answer}, {"question": "Q?", "answer": "Yes."}])
    with pytest.raises(Rejected) as caught:
        parse_answer(text, 3)
    assert reason in caught.value.reason


def test_request_tells_regions_and_captions(photos):
    text = request_text(photos[0], ["dog", "ball", "ball"])
    assert "0: dog, 56 83 333 500" in text and "- A dog plays." in text


def test_marks_change_only_a_copy(photos):
    image = Image.new("RGB", (90, 60), "gray")
    marked = draw_marks(image, [o.box for o in photos[0].objects])
    assert marked.size == image.size and marked.tobytes() != image.tobytes()
    assert image.getcolors() == [(90 * 60, (128, 128, 128))]


def test_suitable_photos_and_the_estimate(photos):
    photos[0].objects.append(Object((0, 0, 90, 60), "crowd", True))
    assert suitable(photos[0]) and len(prepared(photos[0]).objects) == 3
    assert image_tokens(640, 480) == 85 + 170 * 2
    cost = estimate([(512, 512, "x" * 100)] * 2, "y" * 1000, 500, (2.0, 10.0))
    assert cost == {"photos": 2, "prompt_tokens": 1170, "answer_tokens": 1000, "cost": 0.0123}
