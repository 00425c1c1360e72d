/**
 * One model on one device in one worker. Everything on a page that asks for the same shares it; it starts again by itself
 * after its worker failed or its GPU was lost.
 */

import { abortable } from "./abort.js";
import type { Connection } from "./connection.js";
import { chooseDevice, type DeviceWish } from "./device.js";
import { closed, GromaError } from "./error.js";
import { discard, retire, takeConnection } from "./lines.js";
import type { Debug, DeviceChoice, Info, LoadProgress } from "./types.js";

/** What a backend is made for. */
export interface Wish {
  readonly model: string;
  readonly device: DeviceWish;
  readonly debug: Debug;
}

/** Told how far loading is. */
export type Report = (progress: LoadProgress) => void;

/** Work on a running engine; `generation` tells one start from the next. */
export type Use<T> = (line: Connection, generation: number) => Promise<T>;

const backends = new Map<string, Backend>();

/** See the module. */
export class Backend {
  readonly #key: string;
  readonly #wish: Wish;
  readonly #reports = new Set<Report>();
  readonly #life = new AbortController();
  #last: LoadProgress | undefined;
  #holders = 0;
  #generation = 0;
  #line: Connection | undefined;
  #starting: Promise<void> | undefined;
  /** Of the newest start that went well. */
  #info: Info | undefined;
  /** Whether that start can still be used. */
  #usable = false;

  private constructor(key: string, wish: Wish) {
    this.#key = key;
    this.#wish = wish;
  }

  /** The backend for a wish, loaded; whoever comes second waits for the same loading. To be released. */
  static async acquire(wish: Wish, report: Report, signal: AbortSignal | undefined): Promise<Backend> {
    const key = keyOf(wish);
    const backend = backends.get(key) ?? new Backend(key, wish);
    backends.set(key, backend);
    backend.#holders++;
    backend.#reports.add(report);
    if (backend.#last) report(backend.#last);
    try {
      await abortable(backend.#start(), signal);
      return backend;
    } catch (error) {
      await backend.release();
      throw error;
    } finally {
      backend.#reports.delete(report);
    }
  }

  /** One holder less; with the last one the engine ends, and its memory is free when this settles. */
  async release(): Promise<void> {
    if (--this.#holders > 0) return;
    if (backends.get(this.#key) === this) backends.delete(this.#key);
    this.#life.abort();
    // What has arrived is put away before the worker ends.
    await this.#starting?.catch(() => undefined);
    const line = this.#line;
    if (!line) return;
    retire(line);
    await line.call("destroy", null).catch(() => undefined);
    discard(line, closed("engine"));
  }

  /** Which start of the engine this is; 0 while there is none to use. */
  get generation(): number {
    return this.#usable && !this.#line?.broken ? this.#generation : 0;
  }

  /** What was loaded last. */
  get info(): Info {
    // Who holds a backend waited for its first start.
    if (!this.#info) throw closed("engine");
    return this.#info;
  }

  /**
   * Runs on the engine, which is started first where it has ended. Where the GPU is lost underneath, the engine is started
   * and `use` is run once more; a second loss is the caller's.
   */
  async use<T>(use: Use<T>, signal?: AbortSignal): Promise<T> {
    for (let again = false; ; again = true) {
      if (this.generation === 0) await abortable(this.#start(), signal);
      const line = this.#line;
      const generation = this.generation;
      // It may have failed again between its start and now.
      if (!line || generation === 0) throw line?.broken ?? closed("engine");
      try {
        return await use(line, generation);
      } catch (error) {
        if (!(error instanceof GromaError) || error.reason !== "device-lost") throw error;
        if (this.#generation === generation) this.#usable = false;
        if (again || signal?.aborted) throw error;
      }
    }
  }

  #start(): Promise<void> {
    if (this.#life.signal.aborted) return Promise.reject(closed("engine"));
    if (this.generation > 0) return Promise.resolve();
    if (this.#starting) return this.#starting;
    const starting = this.#load().finally(() => {
      if (this.#starting === starting) this.#starting = undefined;
    });
    this.#starting = starting;
    return starting;
  }

  async #load(): Promise<void> {
    const { device, model } = this.#wish;
    // What was to fail has failed.
    const { fault, ...rest } = this.#wish.debug;
    const debug = this.#generation === 0 && fault ? { fault, ...rest } : rest;
    this.#usable = false;
    const choice = await abortable(chooseDevice(device, debug), this.#life.signal);
    if (!this.#line || this.#line.broken) this.#line = takeConnection();
    const line = this.#line;
    const load = (chosen: DeviceChoice) =>
      line.call(
        "load",
        { model, device: chosen, debug },
        { signal: this.#life.signal, onEvent: (progress) => this.#tell(progress) },
      );
    const info = await load(choice).catch((error: unknown) => {
      const adapterGone = error instanceof GromaError && error.reason === "no-webgpu";
      if (device !== "auto" || choice.kind !== "gpu" || !adapterGone) throw error;
      return load({ kind: "cpu", adapter: choice.adapter, note: "no-adapter" });
    });
    this.#tell({ phase: "prepare", fraction: 1, bytes: info.bytes, totalBytes: info.bytes, cached: false });
    this.#last = undefined;
    this.#generation++;
    this.#info = info;
    this.#usable = true;
  }

  #tell(progress: LoadProgress): void {
    this.#last = progress;
    for (const report of this.#reports) report(progress);
  }
}

/** The same for wishes that mean the same: a folder's address with and without its end, what is told and what is taken anyway. */
function keyOf({ model, device, debug: { numerics = "fast", ...debug } }: Wish): string {
  const folder = model.replace(/model\.json$/, "").replace(/\/$/, "");
  return JSON.stringify([folder, device, numerics, debug]);
}
