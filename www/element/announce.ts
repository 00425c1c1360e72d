/** What a screen reader is told: short lines in a polite live region, each added once and never changed. */

import { html, type ReactiveController, type ReactiveControllerHost, type TemplateResult } from "lit";
import { each } from "./each.js";

// Enough that a reader who is slower than the answer misses none, and few enough that browsing finds no second transcript.
const KEPT = 12;

/** Says things. */
export class Announcer implements ReactiveController {
  readonly #host: ReactiveControllerHost;
  #lines: readonly { readonly id: number; readonly text: string }[] = [];
  #next = 0;

  constructor(host: ReactiveControllerHost) {
    this.#host = host;
    host.addController(this);
  }

  hostDisconnected(): void {
    this.#lines = [];
  }

  /** Says a line after those that wait to be said. */
  readonly say = (text: string): void => {
    if (!text) return;
    this.#lines = [...this.#lines, { id: this.#next++, text }].slice(-KEPT);
    this.#host.requestUpdate();
  };

  /** Draws the live region, which is not seen. */
  render(): TemplateResult {
    return html`<div class="unseen" role="status" aria-live="polite" aria-atomic="false">
      ${each(
        this.#lines,
        ({ id }) => id,
        ({ text }) => html`<p>${text}</p>`,
      )}
    </div>`;
  }
}
