/** An answer while it is being given: iterate it for its pieces, await `done` for the whole. */

import { GromaError } from "./error.js";
import type { AnswerResult, Segment, Timing } from "./types.js";

const NO_TIME: Timing = {
  vision_ms: 0,
  regions_ms: 0,
  prefill_ms: 0,
  decode_ms: 0,
  prompt: 0,
  reused: 0,
  prefilled: 0,
};

/** Produces an answer: reports its pieces, gives the whole. */
export type Run = (onSegment: (segment: Segment) => void) => Promise<AnswerResult>;

/** An answer. Every iteration starts from its beginning; leaving one early does not stop the answer. */
export class Answer implements AsyncIterable<Segment> {
  /** The whole answer. Stopping is no failure: it resolves with what was said and `stopped: "aborted"`. */
  readonly done: Promise<AnswerResult>;
  readonly #events: Segment[] = [];
  #ended = false;
  #wake: (() => void)[] = [];

  /** Starts `run`; the signal tells a stop from a failure. @internal */
  constructor(run: Run, signal?: AbortSignal) {
    this.done = this.#run(run, signal);
    // Whoever only iterates learns of a failure there.
    this.done.catch(() => undefined);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Segment, void, undefined> {
    for (let at = 0; ; at++) {
      while (at >= this.#events.length && !this.#ended) {
        await new Promise<void>((wake) => this.#wake.push(wake));
      }
      const event = this.#events[at];
      if (!event) break;
      yield event;
    }
    await this.done;
  }

  async #run(run: Run, signal: AbortSignal | undefined): Promise<AnswerResult> {
    try {
      return await run((segment) => {
        this.#events.push(segment);
        this.#notify();
      });
    } catch (error) {
      // A stop may reject with whatever the caller aborted with; our own failures say what they are.
      const stopped = error instanceof GromaError ? error.reason === "aborted" : signal?.aborted;
      if (stopped) return this.#saidSoFar();
      throw error;
    } finally {
      this.#ended = true;
      this.#notify();
    }
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const one of wake) one();
  }

  #saidSoFar(): AnswerResult {
    const segments: Segment[] = [];
    for (const event of this.#events) segments[event.index] = { ...event, closed: true };
    const regions = new Map(segments.flatMap((s) => s.regions.map((r) => [r.id, r] as const)));
    return {
      text: joinText(segments),
      segments,
      regions: [...regions.values()].sort((a, b) => a.id - b.id),
      tokens: [],
      stopped: "aborted",
      timing: NO_TIME,
    };
  }
}

/** The answer as one string: a space between segments except before closing punctuation. */
export function joinText(segments: readonly { readonly text: string }[]): string {
  let text = "";
  for (const segment of segments) {
    if (!segment.text) continue;
    text += text && !/^[.,;:!?)]/.test(segment.text) ? ` ${segment.text}` : segment.text;
  }
  return text;
}
