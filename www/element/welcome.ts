/** What stands where the conversation will be: what can be asked, or why nothing can. */

import { html, nothing, type TemplateResult } from "lit";
import type { GromaError, Task } from "../engine/index.js";
import { renderWays, type Way } from "./ways.js";
import { IDEAS, type TaskName } from "./words.js";

/** What the welcome shows and does. */
export interface WelcomeView {
  /** Why there is no photo. */
  readonly error: GromaError | undefined;
  /** Ways on where there is an error. */
  readonly ways: readonly Way[];
  /** Whether the photo was looked at. */
  readonly looked: boolean;
  /** What may be asked. */
  readonly tasks: readonly TaskName[];
  readonly readonly: boolean;
  readonly onIdea: (task: Task) => void;
}

/** Draws the beginning of a conversation. */
export function renderWelcome(view: WelcomeView): TemplateResult {
  if (view.error) {
    return html`<div class="problem" role="alert">
        <p>${view.error.message}</p>
        <p class="muted small">${view.error.reason}</p>
      </div>
      ${renderWays(view.ways)}`;
  }
  if (!view.looked) {
    return html`<p class="welcome muted">
      Groma looks at a photo and answers questions about it. What it speaks of, it shows: each phrase is tied
      to boxes on the photo.
    </p>`;
  }
  const ideas = view.readonly ? [] : IDEAS.filter((idea) => view.tasks.includes(idea.task.kind));
  return html`<div class="welcome">
    <p class="muted">
      ${view.readonly ? "" : "Ask anything about the photo. "}Phrases of the answer are tied to numbered
      boxes: point at one to see the
      other.${view.readonly ? "" : " To ask about a place, draw a box on the photo."}
    </p>
    ${
      ideas.length > 0
        ? html`<div class="ideas">
            ${ideas.map(
              (idea) =>
                html`<button type="button" class="idea" @click=${() => view.onIdea(idea.task)}>
                  ${idea.words}
                </button>`,
            )}
          </div>`
        : nothing
    }
  </div>`;
}
