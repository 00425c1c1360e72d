/** The models on this machine: which are here, what is missing, bringing it here. */

import { aborted, GromaError } from "../engine/error.js";
import type { CachedEntry } from "../engine/protocol.js";
import type { Availability, ModelSize } from "../engine/types.js";
import { downloadPart, type Net } from "./download.js";
import { invalid, MAX_MANIFEST, parseManifest, partsOf, type Manifest, type Part } from "./manifest.js";
import { PackReader } from "./reader.js";
import type { Store } from "./store.js";

/** Told the bytes that are here. */
export type OnBytes = (bytes: number, total: number, cached: boolean) => void;

/** What tabs agree on, for they share the store. */
export interface Locks {
  /** Runs alone among all who name the same lock. */
  readonly run: <T>(name: string, signal: AbortSignal, run: () => Promise<T>) => Promise<T>;
  /** The locks that someone holds now. */
  readonly held: () => Promise<ReadonlySet<string>>;
}

const AT_ONCE = 3;
// How often whoever waits for another tab's download looks how far it is.
const LOOK_MS = 250;
// How long the host of a model that is here may take to say whether there is a newer one.
const PATIENCE_MS = 5000;
// Held while records change.
const RECORDS = "groma-records";
const MIB = 1024 * 1024;

/** A pack that is wholly here. */
export interface LocalPack {
  readonly manifest: Manifest;
  readonly reader: PackReader;
}

/** Models by their address. */
export class Library {
  readonly #store: Store;
  readonly #net: Net;
  readonly #locks: Locks;

  constructor(store: Store, net: Net, locks: Locks) {
    this.#store = store;
    this.#net = net;
    this.#locks = locks;
  }

  /** Whether a model is here, is on its way, could be here, or neither. */
  async availability(model: string, signal: AbortSignal): Promise<Availability> {
    try {
      const missing = await this.#missing(await this.#manifest(descriptionOf(model), signal));
      if (missing.length === 0) return "available";
      const held = await this.#locks.held();
      return missing.some((part) => held.has(lockOf(part))) ? "downloading" : "downloadable";
    } catch (error) {
      if (signal.aborted) throw error;
      return "unavailable";
    }
  }

  /** A model's name, licences and bytes, and the bytes that are not here. */
  async size(model: string, signal: AbortSignal): Promise<ModelSize> {
    const manifest = await this.#manifest(descriptionOf(model), signal);
    const missing = await this.#missing(manifest);
    return {
      name: manifest.name,
      licence: manifest.licence,
      bytes: manifest.total,
      missing: missing.reduce((sum, part) => sum + part.size, 0),
      memory: manifest.memory,
    };
  }

  /** Brings a model here and opens it. */
  async fetch(model: string, signal: AbortSignal, onBytes: OnBytes): Promise<LocalPack> {
    const url = descriptionOf(model);
    const manifest = await this.#manifest(url, signal);
    const missing = await this.#missing(manifest);
    const arrived = new Map<string, number>();
    for (const part of missing) {
      const bytes = await this.#store.arrived(part.sha256);
      if (bytes > 0) arrived.set(part.sha256, Math.min(bytes, part.size));
    }
    const here = () => [...arrived.values()].reduce((sum, n) => sum + n, 0);
    const wanted = missing.reduce((sum, part) => sum + part.size, 0);
    await this.#checkRoom(wanted - here());
    if (missing.length > 0) await this.#locks.run(RECORDS, signal, () => this.#begin(url, manifest));
    const report = () => {
      const bytes = here();
      onBytes(manifest.total - wanted + bytes, manifest.total, missing.length === 0);
    };
    report();
    const queue = [...missing];
    const abort = new AbortController();
    const both = AbortSignal.any([signal, abort.signal]);
    const lane = async () => {
      for (let part = queue.shift(); part; part = queue.shift()) {
        if (both.aborted) throw aborted();
        await this.#part(part, new URL(part.name, url).href, both, (bytes) => {
          arrived.set(part.sha256, bytes);
          report();
        });
      }
    };
    const lanes = Array.from({ length: AT_ONCE }, lane);
    try {
      await Promise.all(lanes);
    } catch (error) {
      abort.abort();
      await Promise.allSettled(lanes);
      if (!isQuota(error)) throw error;
      throw outOfStorage(wanted - here(), await this.#store.room());
    }
    await this.#locks.run(RECORDS, signal, () => this.#keep(url, manifest));
    return { manifest, reader: await PackReader.open(manifest, this.#store) };
  }

  /** What is here, also of models of which parts have yet to come. */
  async list(): Promise<CachedEntry[]> {
    const entries = new Map<string, CachedEntry>();
    const counted = new Set<string>();
    for (const { url, manifest } of await this.#kept()) {
      let bytes = entries.get(url)?.bytes ?? 0;
      for (const { sha256, size } of partsOf(manifest)) {
        // Two versions of a model share parts.
        if (counted.has(`${url} ${sha256}`)) continue;
        counted.add(`${url} ${sha256}`);
        const here = await this.#store.has(sha256, size);
        bytes += here ? size : Math.min(size, await this.#store.arrived(sha256));
      }
      entries.set(url, { name: manifest.name, url, bytes });
    }
    return [...entries.values()];
  }

  /** Removes a model and the parts that no other model has. */
  async forget(model: string): Promise<void> {
    const url = descriptionOf(model);
    await this.#locks.run(RECORDS, new AbortController().signal, async () => {
      const gone = (await this.#kept()).filter((kept) => kept.url === url);
      const key = await this.#key(url);
      for (const name of [key, nextOf(key)]) await this.#store.setRecord(name, undefined);
      for (const { manifest } of gone) await this.#sweep(manifest);
    });
  }

  /** Notes that a model begins to arrive, so that what arrives can be listed and removed; an earlier version stays noted beside it. */
  async #begin(url: string, manifest: Manifest): Promise<void> {
    const key = await this.#key(url);
    const record = recordOf(url, manifest);
    const first = await this.#store.record(key);
    if (first === record) return;
    const name = first ? nextOf(key) : key;
    const other = await this.#store.record(name);
    await this.#store.setRecord(name, record);
    const forgotten = other && parseRecord(other);
    if (forgotten) await this.#sweep(forgotten.manifest);
  }

  /** Notes that a model is wholly here; what only an earlier version of it had goes. */
  async #keep(url: string, manifest: Manifest): Promise<void> {
    const before = (await this.#kept()).filter(
      (kept) => kept.url === url && kept.manifest.text !== manifest.text,
    );
    const key = await this.#key(url);
    await this.#store.setRecord(key, recordOf(url, manifest));
    await this.#store.setRecord(nextOf(key), undefined);
    for (const old of before) await this.#sweep(old.manifest);
  }

  /** Removes the parts of a description that no model which is kept has. */
  async #sweep(old: Manifest): Promise<void> {
    const kept = await this.#kept();
    const wanted = new Set(kept.flatMap(({ manifest }) => partsOf(manifest).map((part) => part.sha256)));
    for (const part of partsOf(old)) if (!wanted.has(part.sha256)) await this.#store.remove(part.sha256);
  }

  async #part(part: Part, url: string, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<void> {
    const turn = new AbortController();
    void this.#watch(part, AbortSignal.any([signal, turn.signal]), onBytes);
    try {
      await this.#locks.run(lockOf(part), signal, async () => {
        turn.abort();
        // Another tab may have brought it while this one waited.
        if (await this.#store.has(part.sha256, part.size)) onBytes(part.size);
        else await downloadPart(this.#store, this.#net, { part, url, signal, onBytes });
      });
    } finally {
      turn.abort();
    }
  }

  /** Tells how far another tab is with a part, until it is this one's turn. */
  async #watch(part: Part, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<void> {
    for (;;) {
      const ended = await this.#net.wait(LOOK_MS, signal).catch(() => true);
      if (ended === true) return;
      const bytes = await this.#store.arrived(part.sha256);
      if (bytes > 0 && !signal.aborted) onBytes(Math.min(bytes, part.size));
    }
  }

  /** From its host, so that a new version is seen; from the store where the host does not answer. */
  async #manifest(url: string, signal: AbortSignal): Promise<Manifest> {
    const kept = await this.#store.record(await this.#key(url));
    const record = kept && parseRecord(kept);
    // Without its host only what is wholly here is of use.
    const whole = record && (await this.#missing(record.manifest)).length === 0 ? record.manifest : undefined;
    let cause: string;
    try {
      // Who has the model need not wait for a host that hangs.
      const patience = whole ? AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]) : signal;
      const response = await this.#net.fetch(url, { cache: "no-cache", signal: patience });
      if (response.ok) return parseManifest(await shortText(response));
      cause = `its host answered ${response.status}`;
    } catch (error) {
      if (signal.aborted) throw aborted();
      // A gate of a public network answers for every host.
      if (error instanceof GromaError && !whole) throw error;
      cause = error instanceof Error ? error.message : String(error);
    }
    if (whole) return whole;
    throw new GromaError(
      "no-model",
      `There is no model at this address: ${cause}. Check the address and the connection.`,
      { url, cause },
    );
  }

  async #missing(manifest: Manifest): Promise<Part[]> {
    const missing: Part[] = [];
    for (const part of partsOf(manifest)) {
      if (!(await this.#store.has(part.sha256, part.size))) missing.push(part);
    }
    return missing;
  }

  async #checkRoom(wanted: number): Promise<void> {
    const room = await this.#store.room();
    if (room !== undefined && wanted > room) throw outOfStorage(wanted, room);
  }

  async #kept(): Promise<{ url: string; manifest: Manifest }[]> {
    const kept = [];
    for (const key of await this.#store.records()) {
      const text = await this.#store.record(key);
      if (!text) continue;
      const record = parseRecord(text);
      if (record) kept.push(record);
    }
    return kept;
  }

  #key(url: string): Promise<string> {
    return this.#net.sha256(new TextEncoder().encode(url));
  }
}

/** Where a version is noted that arrives while another one is here. */
function nextOf(key: string): string {
  return `${key}-next`;
}

function recordOf(url: string, manifest: Manifest): string {
  return JSON.stringify({ url, text: manifest.text });
}

/** The text of an answer that must not be long. */
async function shortText(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (!reader) return response.text();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.length;
    if (bytes > MAX_MANIFEST) {
      await reader.cancel().catch(() => undefined);
      throw invalid(`its description is longer than ${MAX_MANIFEST / MIB} MiB`);
    }
    text += decoder.decode(value, { stream: true });
  }
}

/** A record of ours; nothing where it is of another version or was cut while it was written. */
function parseRecord(text: string): { url: string; manifest: Manifest } | undefined {
  try {
    const { url, text: description } = JSON.parse(text) as { url: string; text: string };
    return { url, manifest: parseManifest(description) };
  } catch {
    return undefined;
  }
}

function lockOf(part: Part): string {
  return `groma-part-${part.sha256}`;
}

function isQuota(error: unknown): boolean {
  return error instanceof DOMException && error.name === "QuotaExceededError";
}

/** `room` is what the browser says is free; it may say more than it gives. */
function outOfStorage(wanted: number, room: number | undefined): GromaError {
  const need = `The model needs ${Math.ceil(wanted / MIB)} MiB more of this browser's storage`;
  const have =
    room !== undefined && room < wanted
      ? `and ${Math.max(0, Math.floor(room / MIB))} MiB are free`
      : "than it gives";
  return new GromaError(
    "out-of-storage",
    `${need} ${have}. Free some storage and try again; what has arrived is kept.`,
    { requested: wanted, quota: room },
  );
}

/** The address of `model.json`, given it or its folder. */
export function descriptionOf(model: string): string {
  const url = new URL(model);
  url.hash = "";
  if (!url.pathname.endsWith(".json")) url.pathname = `${url.pathname.replace(/\/$/, "")}/model.json`;
  return url.href;
}
