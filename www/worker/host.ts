/** The worker's end of the line: one engine, its photos, and the order in which things happen. */

import { abortable } from "../engine/abort.js";
import { aborted, closed, GromaError } from "../engine/error.js";
import { isStoreMethod, type Method, type Methods, type ToPage, type ToWorker } from "../engine/protocol.js";
import type { Debug, Fault, LoadProgress, Segment } from "../engine/types.js";
import { toPicture } from "./decode.js";
import type { Engine, EngineModel, EnginePhoto } from "./engine.js";
import type { Library } from "./library.js";

/** What the host is made of. */
export interface Parts {
  readonly library: (debug: Debug) => Promise<Library>;
  readonly engine: () => Promise<Engine>;
  readonly post: (message: ToPage) => void;
  /** Lets something fail, for tests; settles when it has. */
  readonly fail: (kind: Fault["kind"]) => Promise<void>;
}

// The share of the one progress number that the download has; preparing the model has the rest.
const DOWNLOAD_SHARE = 0.9;
// Enough for a smooth bar; a message a network chunk would be thousands.
const PROGRESS_MS = 50;

interface Context<M extends Method> {
  readonly signal: AbortSignal;
  readonly event: (event: Methods[M]["event"]) => void;
}

type Handlers = {
  [M in Method]: (args: Methods[M]["args"], context: Context<M>) => Promise<Methods[M]["result"]>;
};

/** Answers calls. What computes runs one after the other; what only looks into the store runs at once. */
export class Host {
  readonly #parts: Parts;
  readonly #running = new Map<number, AbortController>();
  /** Those of them that only look into the store. */
  readonly #looking = new Set<number>();
  readonly #photos = new Map<number, EnginePhoto>();
  #model: EngineModel | undefined;
  #engine: Engine | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #nextPhoto = 1;
  #fault: { readonly kind: Fault["kind"]; after: number } | undefined;
  #failing: Promise<void> | undefined;
  #debug: Debug = {};

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Takes a message from the page. */
  receive(message: ToWorker): void {
    if (message.type === "abort") {
      this.#running.get(message.id)?.abort();
      return;
    }
    void this.#answer(message.id, message.method, message.args);
  }

  async #answer(id: number, method: Method, args: unknown): Promise<void> {
    const controller = new AbortController();
    this.#running.set(id, controller);
    if (isStoreMethod(method)) this.#looking.add(id);
    try {
      const handler = this.#handlers[method] as (args: unknown, context: Context<Method>) => Promise<never>;
      const result = await handler(args, {
        signal: controller.signal,
        event: (event) => this.#parts.post({ type: "event", id, event }),
      });
      this.#parts.post({ type: "result", id, result });
    } catch (error) {
      const trap = this.#trap();
      const plain = (trap ?? GromaError.wrap(error)).toPlain();
      this.#parts.post({ type: "error", id, error: plain, ...(trap ? { fatal: true } : {}) });
    } finally {
      this.#running.delete(id);
      this.#looking.delete(id);
    }
  }

  readonly #handlers: Handlers = {
    availability: async ({ model, debug }, { signal }) =>
      (await this.#parts.library(debug)).availability(model, signal),
    size: async ({ model, debug }, { signal }) => (await this.#parts.library(debug)).size(model, signal),
    models: async () => (await this.#parts.library({})).list(),
    forget: async ({ url }) => {
      await (await this.#parts.library({})).forget(url);
      return null;
    },

    load: (args, context) => this.#alone(context.signal, () => this.#load(args, context)),

    open: ({ source }, { signal, event }) =>
      this.#alone(signal, async () => {
        const model = this.#ready();
        const picture = await toPicture(source, this.#debug);
        const photo = await model.open(picture, {
          signal,
          onProgress: (done, total) => event({ done, total }),
        });
        const id = this.#nextPhoto++;
        this.#photos.set(id, photo);
        return { photo: id, width: photo.width, height: photo.height, regions: photo.regions };
      }),

    ask: ({ photo, request }, { signal, event }) =>
      this.#alone(signal, async () => {
        const on = (segment: Segment) => {
          event(segment);
          this.#count();
        };
        const answer = await this.#photo(photo).ask(request, on, { signal });
        // A forced failure belongs into its answer, however fast that was.
        await this.#failing;
        const trap = this.#trap();
        if (trap) throw trap;
        return answer;
      }),

    recall: ({ photo, said }, { signal }) =>
      this.#alone(signal, async () => {
        for (const one of said) await this.#photo(photo).recall(one, { signal });
        return null;
      }),

    reset: ({ photo }, { signal }) =>
      this.#alone(signal, () => {
        this.#photo(photo).reset();
        return Promise.resolve(null);
      }),

    close: ({ photo }, { signal }) =>
      this.#alone(signal, () => {
        this.#photo(photo).free();
        this.#photos.delete(photo);
        return Promise.resolve(null);
      }),

    destroy: (_, { signal }) => {
      // Who looks into the store may belong to another engine.
      for (const [id, controller] of this.#running) {
        if (controller.signal !== signal && !this.#looking.has(id)) controller.abort();
      }
      return this.#alone(signal, () => {
        this.#free();
        return Promise.resolve(null);
      });
    },
  };

  async #load(
    args: Methods["load"]["args"],
    { signal, event }: Context<"load">,
  ): Promise<Methods["load"]["result"]> {
    const { model, device, debug } = args;
    const library = await this.#parts.library(debug);
    let cached = true;
    let total = 0;
    const report = throttled((progress: LoadProgress) => event(progress));
    // The engine's own code is fetched and compiled while the weights arrive.
    const starting = this.#parts.engine();
    starting.catch(() => undefined);
    const pack = await library.fetch(model, signal, (bytes, all, fromCache) => {
      cached = fromCache;
      total = all;
      const fraction = all === 0 ? 0 : (bytes / all) * DOWNLOAD_SHARE;
      report({ phase: "download", fraction, bytes, totalBytes: all, cached }, bytes === all);
    });
    this.#engine = await starting;
    this.#free();
    this.#debug = debug;
    this.#fault = debug.fault && { ...debug.fault };
    if (debug.webgpu === "gone" && device.kind === "gpu")
      throw new GromaError("no-webgpu", "The graphics adapter is gone, as asked for.");
    const { manifest, reader } = pack;
    this.#model = await this.#engine.load(manifest.text, reader, {
      device: device.kind,
      debug,
      signal,
      onProgress: (done, all) => {
        const fraction = DOWNLOAD_SHARE + (1 - DOWNLOAD_SHARE) * (all === 0 ? 0 : done / all);
        report({ phase: "prepare", fraction, bytes: total, totalBytes: total, cached }, done === all);
      },
    });
    return {
      model: manifest.name,
      device: device.kind,
      adapter: device.adapter,
      ...(device.note ? { note: device.note } : {}),
      bytes: manifest.total,
      contextLength: this.#model.contextLength,
      quantisation: manifest.quantisation,
      licence: manifest.licence,
    };
  }

  /** Photos and model go, with what they hold on the device. */
  #free(): void {
    for (const photo of this.#photos.values()) photo.free();
    this.#photos.clear();
    this.#model?.free();
    this.#model = undefined;
  }

  /** One piece of an answer more: time to fail, where a test asked for it. */
  #count(): void {
    if (!this.#fault || --this.#fault.after > 0) return;
    this.#failing = this.#parts.fail(this.#fault.kind);
    this.#fault = undefined;
  }

  /** After everything that was asked for before; never two at once. Who gives up waiting is told at once. */
  #alone<T>(signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    const waiting = new AbortController();
    const giveUp = () => waiting.abort();
    signal.addEventListener("abort", giveUp, { once: true });
    const result = this.#tail.then(() => {
      // From here on it is the work itself that hears of it.
      signal.removeEventListener("abort", giveUp);
      if (signal.aborted) throw aborted();
      const trap = this.#trap();
      if (trap) throw trap;
      return run();
    });
    this.#tail = result.catch(() => undefined);
    return abortable(result, waiting.signal);
  }

  #ready(): EngineModel {
    if (!this.#model) throw new GromaError("closed", "No model is loaded. Create the engine first.");
    return this.#model;
  }

  #photo(id: number): EnginePhoto {
    const photo = this.#photos.get(id);
    if (!photo) throw closed("photo");
    return photo;
  }

  #trap(): GromaError | undefined {
    const dead = this.#engine?.dead;
    return dead && GromaError.wrap(dead);
  }
}

/** At most one report a while; the newest one always, also where nothing follows it: a download may stand still. */
function throttled<T>(report: (value: T) => void): (value: T, last: boolean) => void {
  let next = 0;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const tell = (value: T) => {
    next = performance.now() + PROGRESS_MS;
    report(value);
  };
  return (value, last) => {
    clearTimeout(waiting);
    const wait = next - performance.now();
    if (last || wait <= 0) tell(value);
    else waiting = setTimeout(tell, wait, value);
  };
}
