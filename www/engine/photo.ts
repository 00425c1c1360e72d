/// <reference lib="esnext.disposable" preserve="true" />

/** A photo that was looked at, and the conversation about it. */

import { abortable } from "./abort.js";
import { Answer } from "./answer.js";
import type { Backend } from "./backend.js";
import type { Connection } from "./connection.js";
import { closed } from "./error.js";
import type { Opened, PhotoSource, Said, StageProgress } from "./protocol.js";
import { discard, parcel } from "./source.js";
import type { AnswerResult, Box, Region, Segment, Task, TaskRequest } from "./types.js";

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

/**
 * A photo. Its questions form one conversation and are answered one after the other, in the order in which they were asked.
 * Where the engine had to start again, the photo is looked at again and the conversation goes on.
 */
export class Photo {
  readonly width: number;
  readonly height: number;
  /** What the proposer found, best first. */
  readonly regions: readonly Region[];
  readonly #backend: Backend;
  readonly #source: PhotoSource;
  readonly #onClose: () => void;
  /** Aborted when the photo is closed: whatever is still asked of it ends. */
  readonly #life = new AbortController();
  /** Where the photo is: the engine's start and its number there. */
  #place: Place;
  #moving: Promise<Place> | undefined;
  #said: Said[] = [];

  private constructor(
    backend: Backend,
    source: PhotoSource,
    opened: Opened,
    place: Place,
    onClose: () => void,
  ) {
    this.#backend = backend;
    this.#source = source;
    this.#place = place;
    this.#onClose = onClose;
    this.width = opened.width;
    this.height = opened.height;
    this.regions = opened.regions;
  }

  /** @internal What `Groma.open` calls. */
  static async open(
    backend: Backend,
    source: PhotoSource,
    options: OpenOptions,
    onClose: () => void,
  ): Promise<Photo> {
    const { signal, onProgress } = options;
    return backend.use(async (line, generation) => {
      const events = onProgress ? { onEvent: onProgress } : {};
      const { source: sent, transfer } = await parcel(source);
      const opened = await line.call("open", { source: sent }, { signal, transfer, ...events });
      return new Photo(backend, source, opened, { line, generation, id: opened.photo }, onClose);
    }, signal);
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
    const { maxTokens = 256, temperature = 0, seed = 0 } = options;
    const signal = options.signal ? AbortSignal.any([options.signal, this.#life.signal]) : this.#life.signal;
    const request = { task, maxTokens, temperature, seed };
    return new Answer((onSegment) => {
      if (this.#life.signal.aborted) return Promise.reject(closed("photo"));
      return this.#answer(request, onSegment, signal);
    }, signal);
  }

  /** Begins a new conversation about the same photo. */
  async reset(): Promise<void> {
    if (this.#life.signal.aborted) throw closed("photo");
    this.#said = [];
    // A photo on its way to another engine still tells it the old conversation.
    await this.#moving?.catch(() => undefined);
    const { line, id } = this.#place;
    // What is not there any more is opened without a conversation.
    if (this.#isHere(this.#place)) await line.call("reset", { photo: id });
  }

  /** Gives back what is kept for the photo. */
  async close(): Promise<void> {
    if (this.#life.signal.aborted) return;
    this.#life.abort();
    this.#onClose();
    await this.#moving?.catch(() => undefined);
    const { line, id } = this.#place;
    discard(this.#source);
    if (this.#isHere(this.#place)) await line.call("close", { photo: id }).catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #answer(
    request: TaskRequest,
    onSegment: (segment: Segment) => void,
    signal: AbortSignal,
  ): Promise<AnswerResult> {
    // How far each segment is: an answer that is begun again says nothing twice.
    const seen: Segment[] = [];
    const onEvent = (segment: Segment) => {
      const last = seen[segment.index];
      if (last && (last.closed || (!segment.closed && segment.text.length <= last.text.length))) return;
      seen[segment.index] = segment;
      onSegment(segment);
    };
    const said = this.#said;
    const result = await this.#backend.use(async (line, generation) => {
      // At once where nothing has to be done first: questions keep their order.
      const { id } =
        this.#place.generation === generation
          ? this.#place
          : await abortable(this.#move(line, generation), signal);
      return line.call("ask", { photo: id, request }, { signal, onEvent });
    }, signal);
    // A list of its own a conversation: an answer from before `reset` is no part of what follows.
    if (result.tokens.length > 0) said.push({ request, tokens: result.tokens });
    return result;
  }

  /** Opens the photo and goes on with its conversation in an engine that was started again. */
  #move(line: Connection, generation: number): Promise<Place> {
    const move = async () => {
      const { signal } = this.#life;
      const { source, transfer } = await parcel(this.#source);
      const { photo: id } = await line.call("open", { source }, { signal, transfer });
      try {
        if (this.#said.length > 0) await line.call("recall", { photo: id, said: this.#said }, { signal });
      } catch (error) {
        if (!line.broken) void line.call("close", { photo: id }).catch(() => undefined);
        throw error;
      }
      this.#place = { line, generation, id };
      return this.#place;
    };
    this.#moving ??= move().finally(() => (this.#moving = undefined));
    return this.#moving;
  }

  #isHere(place: Place): boolean {
    return place.generation === this.#backend.generation;
  }
}

/** A photo in an engine. */
interface Place {
  readonly line: Connection;
  readonly generation: number;
  readonly id: number;
}
