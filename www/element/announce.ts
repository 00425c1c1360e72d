/** What a screen reader is told: short lines in a polite live region, each added once and never changed. */

import {
  html,
  nothing,
  type ReactiveController,
  type ReactiveControllerHost,
  type TemplateResult,
} from "lit";
import { each } from "./each.js";

// Enough that a reader who is slower than the answer misses none, and few enough that browsing finds no second transcript.
const KEPT = 12;

/** Says things. */
export class Announcer implements ReactiveController {
  readonly #host: ReactiveControllerHost;
  #lines: readonly { readonly id: number; readonly text: string; readonly lang: string }[] = [];
  #next = 0;

  constructor(host: ReactiveControllerHost) {
    this.#host = host;
    host.addController(this);
  }

  hostDisconnected(): void {
    this.#lines = [];
  }

  /** Says a line after those that wait to be said; `lang` where it is not in the element's own language. */
  readonly say = (text: string, lang = ""): void => {
    if (!text) return;
    this.#lines = [...this.#lines, { id: this.#next++, text, lang }].slice(-KEPT);
    this.#host.requestUpdate();
  };

  /** Draws the live region, which is not seen. */
  render(): TemplateResult {
    return html`<div class="unseen" role="status" aria-live="polite" aria-atomic="false">
      ${each(
        this.#lines,
        ({ id }) => id,
        ({ text, lang }) => html`<p lang=${lang || nothing}>${text}</p>`,
      )}
    </div>`;
  }
}
