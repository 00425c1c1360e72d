"""Any OpenAI-compatible vision endpoint, with the standard library alone.

``GROMA_VISION_URL`` (…/v1), ``GROMA_VISION_KEY`` and ``GROMA_VISION_MODEL`` say which; the key is read from the
environment only and never printed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from PIL import Image

RETRIED = {408, 409, 429, 500, 502, 503, 504}
REFUSED = {400, 413, 415, 422}  # what was sent, not who sent it
TOKENS_PER_CHARACTER = 0.3


class Refused(Exception):
    """The endpoint does not answer this one request."""


@dataclass(frozen=True)
class Reply:
    text: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Endpoint:
    url: str
    model: str
    key: str = ""
    tries: int = 5
    wait: float = 2.0
    timeout: float = 120.0

    @classmethod
    def from_environment(cls) -> Endpoint:
        url, model = os.environ.get("GROMA_VISION_URL", ""), os.environ.get("GROMA_VISION_MODEL", "")
        if not url or not model:
            raise SystemExit("set GROMA_VISION_URL (…/v1) and GROMA_VISION_MODEL, and GROMA_VISION_KEY if it wants one")
        return cls(url.rstrip("/"), model, os.environ.get("GROMA_VISION_KEY", ""))

    def ask(self, system: str, text: str, image: Image.Image, max_tokens: int = 1200) -> Reply:
        """One chat completion; busy servers and broken connections are tried again, ever more slowly."""
        body = json.dumps({
            "model": self.model, "max_tokens": max_tokens, "temperature": 0.7,
            "messages": [{"role": "system", "content": system},
                         {"role": "user", "content": [{"type": "text", "text": text},
                                                      {"type": "image_url", "image_url": {"url": data_url(image)}}]}],
        }).encode()
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.tries):
            request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    raw = json.load(response)
                usage = raw.get("usage") or {}
                choices = raw.get("choices") or [{}]
                text = (choices[0].get("message") or {}).get("content")
                if not text:
                    raise Refused("an answer without text")
                return Reply(text, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
            except urllib.error.HTTPError as error:
                if error.code in REFUSED:
                    raise Refused(f"HTTP {error.code}: {error.read()[:300]!r}") from None
                if error.code not in RETRIED or attempt + 1 == self.tries:
                    raise RuntimeError(f"{self.url}: HTTP {error.code}: {error.read()[:300]!r}") from None
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                if attempt + 1 == self.tries:
                    raise RuntimeError(f"{self.url}: {error}") from None
            time.sleep(self.wait * 2**attempt)
        raise AssertionError("the last try returns or raises")


def data_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def image_tokens(width: int, height: int) -> int:
    """What common endpoints charge for a picture: 85, and 170 for every 512-px tile."""
    return 85 + 170 * -(-width // 512) * -(-height // 512)


def estimate(photos: list[tuple[int, int, str]], system: str, answer_tokens: int, prices: tuple[float, float]) -> dict:
    """photos: (width, height, request text); prices: currency units per million prompt and answer tokens."""
    fixed = len(system) * TOKENS_PER_CHARACTER
    prompt = sum(image_tokens(w, h) + fixed + len(text) * TOKENS_PER_CHARACTER for w, h, text in photos)
    answer = answer_tokens * len(photos)
    return {"photos": len(photos), "prompt_tokens": round(prompt), "answer_tokens": answer,
            "cost": round((prompt * prices[0] + answer * prices[1]) / 1e6, 4)}
