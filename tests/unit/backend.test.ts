import { beforeEach, describe, expect, test, vi } from "vitest";
import { GromaError } from "../../www/engine/error.js";
import { Groma } from "../../www/engine/groma.js";
import type { Photo } from "../../www/engine/photo.js";
import { FakeWorker, lost, PHOTO } from "./fake-engine.js";

vi.stubGlobal("Worker", FakeWorker);
vi.stubGlobal("location", { href: "https://host/page/" });
vi.stubGlobal("navigator", {});

let model = 0;
let options: { model: string; device: "cpu" };

beforeEach(() => {
  FakeWorker.all.length = 0;
  // An engine of its own a test.
  options = { model: `m${++model}/`, device: "cpu" };
});

/** Waits until it is so. */
const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), { interval: 1 });

const worker = (at = 0): FakeWorker => {
  const found = FakeWorker.all[at];
  if (!found) throw new Error("no worker");
  return found;
};

async function ready(): Promise<{ groma: Groma; photo: Photo }> {
  const groma = await Groma.create(options);
  return { groma, photo: await groma.open(PHOTO) };
}

const seeded = (seed: number) => ({ seed });

describe("engines of one page", () => {
  test("of the same model and device are one, until the last is given back", async () => {
    const [a, b] = await Promise.all([Groma.create(options), Groma.create(options)]);
    const c = await Groma.create(options);
    expect(FakeWorker.all).toHaveLength(1);
    expect(worker().engine.log).toEqual(["load"]);
    const photo = await b.open(PHOTO);
    const answer = photo.ask("What?");
    await a.destroy();
    await a.destroy();
    await expect(a.open(PHOTO)).rejects.toMatchObject({ reason: "closed" });
    await until(() => worker().engine.finish.length > 0);
    worker().engine.finish.shift()?.();
    await expect(answer.done).resolves.toMatchObject({ text: "yes" });
    await c.destroy();
    expect(worker().ended).toBe(false);
    await b.destroy();
    expect(worker().engine.log.slice(-2)).toEqual(["free photo", "free model"]);
    expect(worker().ended).toBe(true);
    await (await Groma.create(options)).destroy();
    expect(FakeWorker.all).toHaveLength(2);
  });

  test("of another device are another", async () => {
    const a = await Groma.create(options);
    const b = await Groma.create({ ...options, debug: { numerics: "exact" } });
    expect(FakeWorker.all).toHaveLength(2);
    await Groma.models();
    expect(FakeWorker.all).toHaveLength(2);
    await Promise.all([a.destroy(), b.destroy()]);
  });

  test("that only one gives up go on loading for the other", async () => {
    const stop = new AbortController();
    const seen: number[] = [];
    const first = Groma.create({ ...options, signal: stop.signal });
    const second = Groma.create({
      ...options,
      monitor: (m) => m.addEventListener("downloadprogress", (e) => seen.push((e as ProgressEvent).loaded)),
    });
    stop.abort();
    await expect(first).rejects.toMatchObject({ name: "AbortError", reason: "aborted" });
    const groma = await second;
    expect([seen[0], seen.at(-1)]).toEqual([0, 1]);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    await groma.destroy();
  });

  test("that everyone gives up end with their worker", async () => {
    const stop = new AbortController();
    const reason = new TypeError("enough");
    const created = Groma.create({ ...options, signal: stop.signal });
    await until(() => FakeWorker.all.length > 0);
    worker().engine.gate = new Promise(() => undefined);
    await until(() => worker().engine.log.includes("load"));
    stop.abort(reason);
    await expect(created).rejects.toBe(reason);
    expect(worker().ended).toBe(true);
  });
});

describe("a photo", () => {
  test("that is closed ends what is asked of it, and answers no more", async () => {
    const { groma, photo } = await ready();
    const answer = photo.ask("What?");
    await photo.close();
    await expect(answer.done).resolves.toMatchObject({ stopped: "aborted" });
    await expect(photo.ask("And?").done).rejects.toMatchObject({
      reason: "closed",
      name: "InvalidStateError",
    });
    await expect(photo.reset()).rejects.toMatchObject({ reason: "closed" });
    expect(worker().engine.log).toContain("free photo");
    await groma.destroy();
  });

  test("answers two questions at once one after the other", async () => {
    const { groma, photo } = await ready();
    const answers = [photo.ask("a", seeded(1)), photo.ask("b", seeded(2))];
    for (let at = 0; at < 2; at++) {
      await until(() => worker().engine.finish.length > at);
      worker().engine.finish[at]?.();
    }
    for (const answer of answers) await expect(answer.done).resolves.toMatchObject({ text: "yes" });
    expect(worker().engine.mostAtOnce).toBe(1);
    expect(worker().engine.log.slice(-2)).toEqual(["ask 1", "ask 2"]);
    await groma.destroy();
  });

  test("that is given up while it is opened is not opened", async () => {
    const groma = await Groma.create(options);
    await expect(groma.open(PHOTO, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      reason: "aborted",
    });
    expect(worker().engine.log).toEqual(["load"]);
    await groma.destroy();
  });
});

test("a worker that the browser refuses is told with what to do", async () => {
  vi.stubGlobal("Worker", function refused() {
    throw new DOMException("Script at 'https://cdn' cannot be accessed", "SecurityError");
  });
  const creating = Groma.create(options).finally(() => vi.stubGlobal("Worker", FakeWorker));
  await expect(creating).rejects.toMatchObject({
    reason: "usage",
    message: expect.stringContaining("beside the page") as string,
  });
});

test("our copy of a bitmap is closed where its photo is given up", async () => {
  const close = vi.fn();
  class Bitmap {
    readonly width = 1;
    readonly height = 1;
    readonly close = close;
  }
  let copied: () => void = () => undefined;
  const copy = () => new Promise((done) => (copied = () => done(new Bitmap())));
  vi.stubGlobal("ImageBitmap", Bitmap);
  vi.stubGlobal("createImageBitmap", copy);
  class Canvas {
    readonly getContext = () => null;
  }
  vi.stubGlobal("OffscreenCanvas", Canvas);
  const groma = await Groma.create(options);
  const stop = new AbortController();
  const opening = groma.open(new Bitmap(), { signal: stop.signal });
  stop.abort();
  await expect(opening).rejects.toMatchObject({ reason: "aborted" });
  copied();
  await until(() => close.mock.calls.length === 1);
  const late = groma.open(new Bitmap());
  await groma.destroy();
  copied();
  await expect(late).rejects.toMatchObject({ reason: "closed" });
  await until(() => close.mock.calls.length === 2);
  for (const name of ["ImageBitmap", "createImageBitmap", "OffscreenCanvas"]) vi.stubGlobal(name, undefined);
});

describe("after a failure", () => {
  test("of the worker what waits fails, and the next question starts it again", async () => {
    const { groma, photo } = await ready();
    const first = photo.ask("a", seeded(1));
    await until(() => worker().engine.finish.length > 0);
    worker().engine.finish.shift()?.();
    await first.done;
    const waiting = [photo.ask("b", seeded(2)), photo.ask("c", seeded(3))];
    await until(() => worker().engine.finish.length > 0);
    worker().crash();
    for (const answer of waiting) await expect(answer.done).rejects.toMatchObject({ reason: "internal" });
    expect(worker().ended).toBe(true);
    const next = photo.ask("d", seeded(4));
    await until(() => FakeWorker.all.length === 2 && worker(1).engine.finish.length > 0);
    // The conversation goes on: what was answered is known, what failed is not.
    expect(worker(1).engine.log).toEqual(["load", "open", "recall 1", "ask 4"]);
    worker(1).engine.finish.shift()?.();
    await expect(next.done).resolves.toMatchObject({ text: "yes" });
    await groma.destroy();
    expect(worker(1).ended).toBe(true);
  });

  test("of the engine its worker ends, and the next call has a new one", async () => {
    const { groma, photo } = await ready();
    worker().engine.dead = new Error("trap");
    await expect(photo.ask("a").done).rejects.toMatchObject({ reason: "internal" });
    const other = await groma.open(PHOTO);
    expect(FakeWorker.all.map((w) => w.ended)).toEqual([true, false]);
    expect(other.width).toBe(4);
    await groma.destroy();
  });

  test("a lost GPU is opened anew and the question asked again, with nothing said twice", async () => {
    const { groma, photo } = await ready();
    const { engine } = worker();
    const pieces: boolean[] = [];
    const answer = photo.ask("a", seeded(1));
    const reading = (async () => {
      for await (const piece of answer) pieces.push(piece.closed);
    })();
    await until(() => engine.fail.length > 0);
    engine.fail.shift()?.(lost());
    engine.finish.shift();
    await until(() => engine.finish.length > 0);
    engine.finish.shift()?.();
    await reading;
    await expect(answer.done).resolves.toMatchObject({ text: "yes", stopped: "end" });
    expect(pieces).toEqual([false, true]);
    expect(FakeWorker.all).toHaveLength(1);
    expect(engine.log).toEqual([
      "load",
      "open",
      "ask 1",
      "free photo",
      "free model",
      "load",
      "open",
      "ask 1",
    ]);
    await groma.destroy();
  });

  test("a question is stopped while the engine starts again for it", async () => {
    const { groma, photo } = await ready();
    const { engine } = worker();
    const stop = new AbortController();
    const answer = photo.ask("a", { signal: stop.signal });
    await until(() => engine.fail.length > 0);
    engine.gate = new Promise(() => undefined);
    engine.fail.shift()?.(lost());
    await until(() => engine.log.filter((line) => line === "load").length === 2);
    stop.abort();
    await expect(answer.done).resolves.toMatchObject({ stopped: "aborted" });
    await groma.destroy();
    expect(worker().ended).toBe(true);
  });

  test("info says what runs now, also where that is another device", async () => {
    const adapter = {
      info: { description: "A card", vendor: "", architecture: "", isFallbackAdapter: false },
    };
    const requestAdapter = vi.fn(() => Promise.resolve<typeof adapter | null>(adapter));
    vi.stubGlobal("navigator", { gpu: { requestAdapter } });
    const groma = await Groma.create({ ...options, device: "auto" });
    expect(groma.info).toMatchObject({ device: "gpu", adapter: "A card" });
    const photo = await groma.open(PHOTO);
    requestAdapter.mockResolvedValue(null);
    const answer = photo.ask("a");
    await until(() => worker().engine.fail.length > 0);
    worker().engine.fail.shift()?.(lost());
    expect(groma.info, "while there is none").toMatchObject({ device: "gpu" });
    await until(() => worker().engine.finish.length > 1);
    worker().engine.finish[1]?.();
    await answer.done;
    expect(groma.info).toMatchObject({ device: "cpu", note: "no-adapter" });
    vi.stubGlobal("navigator", {});
    await groma.destroy();
  });

  test("a start that fails leaves nothing that looks usable", async () => {
    const { groma, photo } = await ready();
    worker().crash();
    const failing = photo.ask("a");
    await until(() => FakeWorker.all.length === 2);
    let fail: (error: unknown) => void = () => undefined;
    worker(1).engine.gate = new Promise((_, reject) => (fail = reject));
    await until(() => worker(1).engine.log.includes("load"));
    fail(new GromaError("pack-invalid", "No model."));
    await expect(failing.done).rejects.toMatchObject({ reason: "pack-invalid" });
    worker(1).engine.gate = Promise.resolve();
    await expect(groma.open(PHOTO)).resolves.toMatchObject({ width: 4 });
    await groma.destroy();
  });

  test("a GPU that is lost twice is told, and the next question tries again", async () => {
    const { groma, photo } = await ready();
    const { engine } = worker();
    const answer = photo.ask("a");
    for (let at = 0; at < 2; at++) {
      await until(() => engine.fail.length > at);
      engine.fail[at]?.(lost());
    }
    await expect(answer.done).rejects.toMatchObject({ reason: "device-lost", name: "OperationError" });
    const next = photo.ask("b");
    await until(() => engine.finish.length > 2);
    engine.finish[2]?.();
    await expect(next.done).resolves.toMatchObject({ text: "yes" });
    await groma.destroy();
  });

  test("a new conversation stays new", async () => {
    const { groma, photo } = await ready();
    const first = photo.ask("a", seeded(1));
    await until(() => worker().engine.finish.length > 0);
    worker().engine.finish.shift()?.();
    await first.done;
    worker().crash();
    await photo.reset();
    const next = photo.ask("b", seeded(2));
    await until(() => FakeWorker.all.length === 2 && worker(1).engine.finish.length > 0);
    expect(worker(1).engine.log).not.toContain("recall 1");
    worker(1).engine.finish.shift()?.();
    await next.done;
    await groma.destroy();
  });
});
