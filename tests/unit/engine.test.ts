import { describe, expect, test, vi } from "vitest";
import { Answer, joinText } from "../../www/engine/answer.js";
import { Connection, type Port } from "../../www/engine/connection.js";
import { aborted, GromaError, type Reason } from "../../www/engine/error.js";
import type { ToPage, ToWorker } from "../../www/engine/protocol.js";
import type { Segment } from "../../www/engine/types.js";
import { descriptionOf } from "../../www/worker/library.js";
import { engineDecodes } from "../../www/worker/decode.js";
import { colour } from "../../www/element/palette.js";
import { tidyBox } from "../../www/element/boxes.js";

const segment = (index: number, text: string, ids: number[] = []): Segment => ({
  index,
  kind: ids.length > 0 ? "phrase" : "text",
  text,
  delta: text,
  closed: true,
  regions: ids.map((id) => ({ id, box: [0, 0, 1, 1], score: 1 })),
});

class FakePort implements Port {
  readonly sent: ToWorker[] = [];
  onmessage: ((event: MessageEvent<ToPage>) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  ended = false;

  postMessage(message: ToWorker): void {
    this.sent.push(message);
  }

  terminate(): void {
    this.ended = true;
  }

  say(message: ToPage): void {
    this.onmessage?.({ data: message } as MessageEvent<ToPage>);
  }
}

describe("an answer", () => {
  test("gives its pieces to whoever iterates, from the beginning", async () => {
    const answer = new Answer((on) => {
      on(segment(0, "a"));
      on(segment(1, "b"));
      return Promise.reject(new GromaError("internal", "no"));
    });
    const seen: string[] = [];
    await expect(
      (async () => {
        for await (const piece of answer) seen.push(piece.text);
      })(),
    ).rejects.toMatchObject({ reason: "internal" });
    expect(seen).toEqual(["a", "b"]);
  });

  test("keeps what was said when it is stopped", async () => {
    const answer = new Answer((on) => {
      on(segment(0, "a dog", [3]));
      on(segment(1, "runs"));
      return Promise.reject(aborted());
    });
    await expect(answer.done).resolves.toMatchObject({
      text: "a dog runs",
      stopped: "aborted",
      regions: [{ id: 3 }],
    });
  });

  test("joins its segments as the command line does", () => {
    expect(joinText([{ text: "a dog" }, { text: "runs" }, { text: ". It barks" }, { text: "!" }])).toBe(
      "a dog runs. It barks!",
    );
    expect(joinText([{ text: "" }, { text: "x" }])).toBe("x");
  });
});

describe("the line to the worker", () => {
  test("brings errors back in our form", async () => {
    const port = new FakePort();
    const call = new Connection(port).call("models", null);
    const plain = new GromaError("part-corrupt", "Broken.", { part: "x" }).toPlain();
    port.say({ type: "error", id: 1, error: structuredClone(plain) });
    const error = await call.catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DOMException);
    expect(error).toMatchObject({
      name: "DataError",
      reason: "part-corrupt",
      message: "Broken.",
      details: { part: "x" },
    });
  });

  test.each<Reason>([
    "no-webgpu",
    "device-lost",
    "out-of-memory",
    "out-of-storage",
    "part-missing",
    "part-corrupt",
    "pack-invalid",
    "no-model",
    "image-unreadable",
    "image-too-large",
    "box-outside",
    "question-empty",
    "prompt-too-long",
    "aborted",
    "closed",
    "io",
    "usage",
    "internal",
  ])("brings “%s” back with name, message and details", async (reason) => {
    const port = new FakePort();
    const call = new Connection(port).call("models", null);
    const sent = new GromaError(reason, "What to do.", { part: "x", sizes: [1, 2] });
    port.say({ type: "error", id: 1, error: structuredClone(sent.toPlain()) });
    const got: unknown = await call.catch((e: unknown) => e);
    if (!(got instanceof GromaError)) throw new Error("another error");
    expect(got).toMatchObject({ reason, message: "What to do.", details: { part: "x", sizes: [1, 2] } });
    expect(got.name).toBe(sent.name);
    expect(got.name).toMatch(
      /^(Abort|NotSupported|QuotaExceeded|Network|InvalidState|Data|Encoding|Operation)Error$/,
    );
  });

  test("ends when the engine behind it has failed", async () => {
    const port = new FakePort();
    const connection = new Connection(port);
    const calls = [connection.call("models", null), connection.call("models", null)];
    const error = new GromaError("internal", "Failed.").toPlain();
    port.say({ type: "error", id: 1, error, fatal: true });
    for (const call of calls) await expect(call).rejects.toMatchObject({ reason: "internal" });
    expect(port.ended).toBe(true);
    expect(connection.broken?.reason).toBe("internal");
  });

  test("aborts with the caller's reason once the worker has stopped", async () => {
    const port = new FakePort();
    const stop = new AbortController();
    const call = new Connection(port).call("models", null, { signal: stop.signal });
    const reason = new TypeError("enough");
    stop.abort(reason);
    expect(port.sent.at(-1)).toEqual({ type: "abort", id: 1 });
    port.say({ type: "error", id: 1, error: aborted().toPlain() });
    await expect(call).rejects.toBe(reason);
  });

  test("tells what can't be copied to the worker, and keeps nothing of the call", async () => {
    const port = new FakePort();
    const { signal } = new AbortController();
    const gone = vi.spyOn(signal, "removeEventListener");
    port.postMessage = () => {
      throw new DOMException("A proxy could not be cloned.", "DataCloneError");
    };
    const connection = new Connection(port);
    const call = connection.call("models", null, { signal });
    await expect(call).rejects.toMatchObject({
      reason: "usage",
      message: expect.stringContaining("A proxy could not be cloned.") as string,
    });
    expect(gone).toHaveBeenCalledOnce();
  });

  test("fails everything when the worker fails", async () => {
    const port = new FakePort();
    const connection = new Connection(port);
    const call = connection.call("models", null);
    port.onerror?.({ message: "boom", preventDefault: () => undefined } as ErrorEvent);
    await expect(call).rejects.toMatchObject({ reason: "internal" });
    await expect(connection.call("models", null)).rejects.toMatchObject({ reason: "internal" });
    expect(port.ended).toBe(true);
  });
});

test("a model's address is its folder's or its description's", () => {
  expect(descriptionOf("https://h/m")).toBe("https://h/m/model.json");
  expect(descriptionOf("https://h/m/?v=1#x")).toBe("https://h/m/model.json?v=1");
  expect(descriptionOf("https://h/m/model.json")).toBe("https://h/m/model.json");
});

test("the engine decodes what the command line decodes", () => {
  const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  expect(engineDecodes(bytes("\x89PNG\r\n\x1a\n"))).toBe(true);
  expect(engineDecodes(bytes("\xff\xd8\xff\xe0"))).toBe(true);
  expect(engineDecodes(bytes("RIFF0000WEBPVP8 "))).toBe(true);
  expect(engineDecodes(bytes("RIFF0000WAVE"))).toBe(false);
  expect(engineDecodes(bytes("GIF89a"))).toBe(false);
  expect(engineDecodes(new Uint8Array())).toBe(false);
});

test("a phrase and its boxes share a colour, a bare list has one a box", () => {
  const { regions, phrases } = colour([
    segment(0, "a dog", [4]),
    segment(1, "and"),
    segment(2, "two cats", [1, 2]),
  ]);
  expect([...regions]).toEqual([
    [4, 0],
    [1, 1],
    [2, 1],
  ]);
  expect([...phrases]).toEqual([
    [0, 0],
    [2, 1],
  ]);
  expect([...colour([segment(0, "", [5, 6, 7])]).regions.values()]).toEqual([0, 1, 2]);
});

test("a drawn box is whole, ordered and inside", () => {
  expect(tidyBox([90.4, 20.6, -5, 400], { width: 100, height: 100 })).toEqual([0, 21, 90, 100]);
});
