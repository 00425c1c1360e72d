/** What the element tells the page: typed, bubbling, composed. */

import type { AnswerResult, GromaError, Info, LoadProgress, Region, Segment, Task } from "../engine/index.js";

/** Every event with its detail. */
export interface GromaEvents {
  /** How far loading is. */
  "groma-progress": LoadProgress;
  /** The model is ready. */
  "groma-ready": Info;
  /** The photo was looked at. */
  "groma-regions": { readonly regions: readonly Region[] };
  /** A piece of an answer. */
  "groma-segment": { readonly turn: number; readonly segment: Segment };
  /** A whole answer. */
  "groma-answer": { readonly turn: number; readonly task: Task; readonly result: AnswerResult };
  /** A failure; the element shows it as well. */
  "groma-error": { readonly error: GromaError };
}

declare global {
  interface HTMLElementEventMap {
    "groma-progress": CustomEvent<GromaEvents["groma-progress"]>;
    "groma-ready": CustomEvent<GromaEvents["groma-ready"]>;
    "groma-regions": CustomEvent<GromaEvents["groma-regions"]>;
    "groma-segment": CustomEvent<GromaEvents["groma-segment"]>;
    "groma-answer": CustomEvent<GromaEvents["groma-answer"]>;
    "groma-error": CustomEvent<GromaEvents["groma-error"]>;
  }
}

/** Sends an event from an element. */
export function emit<K extends keyof GromaEvents>(
  target: EventTarget,
  name: K,
  detail: GromaEvents[K],
): void {
  target.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
}
