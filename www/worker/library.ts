/** The models on this machine: which are here, what is missing, bringing it here. */

import { aborted, GromaError } from "../engine/error.js";
import type { CachedEntry } from "../engine/protocol.js";
import type { Availability } from "../engine/types.js";
import { downloadPart, type Net } from "./download.js";
import { parseManifest, partsOf, type Manifest, type Part } from "./manifest.js";
import { PackReader } from "./reader.js";
import type { Store } from "./store.js";

/** Told the bytes that are here. */
export type OnBytes = (bytes: number, total: number, cached: boolean) => void;

/** Runs alone among all who name the same lock: other tabs share the store. */
export type Exclusive = <T>(name: string, signal: AbortSignal, run: () => Promise<T>) => Promise<T>;

const AT_ONCE = 3;
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
  readonly #lock: Exclusive;

  constructor(store: Store, net: Net, lock: Exclusive) {
    this.#store = store;
    this.#net = net;
    this.#lock = lock;
  }

  /** Whether a model is here, could be, or neither. */
  async availability(model: string, signal: AbortSignal): Promise<Availability> {
    try {
      const { missing } = await this.size(model, signal);
      return missing === 0 ? "available" : "downloadable";
    } catch (error) {
      if (signal.aborted) throw error;
      return "unavailable";
    }
  }

  /** A model's name and bytes, and the bytes that are not here. */
  async size(model: string, signal: AbortSignal): Promise<{ name: string; bytes: number; missing: number }> {
    const manifest = await this.#manifest(descriptionOf(model), signal);
    const missing = await this.#missing(manifest);
    return {
      name: manifest.name,
      bytes: manifest.total,
      missing: missing.reduce((sum, part) => sum + part.size, 0),
    };
  }

  /** Brings a model here and opens it. */
  async fetch(model: string, signal: AbortSignal, onBytes: OnBytes): Promise<LocalPack> {
    const url = descriptionOf(model);
    const manifest = await this.#manifest(url, signal);
    const missing = await this.#missing(manifest);
    await this.#checkRoom(missing);
    const arrived = new Map<string, number>();
    const wanted = missing.reduce((sum, part) => sum + part.size, 0);
    const report = () => {
      const bytes = [...arrived.values()].reduce((sum, n) => sum + n, 0);
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
      throw error;
    }
    await this.#store.setRecord(await this.#key(url), JSON.stringify({ url, text: manifest.text }));
    return { manifest, reader: await PackReader.open(manifest, this.#store) };
  }

  /** What is here. */
  async list(): Promise<CachedEntry[]> {
    const entries: CachedEntry[] = [];
    for (const { url, manifest } of await this.#kept()) {
      const missing = await this.#missing(manifest);
      const bytes = manifest.total - missing.reduce((sum, part) => sum + part.size, 0);
      entries.push({ name: manifest.name, url, bytes });
    }
    return entries;
  }

  /** Removes a model and the parts that no other model has. */
  async forget(model: string): Promise<void> {
    const url = descriptionOf(model);
    const kept = await this.#kept();
    const others = new Set(
      kept.filter((k) => k.url !== url).flatMap((k) => partsOf(k.manifest).map((p) => p.sha256)),
    );
    await this.#store.setRecord(await this.#key(url), undefined);
    for (const { manifest } of kept.filter((k) => k.url === url)) {
      for (const part of partsOf(manifest))
        if (!others.has(part.sha256)) await this.#store.remove(part.sha256);
    }
  }

  async #part(part: Part, url: string, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<void> {
    await this.#lock(`groma-part-${part.sha256}`, signal, async () => {
      // Another tab may have brought it while this one waited.
      if (await this.#store.has(part.sha256, part.size)) onBytes(part.size);
      else await downloadPart(this.#store, this.#net, { part, url, signal, onBytes });
    });
  }

  /** From its host, so that a new version is seen; from the store where the host does not answer. */
  async #manifest(url: string, signal: AbortSignal): Promise<Manifest> {
    let cause: string;
    try {
      const response = await this.#net.fetch(url, { cache: "no-cache", signal });
      if (response.ok) return parseManifest(await response.text());
      cause = `its host answered ${response.status}`;
    } catch (error) {
      if (signal.aborted) throw aborted();
      if (error instanceof GromaError) throw error;
      cause = error instanceof Error ? error.message : String(error);
    }
    const kept = await this.#store.record(await this.#key(url));
    if (kept) return parseManifest((JSON.parse(kept) as { text: string }).text);
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

  async #checkRoom(missing: readonly Part[]): Promise<void> {
    const wanted = missing.reduce((sum, part) => sum + part.size, 0);
    const room = await this.#store.room();
    if (room === undefined || wanted <= room) return;
    const [need, have] = [Math.ceil(wanted / MIB), Math.floor(room / MIB)];
    throw new GromaError(
      "out-of-storage",
      `The model needs ${need} MiB of this browser's storage and ${have} MiB are free. Free some storage and try again.`,
      { requested: wanted, quota: room },
    );
  }

  async #kept(): Promise<{ url: string; manifest: Manifest }[]> {
    const kept = [];
    for (const key of await this.#store.records()) {
      const text = await this.#store.record(key);
      if (!text) continue;
      const { url, text: description } = JSON.parse(text) as { url: string; text: string };
      kept.push({ url, manifest: parseManifest(description) });
    }
    return kept;
  }

  #key(url: string): Promise<string> {
    return this.#net.sha256(new TextEncoder().encode(url));
  }
}

/** The address of `model.json`, given it or its folder. */
export function descriptionOf(model: string): string {
  const url = new URL(model);
  url.hash = "";
  if (!url.pathname.endsWith(".json")) url.pathname = `${url.pathname.replace(/\/$/, "")}/model.json`;
  return url.href;
}
