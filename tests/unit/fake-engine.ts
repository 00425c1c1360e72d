/** An engine whose answers end when the test says so, alone or behind a worker that is only an object. */

import type { Port } from "../../www/engine/connection.js";
import { aborted, GromaError } from "../../www/engine/error.js";
import type { Said, ToPage, ToWorker } from "../../www/engine/protocol.js";
import type { AnswerResult, Fault, Segment } from "../../www/engine/types.js";
import type { Engine, EngineModel, EnginePhoto, RunOptions } from "../../www/worker/engine.js";
import { Host } from "../../www/worker/host.js";
import type { Library } from "../../www/worker/library.js";

export const RESULT: AnswerResult = {
  text: "yes",
  segments: [],
  regions: [],
  tokens: [1],
  stopped: "end",
  timing: { vision_ms: 0, regions_ms: 0, prefill_ms: 0, decode_ms: 0, prompt: 0, reused: 0, prefilled: 0 },
};

const PIECE: Segment = { index: 0, kind: "text", text: "yes", delta: "yes", closed: true, regions: [] };

/** A JPEG by its first bytes. */
export const PHOTO = new Blob([new Uint8Array([0xff, 0xd8, 0xff])]);

/** See the module. */
export class FakeEngine implements Engine {
  dead: Error | undefined;
  readonly log: string[] = [];
  readonly finish: (() => void)[] = [];
  readonly fail: ((error: unknown) => void)[] = [];
  running = 0;
  mostAtOnce = 0;
  /** Loading waits for it. */
  gate: Promise<void> = Promise.resolve();

  async load(_: string, __: unknown, { signal }: RunOptions): Promise<EngineModel> {
    this.log.push("load");
    await Promise.race([
      this.gate,
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted()))),
    ]);
    return {
      contextLength: 64,
      open: () => {
        this.log.push("open");
        return Promise.resolve(this.photo());
      },
      free: () => this.log.push("free model"),
    };
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
          onSegment({ ...PIECE, closed: false });
          this.fail.push(reject);
          this.finish.push(() => {
            onSegment(PIECE);
            resolve(RESULT);
          });
        }).finally(() => this.running--);
      },
      recall: ({ request }: Said) => {
        this.log.push(`recall ${request.seed}`);
        return Promise.resolve();
      },
      reset: () => this.log.push("reset"),
      free: () => this.log.push("free photo"),
    };
  }
}

/** A library that has the model. */
export const library = {
  fetch: (_: string, __: AbortSignal, onBytes: (bytes: number, total: number, cached: boolean) => void) => {
    onBytes(9, 9, true);
    return Promise.resolve({
      manifest: { name: "tiny", licence: [], quantisation: {}, files: [], total: 9, text: "{}" },
      reader: {},
    });
  },
  list: () => Promise.resolve([]),
} as unknown as Library;

/** Stands where the page expects `Worker`: the real host over a fake engine, messages a turn late and copied. */
export class FakeWorker implements Port {
  static readonly all: FakeWorker[] = [];
  readonly engine = new FakeEngine();
  readonly failed: Fault["kind"][] = [];
  onmessage: ((event: MessageEvent<ToPage>) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  ended = false;
  readonly #host = new Host({
    library: () => Promise.resolve(library),
    engine: () => Promise.resolve(this.engine),
    post: (message) =>
      this.#later(() => this.onmessage?.({ data: structuredClone(message) } as MessageEvent<ToPage>)),
    fail: (kind) => {
      this.failed.push(kind);
      return Promise.resolve();
    },
  });

  constructor() {
    FakeWorker.all.push(this);
  }

  postMessage(message: ToWorker): void {
    const copy = structuredClone(message);
    this.#later(() => this.#host.receive(copy));
  }

  terminate(): void {
    this.ended = true;
  }

  /** As when a script throws where nobody catches it. */
  crash(): void {
    this.onerror?.({ message: "boom", preventDefault: () => undefined } as ErrorEvent);
  }

  #later(run: () => void): void {
    setTimeout(() => {
      if (!this.ended) run();
    });
  }
}

/** What a lost GPU throws. */
export const lost = () => new GromaError("device-lost", "The GPU was lost.");
