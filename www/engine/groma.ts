/** The engine as a page sees it: availability, create with progress, open a photo, destroy. */

import { Connection } from "./connection.js";
import { chooseDevice, type DeviceWish } from "./device.js";
import { aborted, abortReason, GromaError } from "./error.js";
import { Photo, type PhotoInput, type OpenOptions } from "./photo.js";
import { toSource } from "./source.js";
import type { Availability, CachedModel, Debug, DeviceChoice, Info, LoadProgress } from "./types.js";

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

// A worker that answered a question about storage and holds no model yet; the next engine moves in.
let spare: Connection | undefined;

function connect(): Connection {
  const worker = new Worker(new URL("../worker/worker.ts", import.meta.url), {
    type: "module",
    name: "groma",
  });
  return new Connection(worker);
}

function spareConnection(): Connection {
  if (!spare || spare.broken) spare = connect();
  return spare;
}

function takeConnection(): Connection {
  const connection = spareConnection();
  spare = undefined;
  return connection;
}

/** A model that is ready to look at photos. */
export class Groma {
  readonly info: Info;
  readonly #connection: Connection;
  readonly #photos = new Set<Photo>();
  #destroyed = false;

  private constructor(connection: Connection, info: Info) {
    this.#connection = connection;
    this.info = info;
  }

  /** Whether the model is on this machine ("available"), can be fetched, or neither. */
  static async availability(options: ModelOptions): Promise<Availability> {
    return spareConnection().call("availability", {
      model: absolute(options.model),
      debug: options.debug ?? {},
    });
  }

  /** The model's name, its bytes, and how many of them would have to be downloaded. */
  static async size(options: ModelOptions): Promise<{ name: string; bytes: number; missing: number }> {
    return spareConnection().call("size", { model: absolute(options.model) });
  }

  /** What is cached. */
  static async models(): Promise<CachedModel[]> {
    const connection = spareConnection();
    const entries = await connection.call("models", null);
    return entries.map((entry) => ({
      ...entry,
      delete: async () => {
        await spareConnection().call("forget", { url: entry.url });
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
    const choice = await chooseDevice(device);
    const connection = takeConnection();
    const load = (chosen: DeviceChoice) =>
      connection.call(
        "load",
        { model: absolute(options.model), device: chosen, debug },
        { signal, onEvent: report },
      );
    try {
      const info = await load(choice).catch((error: unknown) => {
        const adapterGone = error instanceof GromaError && error.reason === "no-webgpu";
        if (device !== "auto" || choice.kind !== "gpu" || !adapterGone) throw error;
        return load({ kind: "cpu", adapter: choice.adapter, note: "no-adapter" });
      });
      report({ phase: "prepare", fraction: 1, bytes: info.bytes, totalBytes: info.bytes, cached: false });
      const groma = new Groma(connection, info);
      signal?.addEventListener("abort", () => void groma.destroy(), { once: true });
      return groma;
    } catch (error) {
      connection.close(aborted());
      throw error;
    }
  }

  /** Looks at a photo: everything that can be known before a question. */
  async open(photo: PhotoInput, options: OpenOptions = {}): Promise<Photo> {
    this.#check();
    const { signal, onProgress } = options;
    const source = await toSource(photo, signal);
    const opened = await this.#connection.call(
      "open",
      { source },
      { signal, ...(onProgress ? { onEvent: onProgress } : {}) },
    );
    const result = new Photo(this.#connection, opened, () => this.#photos.delete(result));
    this.#photos.add(result);
    return result;
  }

  /** Gives everything back: photos, weights, worker. Settles when the memory is free. */
  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const photo of this.#photos) photo.abandon();
    this.#photos.clear();
    await this.#connection.call("destroy", null).catch(() => undefined);
    this.#connection.close(new GromaError("closed", "This engine was destroyed. Create a new one."));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  #check(): void {
    if (this.#destroyed) throw new GromaError("closed", "This engine was destroyed. Create a new one.");
    if (this.#connection.broken) throw this.#connection.broken;
  }
}

function absolute(model: string | URL): string {
  return new URL(model, globalThis.location.href).href;
}
