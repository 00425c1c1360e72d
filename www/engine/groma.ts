/// <reference lib="esnext.disposable" preserve="true" />

/** The engine as a page sees it: availability, create with progress, open a photo, destroy. */

import { abortable } from "./abort.js";
import { Backend } from "./backend.js";
import type { DeviceWish } from "./device.js";
import { abortReason, closed, GromaError } from "./error.js";
import { askStore } from "./lines.js";
import { Photo, type PhotoInput, type OpenOptions } from "./photo.js";
import { discard, toSource } from "./source.js";
import type { Availability, CachedModel, Debug, Info, LoadProgress, ModelSize } from "./types.js";

/** Which model. */
export interface ModelOptions {
  /** A pack's folder or its model.json; same origin or CORS. */
  readonly model: string | URL;
  readonly debug?: Debug;
}

/** How to create an engine. */
export interface CreateOptions extends ModelOptions {
  /** "auto" unless told. */
  readonly device?: DeviceWish;
  /** Gets the target of `downloadprogress` events. */
  readonly monitor?: (monitor: EventTarget) => void;
  /** Ends creation, and later the engine. */
  readonly signal?: AbortSignal | undefined;
}

/** A `downloadprogress` event: `loaded` of `total` 1, from 0 to 1, both always fired; and what it is made of. */
export class DownloadProgressEvent extends Event {
  readonly loaded: number;
  readonly total = 1;
  readonly lengthComputable = true;
  readonly detail: LoadProgress;

  constructor(detail: LoadProgress) {
    super("downloadprogress");
    this.loaded = detail.fraction;
    this.detail = detail;
  }
}

/** A model that is ready to look at photos. Several of the same model and device share one engine and one download. */
export class Groma {
  readonly #backend: Backend;
  readonly #photos = new Set<Photo>();
  #destroyed: Promise<void> | undefined;
  /** Lets go of the signal that would end this engine. */
  #leave: (() => void) | undefined;

  private constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** What runs; another object where the engine had to start again, which may be on another device. */
  get info(): Info {
    return this.#backend.info;
  }

  /**
   * Whether the model is on this machine ("available"), is being fetched by this page or another tab ("downloading"), can be
   * fetched, or neither.
   */
  static async availability(options: ModelOptions): Promise<Availability> {
    return askStore("availability", {
      model: absolute(options.model),
      debug: options.debug ?? {},
    });
  }

  /** The model's name, its licences, its bytes, how many of them would have to be downloaded, and the memory that it takes. */
  static async size(options: ModelOptions): Promise<ModelSize> {
    return askStore("size", { model: absolute(options.model), debug: options.debug ?? {} });
  }

  /** What is cached. */
  static async models(): Promise<CachedModel[]> {
    const entries = await askStore("models", null);
    return entries.map((entry) => ({
      ...entry,
      delete: async () => {
        await askStore("forget", { url: entry.url });
      },
    }));
  }

  /** Downloads what is missing and makes the model ready. */
  static async create(options: CreateOptions): Promise<Groma> {
    const { signal, device = "auto", debug = {} } = options;
    if (signal?.aborted) throw abortReason(signal);
    const monitor = new EventTarget();
    options.monitor?.(monitor);
    let last = -1;
    const report = (progress: LoadProgress) => {
      if (signal?.aborted || progress.fraction < last) return;
      last = progress.fraction;
      monitor.dispatchEvent(new DownloadProgressEvent(progress));
    };
    report({ phase: "download", fraction: 0, bytes: 0, totalBytes: 0, cached: false });
    // So that the browser does not clear the weights away when space gets short; it may say no.
    void (globalThis.navigator.storage as StorageManager | undefined)?.persist().catch(() => false);
    const wish = { model: absolute(options.model), device, debug };
    const backend = await Backend.acquire(wish, report, signal);
    const { bytes } = backend.info;
    report({ phase: "prepare", fraction: 1, bytes, totalBytes: bytes, cached: false });
    const groma = new Groma(backend);
    // Given up while the last event was told.
    if (signal?.aborted) {
      await groma.destroy();
      throw abortReason(signal);
    }
    const end = () => void groma.destroy();
    signal?.addEventListener("abort", end, { once: true });
    groma.#leave = () => signal?.removeEventListener("abort", end);
    return groma;
  }

  /**
   * Looks at a photo: everything that can be known before a question. Pixels and bitmaps are copied piece by piece, so that the
   * page stays smooth: change or close them only once it has resolved.
   */
  async open(photo: PhotoInput, options: OpenOptions = {}): Promise<Photo> {
    this.#check();
    const making = toSource(photo, options.signal);
    const opening = abortable(making, options.signal).then((source) => {
      this.#check();
      return Photo.open(this.#backend, source, options, () => this.#photos.delete(result));
    });
    const result = await opening.catch((error: unknown) => {
      // Our own copy, of no use without its photo; it may still be on its way.
      making.then(discard, () => undefined);
      throw error;
    });
    if (this.#destroyed || options.signal?.aborted) {
      await result.close();
      this.#check();
      if (options.signal) throw abortReason(options.signal);
    }
    this.#photos.add(result);
    return result;
  }

  /** Gives everything back: photos, and with the last of those who share it the engine. Settles when the memory is free. */
  destroy(): Promise<void> {
    this.#leave?.();
    this.#destroyed ??= (async () => {
      await Promise.all([...this.#photos].map((photo) => photo.close()));
      await this.#backend.release();
    })();
    return this.#destroyed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  #check(): void {
    if (this.#destroyed) throw closed("engine");
  }
}

/** The address that a page means: relative to the document, as for everything in it; a worker has only its own address. */
function absolute(model: string | URL): string {
  try {
    const base = (globalThis as { document?: Document }).document?.baseURI ?? globalThis.location.href;
    return new URL(model, base).href;
  } catch (error) {
    throw new GromaError("no-model", `This is no address of a model: ${String(model)}.`, {
      cause: String(error),
    });
  }
}
