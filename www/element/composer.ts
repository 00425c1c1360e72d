/** Where a question is put: the task, the words, the boxes it speaks of. */

import { html, nothing, type TemplateResult } from "lit";
import { live } from "lit/directives/live.js";
import type { Box, Task } from "../engine/index.js";
import { TASK_WORDS, type TaskName } from "./words.js";

/** What the composer shows and does. */
export interface ComposerView {
  readonly tasks: readonly TaskName[];
  readonly task: TaskName;
  readonly words: string;
  /** The language of the words; empty where it is the element's own. */
  readonly lang: string;
  readonly boxes: readonly Box[];
  /** Whether the question is given and can't be changed. */
  readonly readonly: boolean;
  readonly busy: boolean;
  /** Whether there is a photo that was looked at. */
  readonly ready: boolean;
  readonly hint: string;
  readonly onTask: (task: TaskName) => void;
  readonly onWords: (words: string) => void;
  readonly onRemoveBox: (at: number) => void;
  readonly onSend: () => void;
  readonly onStop: () => void;
}

/** The task that the composer's state asks for, or why there is none yet. */
export function taskOf(task: TaskName, words: string, boxes: readonly Box[]): Task | undefined {
  const text = words.trim();
  switch (task) {
    case "ask":
      return text ? { kind: "ask", question: text, grounded: true, refer: boxes } : undefined;
    case "detect":
      return text ? { kind: "detect", label: text } : undefined;
    case "locate":
      return text ? { kind: "locate", phrase: text } : undefined;
    case "caption": {
      const box = boxes.at(-1);
      return box ? { kind: "caption", box, long: false } : undefined;
    }
    case "describe":
      return { kind: "describe" };
  }
}

/** Draws the composer; nothing where a fixed question is missing. */
export function renderComposer(view: ComposerView): TemplateResult | typeof nothing {
  const { task } = view;
  const words = TASK_WORDS[task];
  const typed = task === "ask" || task === "detect" || task === "locate";
  if (view.readonly && typed && !view.words.trim()) return nothing;
  const can = view.ready && taskOf(task, view.words, view.boxes) !== undefined;
  return html`<form
    class="composer"
    @submit=${(event: SubmitEvent) => {
      event.preventDefault();
      if (can) view.onSend();
    }}
  >
    ${view.readonly || view.tasks.length < 2 ? nothing : renderTasks(view)}
    ${view.boxes.length > 0 ? renderBoxes(view) : nothing}
    <div class="line">
      ${
        typed
          ? html`<input
              part="question"
              type="text"
              lang=${view.lang || nothing}
              aria-label=${words.label}
              autocomplete="off"
              enterkeyhint="send"
              placeholder=${view.boxes.length > 0 && task === "ask" ? "Ask about the box: what is in [1]?" : words.placeholder}
              ?readonly=${view.readonly}
              .value=${live(view.words)}
              @input=${(event: InputEvent) => view.onWords((event.target as HTMLInputElement).value)}
            />`
          : html`<p class="instead">
              ${task === "caption" && view.boxes.length === 0 ? words.placeholder : sentence(task)}
            </p>`
      }
      ${
        view.busy
          ? html`<button type="button" class="primary stop" part="button" @click=${view.onStop}>Stop</button>`
          : html`<button type="submit" class="primary" part="button" ?disabled=${!can}>${words.send}</button>`
      }
    </div>
    ${view.hint ? html`<p class="muted small hint">${view.hint}</p>` : nothing}
  </form>`;
}

function renderTasks(view: ComposerView): TemplateResult {
  return html`<div
    class="tasks"
    role="radiogroup"
    aria-label="Task"
    @keydown=${(event: KeyboardEvent) => turn(event, view)}
  >
    ${view.tasks.map(
      (name) =>
        html`<button
          type="button"
          role="radio"
          class="task"
          data-task=${name}
          aria-checked=${name === view.task ? "true" : "false"}
          tabindex=${name === view.task ? 0 : -1}
          @click=${() => view.onTask(name)}
        >
          ${TASK_WORDS[name].label}
        </button>`,
    )}
  </div>`;
}

function renderBoxes(view: ComposerView): TemplateResult {
  return html`<ul class="refers" aria-label="Boxes of the question">
    ${view.boxes.map(
      (_, at) =>
        html`<li>
          <span>box [${at + 1}]</span>
          ${
            view.readonly
              ? nothing
              : html`<button
                  type="button"
                  aria-label=${`Remove box ${at + 1}`}
                  @click=${() => view.onRemoveBox(at)}
                >
                  ×
                </button>`
          }
        </li>`,
    )}
  </ul>`;
}

function sentence(task: TaskName): string {
  return task === "caption" ? "Say what is in the box." : "Say what is on the photo, phrase by phrase.";
}

/** Arrow keys choose the task, as in any group of radio buttons. */
function turn(event: KeyboardEvent, view: ComposerView): void {
  const step =
    event.key === "ArrowRight" || event.key === "ArrowDown"
      ? 1
      : event.key === "ArrowLeft" || event.key === "ArrowUp"
        ? -1
        : 0;
  if (step === 0) return;
  event.preventDefault();
  const { tasks } = view;
  const next = tasks[(tasks.indexOf(view.task) + step + tasks.length) % tasks.length];
  if (!next) return;
  view.onTask(next);
  (event.currentTarget as HTMLElement).querySelector<HTMLElement>(`[data-task="${next}"]`)?.focus();
}
