/** A photo that was looked at, and the conversation about it. */

import { Answer } from "./answer.js";
import type { Connection } from "./connection.js";
import { GromaError } from "./error.js";
import type { Opened, StageProgress } from "./protocol.js";
import type { Box, Region, Task } from "./types.js";

/** What can be opened. */
export type PhotoInput = Blob | ImageBitmap | HTMLImageElement | ImageData | URL | string;

/** How to open a photo. */
export interface OpenOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the steps done and the steps in all. */
  readonly onProgress?: (progress: StageProgress) => void;
}

/** How to answer. */
export interface AnswerOptions {
  /** The longest answer in tokens; 256 unless told. */
  readonly maxTokens?: number | undefined;
  /** 0 (the default) always takes the likeliest token. */
  readonly temperature?: number | undefined;
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to answer a question. */
export interface AskOptions extends AnswerOptions {
  /** Whether phrases are tied to boxes; true unless told. */
  readonly grounded?: boolean | undefined;
  /** Boxes that the question speaks of as [1], [2] … */
  readonly refer?: readonly Box[] | undefined;
}

/** How to describe a box. */
export interface CaptionOptions extends AnswerOptions {
  readonly long?: boolean | undefined;
}

/** A photo. Its questions form one conversation and are answered one after the other. */
export class Photo {
  readonly width: number;
  readonly height: number;
  /** What the proposer found, best first. */
  readonly regions: readonly Region[];
  readonly #connection: Connection;
  readonly #id: number;
  readonly #onClose: () => void;
  #closed = false;

  /** Made by `Groma.open`. */
  constructor(connection: Connection, opened: Opened, onClose: () => void) {
    this.#connection = connection;
    this.#id = opened.photo;
    this.#onClose = onClose;
    this.width = opened.width;
    this.height = opened.height;
    this.regions = opened.regions;
  }

  /** Answers a question. */
  ask(question: string, options: AskOptions = {}): Answer {
    const { grounded = true, refer = [] } = options;
    return this.run({ kind: "ask", question, grounded, refer }, options);
  }

  /** Finds everything of a kind; no region is an answer, not an error. */
  detect(label: string, options: AnswerOptions = {}): Answer {
    return this.run({ kind: "detect", label }, options);
  }

  /** Finds the one that a phrase describes. */
  locate(phrase: string, options: AnswerOptions = {}): Answer {
    return this.run({ kind: "locate", phrase }, options);
  }

  /** Describes what is in a box. */
  caption(box: Box, options: CaptionOptions = {}): Answer {
    return this.run({ kind: "caption", box, long: options.long ?? false }, options);
  }

  /** Describes the whole photo, phrases tied to boxes. */
  describe(options: AnswerOptions = {}): Answer {
    return this.run({ kind: "describe" }, options);
  }

  /** Answers any task. */
  run(task: Task, options: AnswerOptions = {}): Answer {
    const { maxTokens = 256, temperature = 0, seed = 0, signal } = options;
    return new Answer(async (onSegment) => {
      this.#check();
      const request = { task, maxTokens, temperature, seed };
      return this.#connection.call("ask", { photo: this.#id, request }, { signal, onEvent: onSegment });
    }, signal);
  }

  /** Begins a new conversation about the same photo. */
  async reset(): Promise<void> {
    this.#check();
    await this.#connection.call("reset", { photo: this.#id });
  }

  /** Gives back what is kept for the photo. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.abandon();
    this.#onClose();
    await this.#connection.call("close", { photo: this.#id }).catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Marks it closed because its engine is gone. */
  abandon(): void {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new GromaError("closed", "This photo was closed. Open it again.");
  }
}
