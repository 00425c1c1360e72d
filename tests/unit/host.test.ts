import { beforeEach, describe, expect, test } from "vitest";
import { GromaError, type PlainError } from "../../www/engine/error.js";
import type { Method, ToPage } from "../../www/engine/protocol.js";
import { Host } from "../../www/worker/host.js";
import { FakeEngine, library, PHOTO } from "./fake-engine.js";

let engine: FakeEngine;
let host: Host;
let messages: ToPage[];
let id: number;
let failed: string[];

beforeEach(() => {
  engine = new FakeEngine();
  messages = [];
  id = 0;
  failed = [];
  host = new Host({
    library: () => Promise.resolve(library),
    engine: () => Promise.resolve(engine),
    post: (message) => messages.push(message),
    fail: (kind) => {
      failed.push(kind);
      return Promise.resolve();
    },
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
  send("open", { source: { blob: PHOTO } });
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
    expect(messages.filter((m) => m.id === ask).map((m) => m.type)).toEqual(["event", "event", "result"]);
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

  test("tells who gives up waiting at once", async () => {
    await opened();
    const [first, second] = [send("ask", request(1)), send("ask", request(2))];
    await turn();
    host.receive({ type: "abort", id: second });
    await turn();
    expect(errorOf(second)?.reason).toBe("aborted");
    expect(answerTo(first)).toBeUndefined();
    engine.finish.shift()?.();
    await turn();
    expect(answerTo(first)?.type).toBe("result");
    expect(engine.log).not.toContain("ask 2");
  });

  test("lets a look into the store end while it gives back", async () => {
    let go: () => void = () => undefined;
    const size = (_: string, signal: AbortSignal) =>
      new Promise((resolve, reject) => {
        go = () => (signal.aborted ? reject(new Error("stopped")) : resolve({}));
      });
    host = new Host({
      library: () => Promise.resolve({ size } as never),
      engine: () => Promise.resolve(engine),
      post: (message) => messages.push(message),
      fail: () => Promise.resolve(),
    });
    const looked = send("size", { model: "https://host/", debug: {} });
    await turn();
    send("destroy", null);
    go();
    await turn();
    expect(answerTo(looked)?.type).toBe("result");
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
    expect(answerTo(ask)).toMatchObject({ fatal: true });
    expect(engine.log).not.toContain("ask 1");
  });

  test("loads again: what was open before is given back first", async () => {
    await opened();
    send("load", { model: "https://host/", device: { kind: "cpu", adapter: "" }, debug: {} });
    await turn();
    expect(engine.log.slice(-3)).toEqual(["free photo", "free model", "load"]);
  });

  test("fails on request, once, after as many pieces as were asked for", async () => {
    const debug = { fault: { kind: "trap", after: 2 } };
    send("load", { model: "https://host/", device: { kind: "cpu", adapter: "" }, debug });
    send("open", { source: { blob: PHOTO } });
    await turn();
    for (const seed of [1, 2]) {
      send("ask", request(seed));
      await turn();
      expect(failed).toEqual(seed === 1 ? [] : ["trap"]);
      engine.finish.shift()?.();
      await turn();
      expect(failed).toEqual(["trap"]);
    }
  });

  test("needs a model first", async () => {
    const open = send("open", { source: { blob: new Blob([]) } });
    await turn();
    expect(errorOf(open)?.reason).toBe("closed");
  });
});
