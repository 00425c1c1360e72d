import { beforeEach, describe, expect, test, vi } from "vitest";
import { aborted } from "../../www/engine/error.js";
import { Library } from "../../www/worker/library.js";
import { MemoryStore } from "../../www/worker/store.js";
import { bytesOf, FakeNet, sha256, type Bytes } from "./net.js";

const HOME = "https://host/models/tiny/";

let net: FakeNet;
let store: MemoryStore;
let library: Library;
let decoder: Bytes;
let held: Set<string>;

const part = (name: string, bytes: Bytes) => ({ name, size: bytes.length, sha256: sha256(bytes) });

beforeEach(() => {
  net = new FakeNet();
  store = new MemoryStore();
  held = new Set();
  library = new Library(store, net, { run: (_, __, run) => run(), held: () => Promise.resolve(held) });
  decoder = bytesOf(100);
  const tokenizer = bytesOf(20, 9);
  const parts = [decoder.slice(0, 60), decoder.slice(60)];
  parts.forEach((bytes, at) => net.files.set(`${HOME}decoder.gguf.00${at}`, bytes));
  net.files.set(`${HOME}tokenizer.json`, tokenizer);
  const description = {
    format: "groma-pack",
    version: 1,
    name: "tiny",
    licence: [],
    config: {},
    generation: {},
    quantisation: {},
    total: 120,
    files: [
      {
        ...part("decoder.gguf", decoder),
        parts: parts.map((bytes, at) => part(`decoder.gguf.00${at}`, bytes)),
      },
      { ...part("tokenizer.json", tokenizer), parts: [part("tokenizer.json", tokenizer)] },
    ],
  };
  net.files.set(`${HOME}model.json`, new TextEncoder().encode(JSON.stringify(description)));
});

const never = new AbortController().signal;
const fetchAll = (onBytes: (bytes: number, total: number, cached: boolean) => void = () => undefined) =>
  library.fetch(HOME, never, onBytes);
const asked = (name: string) => net.requests.filter((request) => request.url.endsWith(name));

describe("a model", () => {
  test("comes part by part and is read as if it were not cut", async () => {
    const seen: number[] = [];
    const { reader } = await fetchAll((bytes, total) => {
      expect(total).toBe(120);
      seen.push(bytes);
    });
    expect(seen[0]).toBe(0);
    expect(seen.at(-1)).toBe(120);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(reader.read("decoder.gguf", 55, 10)).toEqual(decoder.slice(55, 65));
    expect(reader.read("decoder.gguf", 0, 100)).toEqual(decoder);
    expect(() => reader.read("none", 0, 1)).toThrow(/no bytes/);
    expect(() => reader.read("decoder.gguf", 95, 10)).toThrow(/no bytes/);
  });

  test("comes three parts at a time", async () => {
    // Five files of one part each.
    const pieces = Array.from({ length: 5 }, (_, at) => ({ name: `f${at}.gguf`, bytes: bytesOf(10, at) }));
    const files = pieces.map(({ name, bytes }) => ({ ...part(name, bytes), parts: [part(name, bytes)] }));
    for (const { name, bytes } of pieces) net.files.set(`${HOME}${name}`, bytes);
    const old = JSON.parse(new TextDecoder().decode(net.files.get(`${HOME}model.json`))) as object;
    const description = JSON.stringify({ ...old, total: 50, files });
    net.files.set(`${HOME}model.json`, new TextEncoder().encode(description));
    let open = 0;
    const most: number[] = [];
    const waiting: (() => void)[] = [];
    const slow: typeof fetch = async (input, init) => {
      if (input instanceof Request || String(input).endsWith(".json")) return net.fetch(input, init);
      most.push(++open);
      await new Promise<void>((done) => waiting.push(done));
      open--;
      return net.fetch(input, init);
    };
    const locks = {
      run: <T>(_: string, __: AbortSignal, run: () => Promise<T>) => run(),
      held: () => Promise.resolve(held),
    };
    const fetching = new Library(store, { fetch: slow, sha256: net.sha256, wait: net.wait }, locks).fetch(
      HOME,
      never,
      () => undefined,
    );
    await vi.waitFor(() => expect(open).toBe(3));
    for (let at = 0; at < 5; at++) {
      await vi.waitFor(() => expect(waiting.length).toBeGreaterThan(0));
      waiting.shift()?.();
    }
    await fetching;
    expect(Math.max(...most)).toBe(3);
    expect(most).toHaveLength(5);
  });

  test("is not fetched again", async () => {
    await expect(library.availability(HOME, never)).resolves.toBe("downloadable");
    await fetchAll();
    net.requests.length = 0;
    await expect(library.availability(HOME, never)).resolves.toBe("available");
    let cached = false;
    await fetchAll((_, __, all) => (cached = all));
    expect(cached).toBe(true);
    expect(net.requests.every((request) => request.url.endsWith("model.json"))).toBe(true);
  });

  test("opens without a network", async () => {
    await fetchAll();
    net.files.clear();
    await expect(library.size(HOME, never)).resolves.toEqual({
      name: "tiny",
      licence: [],
      bytes: 120,
      missing: 0,
      memory: expect.any(Number) as number,
    });
    await expect(fetchAll()).resolves.toBeDefined();
  });

  test("is listed and forgotten", async () => {
    await fetchAll();
    await expect(library.list()).resolves.toEqual([{ name: "tiny", url: `${HOME}model.json`, bytes: 120 }]);
    await library.forget(`${HOME}model.json`);
    await expect(library.list()).resolves.toEqual([]);
    await expect(library.availability(HOME, never)).resolves.toBe("downloadable");
  });

  test("of which a part is missing is listed with what has arrived, and forgotten", async () => {
    net.files.delete(`${HOME}decoder.gguf.001`);
    await expect(fetchAll()).rejects.toMatchObject({ reason: "part-missing" });
    const [entry] = await library.list();
    expect(entry).toMatchObject({ name: "tiny", url: `${HOME}model.json` });
    expect(entry?.bytes).toBeGreaterThan(0);
    expect(entry?.bytes).toBeLessThan(120);
    net.files.delete(`${HOME}model.json`);
    await expect(library.availability(HOME, never)).resolves.toBe("unavailable");
    await library.forget(`${HOME}model.json`);
    await expect(library.list()).resolves.toEqual([]);
    expect(await store.has(sha256(decoder.slice(0, 60)), 60)).toBe(false);
  });

  test("whose description does not end is refused", async () => {
    net.files.set(`${HOME}model.json`, new Uint8Array(5 * 2 ** 20).fill(32));
    await expect(library.size(HOME, never)).rejects.toMatchObject({ reason: "pack-invalid" });
  });

  test("that is not there is said so", async () => {
    await expect(library.fetch("https://host/none/", never, () => undefined)).rejects.toMatchObject({
      reason: "no-model",
      name: "NetworkError",
    });
    await expect(library.availability("https://host/none/", never)).resolves.toBe("unavailable");
  });

  test("that another tab is fetching is said so", async () => {
    held.add(`groma-part-${sha256(decoder.slice(0, 60))}`);
    await expect(library.availability(HOME, never)).resolves.toBe("downloading");
    await fetchAll();
    await expect(library.availability(HOME, never)).resolves.toBe("available");
  });

  test("that another tab has fetched meanwhile is not fetched again, and its progress is seen", async () => {
    const first = new Library(store, net, { run: (_, __, run) => run(), held: () => Promise.resolve(held) });
    let free: () => void = () => undefined;
    const other = new Promise<void>((done) => (free = done));
    store.arrived = () => Promise.resolve(7);
    const second = new Library(
      store,
      { fetch: net.fetch, sha256: net.sha256, wait: () => new Promise((done) => setTimeout(done, 1)) },
      {
        run: async (_, __, run) => {
          await other;
          return run();
        },
        held: () => Promise.resolve(held),
      },
    );
    const seen: number[] = [];
    const waiting = second.fetch(HOME, never, (bytes) => seen.push(bytes));
    await first.fetch(HOME, never, () => undefined);
    await new Promise((done) => setTimeout(done, 20));
    free();
    await waiting;
    expect(seen).toContain(21);
    expect(seen.at(-1)).toBe(120);
    expect(asked("000")).toHaveLength(1);
  });

  test("of a new version takes the place of the old one", async () => {
    await fetchAll();
    const old = new TextDecoder().decode(net.files.get(`${HOME}model.json`));
    const fresh = bytesOf(100, 77);
    const parts = [fresh.slice(0, 60), decoder.slice(60)];
    parts.forEach((bytes, at) => net.files.set(`${HOME}decoder.gguf.00${at}`, bytes));
    const text = old
      .replace(sha256(decoder.slice(0, 60)), sha256(fresh.slice(0, 60)))
      .replace(sha256(decoder), sha256(fresh));
    net.files.set(`${HOME}model.json`, new TextEncoder().encode(text));
    await fetchAll();
    await expect(store.has(sha256(decoder.slice(0, 60)), 60)).resolves.toBe(false);
    await expect(store.has(sha256(decoder.slice(60)), 40)).resolves.toBe(true);
    await expect(library.list()).resolves.toEqual([{ name: "tiny", url: `${HOME}model.json`, bytes: 120 }]);
  });

  test("of a new version that was given up is listed, with both, and forgotten with both", async () => {
    await fetchAll();
    const old = new TextDecoder().decode(net.files.get(`${HOME}model.json`));
    for (const seed of [77, 78]) {
      const fresh = bytesOf(100, seed);
      net.files.set(`${HOME}decoder.gguf.000`, fresh.slice(0, 60));
      net.files.delete(`${HOME}decoder.gguf.001`);
      const text = old
        .replace(sha256(decoder.slice(0, 60)), sha256(fresh.slice(0, 60)))
        .replace(sha256(decoder.slice(60)), sha256(fresh.slice(60)))
        .replace(sha256(decoder), sha256(fresh));
      net.files.set(`${HOME}model.json`, new TextEncoder().encode(text));
      await expect(fetchAll()).rejects.toMatchObject({ reason: "part-missing" });
      // What is whole, and 60 of what was to come; of the version before that nothing is left.
      await expect(library.list()).resolves.toEqual([{ name: "tiny", url: `${HOME}model.json`, bytes: 180 }]);
    }
    net.files.delete(`${HOME}model.json`);
    await expect(library.availability(HOME, never)).resolves.toBe("available");
    await library.forget(`${HOME}model.json`);
    await expect(library.list()).resolves.toEqual([]);
    expect(await store.has(sha256(bytesOf(100, 78).slice(0, 60)), 60)).toBe(false);
    expect(await store.has(sha256(decoder.slice(60)), 40)).toBe(false);
  });

  test("that is wholly here needs no host: neither one that hangs nor a gate that answers for it", async () => {
    await fetchAll();
    net.files.set(`${HOME}model.json`, new TextEncoder().encode("<!doctype html>Log in"));
    await expect(library.availability(HOME, never)).resolves.toBe("available");
    await expect(fetchAll()).resolves.toBeDefined();
    await library.forget(`${HOME}model.json`);
    await expect(fetchAll()).rejects.toMatchObject({ reason: "pack-invalid" });
  });

  test("whose record was cut is a model that is not listed", async () => {
    await fetchAll();
    const [key = ""] = await store.records();
    await store.setRecord(key, '{"url":"https://ho');
    await expect(library.list()).resolves.toEqual([]);
    await expect(library.availability(HOME, never)).resolves.toBe("available");
  });

  test("that fills the storage on its way is said so in MiB", async () => {
    const write = store.write.bind(store);
    store.room = () => Promise.resolve(1000 as unknown as undefined);
    store.write = async (name) => {
      const writer = await write(name);
      const append = writer.append.bind(writer);
      writer.append = (bytes) => {
        if (writer.size > 0) throw new DOMException("full", "QuotaExceededError");
        append(bytes);
      };
      return writer;
    };
    await expect(fetchAll()).rejects.toMatchObject({
      reason: "out-of-storage",
      name: "QuotaExceededError",
      message: expect.stringMatching(/needs 1 MiB more .* than it gives/) as string,
    });
  });

  test("that finds no room is said so before anything is fetched", async () => {
    store.room = () => Promise.resolve(50 as unknown as undefined);
    await expect(fetchAll()).rejects.toMatchObject({
      reason: "out-of-storage",
      name: "QuotaExceededError",
      message: expect.stringMatching(/needs 1 MiB more .* 0 MiB are free/) as string,
      details: { requested: 120, quota: 50 },
    });
    expect(asked("000")).toHaveLength(0);
  });
});

describe("a part", () => {
  test("that was cut goes on where it stopped", async () => {
    net.fates.push("cut");
    await fetchAll();
    expect(asked("000").map((request) => request.range)).toEqual([undefined, "bytes=30-"]);
  });

  test("that falls silent is asked for anew after half a minute, and goes on where it stopped", async () => {
    vi.useFakeTimers();
    net.fates.push("hang");
    const fetching = fetchAll();
    await vi.advanceTimersByTimeAsync(29_000);
    expect(asked("000")).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2_000);
    const { reader } = await fetching;
    vi.useRealTimers();
    expect(asked("000").map((request) => request.range)).toEqual([undefined, "bytes=30-"]);
    expect(reader.read("decoder.gguf", 0, 60)).toEqual(decoder.slice(0, 60));
  });

  test("that was fetched leaves no timer behind", async () => {
    vi.useFakeTimers();
    await fetchAll();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  test("of a host without ranges comes again as a whole", async () => {
    net.fates.push("cut", "no-ranges", "no-ranges", "no-ranges", "no-ranges");
    const { reader } = await fetchAll();
    expect(reader.read("decoder.gguf", 0, 100)).toEqual(decoder);
  });

  test("whose rest is refused comes again as a whole", async () => {
    net.fates.push("cut", "well", 416);
    const { reader } = await fetchAll();
    expect(reader.read("decoder.gguf", 0, 100)).toEqual(decoder);
    expect(asked("000").at(-1)?.range).toBeUndefined();
  });

  test("whose host sends another range than the one asked for comes again as a whole", async () => {
    net.fates.push("cut", "well", "other-range");
    const { reader } = await fetchAll();
    expect(reader.read("decoder.gguf", 0, 100)).toEqual(decoder);
  });

  test("that is damaged once is fetched anew", async () => {
    net.fates.push("damage");
    const { reader } = await fetchAll();
    expect(reader.read("decoder.gguf", 0, 60)).toEqual(decoder.slice(0, 60));
  });

  test("that stays damaged is reported and not kept", async () => {
    net.files.set(`${HOME}decoder.gguf.000`, bytesOf(60, 5));
    const wanted = sha256(decoder.slice(0, 60));
    await expect(fetchAll()).rejects.toMatchObject({
      reason: "part-corrupt",
      name: "DataError",
      details: { part: "decoder.gguf.000", expected: wanted },
    });
    await expect(store.has(wanted, 60)).resolves.toBe(false);
    await expect(library.list()).resolves.toMatchObject([{ bytes: 60 }]);
  });

  test("that is not there is reported at once", async () => {
    net.files.delete(`${HOME}decoder.gguf.001`);
    await expect(fetchAll()).rejects.toMatchObject({ reason: "part-missing", name: "NetworkError" });
    expect(asked("001")).toHaveLength(1);
  });

  test("of a host that is down is tried four times", async () => {
    net.fates.push(...Array.from({ length: 12 }, () => "down" as const));
    await expect(fetchAll()).rejects.toMatchObject({ reason: "part-missing" });
    expect(asked("000").length).toBeLessThanOrEqual(4);
    expect(net.waits.slice(0, 3).every((ms) => ms > 0)).toBe(true);
  });

  /** Waits until the signal aborts, whatever it waits for. */
  const whenAborted = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(aborted())));

  test("is given up in the pause before it is tried again", async () => {
    const stop = new AbortController();
    net.fates.push(...Array.from({ length: 12 }, () => "down" as const));
    const wait = (_: number, signal: AbortSignal) => {
      queueMicrotask(() => stop.abort());
      return whenAborted(signal);
    };
    const patient = new Library(
      store,
      { fetch: net.fetch, sha256: net.sha256, wait },
      { run: (_, __, run) => run(), held: () => Promise.resolve(held) },
    );
    await expect(patient.fetch(HOME, stop.signal, () => undefined)).rejects.toMatchObject({
      reason: "aborted",
    });
    expect(asked("000").length).toBeLessThanOrEqual(1);
  });

  test("is given up while another tab has it", async () => {
    const stop = new AbortController();
    const waiting = new Library(
      store,
      { fetch: net.fetch, sha256: net.sha256, wait: (_, signal) => whenAborted(signal) },
      {
        run: (name, signal, run) => {
          if (!name.startsWith("groma-part-")) return run();
          queueMicrotask(() => stop.abort());
          return whenAborted(signal);
        },
        held: () => Promise.resolve(held),
      },
    );
    await expect(waiting.fetch(HOME, stop.signal, () => undefined)).rejects.toMatchObject({
      reason: "aborted",
    });
    expect(asked("gguf.000")).toHaveLength(0);
  });

  test("is not fetched after a stop", async () => {
    const stop = new AbortController();
    const done = library.fetch(HOME, stop.signal, () => stop.abort());
    await expect(done).rejects.toMatchObject({ reason: "aborted", name: "AbortError" });
  });
});
