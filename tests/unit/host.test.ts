import { beforeEach, describe, expect, test } from "vitest";
import { aborted, GromaError, type PlainError } from "../../www/engine/error.js";
import type { Method, ToPage } from "../../www/engine/protocol.js";
import type { AnswerResult, Segment } from "../../www/engine/types.js";
import type { Engine, EngineModel, EnginePhoto } from "../../www/worker/engine.js";
import { Host } from "../../www/worker/host.js";
import type { Library } from "../../www/worker/library.js";

const RESULT: AnswerResult = {
  text: "yes",
  segments: [],
  regions: [],
  tokens: [1],
  stopped: "end",
  timing: { vision_ms: 0, regions_ms: 0, prefill_ms: 0, decode_ms: 0, prompt: 0, reused: 0, prefilled: 0 },
};

/** An engine whose answers end when the test says so. */
class FakeEngine implements Engine {
  dead: Error | undefined;
  readonly log: string[] = [];
  readonly finish: (() => void)[] = [];
  running = 0;
  mostAtOnce = 0;

  load(): Promise<EngineModel> {
    this.log.push("load");
    return Promise.resolve({
      contextLength: 64,
      open: () => Promise.resolve(this.photo()),
      free: () => this.log.push("free model"),
    });
  }

  photo(): EnginePhoto {
    return {
      width: 4,
      height: 3,
      regions: [],
      ask: (request, onSegment, { signal }) => {
        this.running++;
        this.mostAtOnce = Math.max(this.mostAtOnce, this.running);
        this.log.push(`ask ${request.seed}`);
        return new Promise<AnswerResult>((resolve, reject) => {
          signal.addEventListener("abort", () => reject(aborted()));
          this.finish.push(() => {
            onSegment({
              index: 0,
              kind: "text",
              text: "yes",
              delta: "yes",
              closed: true,
              regions: [],
            } satisfies Segment);
            resolve(RESULT);
          });
        }).finally(() => this.running--);
      },
      reset: () => this.log.push("reset"),
      free: () => this.log.push("free photo"),
    };
  }
}

const library = {
  fetch: () =>
    Promise.resolve({
      manifest: { name: "tiny", licence: [], quantisation: {}, files: [], total: 9, text: "{}" },
      reader: {},
    }),
} as unknown as Library;

let engine: FakeEngine;
let host: Host;
let messages: ToPage[];
let id: number;

beforeEach(() => {
  engine = new FakeEngine();
  messages = [];
  id = 0;
  host = new Host({
    library: () => Promise.resolve(library),
    engine: () => Promise.resolve(engine),
    post: (message) => messages.push(message),
  });
});

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

function send(method: Method, args: unknown): number {
  id++;
  host.receive({ type: "call", id, method, args } as never);
  return id;
}

const answerTo = (call: number) => messages.find((m) => m.id === call && m.type !== "event");
const errorOf = (call: number): PlainError | undefined => {
  const message = answerTo(call);
  return message?.type === "error" ? message.error : undefined;
};

const request = (seed: number) => ({
  photo: 1,
  request: { task: { kind: "describe" }, maxTokens: 1, temperature: 0, seed },
});

async function opened(): Promise<void> {
  send("load", { model: "https://host/", device: { kind: "cpu", adapter: "" }, debug: {} });
  send("open", { source: { blob: new Blob([new Uint8Array([0xff, 0xd8, 0xff])]) } });
  await turn();
  await turn();
}

describe("the worker", () => {
  test("loads, opens, answers with events on the way", async () => {
    await opened();
    const ask = send("ask", request(1));
    await turn();
    engine.finish.shift()?.();
    await turn();
    expect(messages.filter((m) => m.id === ask).map((m) => m.type)).toEqual(["event", "result"]);
    expect(answerTo(1)).toMatchObject({
      type: "result",
      result: { model: "tiny", contextLength: 64, bytes: 9 },
    });
  });

  test("answers one after the other", async () => {
    await opened();
    send("ask", request(1));
    send("ask", request(2));
    await turn();
    expect(engine.log.filter((entry) => entry.startsWith("ask"))).toEqual(["ask 1"]);
    engine.finish.shift()?.();
    await turn();
    engine.finish.shift()?.();
    await turn();
    expect(engine.mostAtOnce).toBe(1);
  });

  test("stops what runs and forgets what waits", async () => {
    await opened();
    const [first, second] = [send("ask", request(1)), send("ask", request(2))];
    await turn();
    host.receive({ type: "abort", id: second });
    host.receive({ type: "abort", id: first });
    await turn();
    expect(errorOf(first)?.reason).toBe("aborted");
    expect(errorOf(second)?.reason).toBe("aborted");
    expect(engine.log).not.toContain("ask 2");
  });

  test("stops everything before it gives back", async () => {
    await opened();
    const ask = send("ask", request(1));
    await turn();
    send("destroy", null);
    await turn();
    expect(errorOf(ask)?.reason).toBe("aborted");
    expect(engine.log.slice(-2)).toEqual(["free photo", "free model"]);
  });

  test("says that a photo is closed", async () => {
    await opened();
    send("close", { photo: 1 });
    const ask = send("ask", request(1));
    await turn();
    expect(errorOf(ask)).toMatchObject({ reason: "closed", name: "InvalidStateError" });
  });

  test("does nothing more after a trap", async () => {
    await opened();
    engine.dead = new GromaError("internal", "The engine failed.");
    const ask = send("ask", request(1));
    await turn();
    expect(errorOf(ask)?.reason).toBe("internal");
    expect(engine.log).not.toContain("ask 1");
  });

  test("needs a model first", async () => {
    const open = send("open", { source: { blob: new Blob([]) } });
    await turn();
    expect(errorOf(open)?.reason).toBe("closed");
  });
});
