/** The conversation. What the model says is foreign text: it is only ever shown as text. */

import { html, nothing, type TemplateResult } from "lit";
import { classMap } from "lit/directives/class-map.js";
import { joinText, type GromaError, type Region, type Segment, type Task } from "../engine/index.js";
import { each } from "./each.js";
import type { Highlight } from "./highlight.js";
import { colour } from "./palette.js";
import type { Turn } from "./session.js";
import { renderWays, type Way } from "./ways.js";
import { seconds, wordsOf } from "./words.js";

/** What the transcript shows. */
export interface TranscriptView {
  readonly turns: readonly Turn[];
  /** The language of questions and answers; empty where it is the element's own. */
  readonly lang: string;
  readonly highlight: Highlight;
  /** A phrase was pointed at: its answer's boxes are to be shown. */
  readonly onShow: (turn: number) => void;
  /** A question that failed is put once more; without it that is not offered. */
  readonly onAgain: ((task: Task) => void) | undefined;
  /** Other ways to put it once more. */
  readonly ways: (task: Task, error: GromaError) => readonly Way[];
}

/** Draws all turns. */
export function renderTranscript(view: TranscriptView): TemplateResult {
  return html`${each(
    view.turns,
    (turn) => turn.id,
    (turn) => renderTurn(turn, view),
  )}`;
}

function renderTurn(turn: Turn, view: TranscriptView): TemplateResult {
  const going = turn.state === "waiting" || turn.state === "answering";
  return html`<article class="turn">
    <p class="question" part="question">${taskTag(turn.task)}${renderAsked(turn.task, view.lang)}</p>
    <div class="answer" part="answer" aria-busy=${going ? "true" : "false"}>
      ${turn.state === "waiting" ? html`<span class="dots" aria-label="Answering"><i></i><i></i><i></i></span>` : nothing}
      ${renderSegments(turn, view)}${turn.state === "answering" ? html`<span class="caret" aria-hidden="true"></span>` : nothing}
      ${turn.error ? renderProblem(turn.task, turn.error, view) : nothing}
    </div>
    ${renderFoot(turn)}
  </article>`;
}

function renderProblem(task: Task, error: GromaError, view: TranscriptView): TemplateResult {
  const { onAgain, ways } = view;
  return html`<div class="problem" role="alert">
      <p>${error.message}</p>
      <p class="muted small">${error.reason}</p>
    </div>
    ${
      onAgain
        ? html`<button type="button" class="quiet again" @click=${() => onAgain(task)}>Ask again</button>`
        : nothing
    }${renderWays(ways(task, error))}`;
}

function renderSegments(turn: Turn, view: TranscriptView): TemplateResult | typeof nothing {
  const said = turn.segments.filter((s) => s.text || s.regions.length > 0);
  if (said.length === 0) {
    return turn.state === "done" ? html`<p class="nothing">${nothingFound(turn.task)}</p>` : nothing;
  }
  const { phrases, regions } = colour(turn.segments);
  return html`<p lang=${view.lang || nothing}>
    ${said.map((segment, at) => {
      const space = at > 0 && joinText([{ text: "x" }, segment]).startsWith("x ") ? " " : "";
      return segment.regions.length > 0
        ? html`${at > 0 ? " " : ""}${renderPhrase(turn, segment, phrases.get(segment.index) ?? 0, regions, view)}`
        : html`${space}<span>${segment.text}</span>`;
    })}
  </p>`;
}

function renderPhrase(
  turn: Turn,
  segment: Segment,
  own: number,
  colours: ReadonlyMap<number, number>,
  { highlight, onShow }: TranscriptView,
): TemplateResult {
  const target = { turn: turn.id, regions: segment.regions.map((r) => r.id) };
  const point = () => {
    onShow(turn.id);
    highlight.point(target);
  };
  const active =
    highlight.current?.turn === turn.id && target.regions.some((id) => highlight.has(turn.id, id));
  return html`<button
    type="button"
    part="phrase"
    class=${classMap({ phrase: true, bare: segment.text === "", [`c${own}`]: true, active })}
    aria-pressed=${highlight.isPinned(target) ? "true" : "false"}
    @pointerenter=${point}
    @pointerleave=${() => highlight.point(undefined)}
    @focus=${point}
    @blur=${() => highlight.point(undefined)}
    @click=${() => {
      onShow(turn.id);
      highlight.pin(target);
    }}
    @keydown=${(event: KeyboardEvent) => {
      if (event.key === "Escape") highlight.clear();
    }}
  >
    <span class="words">${segment.text || `${segment.regions.length} found`}</span
    ><span class="unseen">${regionWord(segment.regions)}</span>${segment.regions.map(
      (region) => html`<span class="chip c${colours.get(region.id) ?? own}">${region.id}</span>`,
    )}
  </button>`;
}

function renderFoot(turn: Turn): TemplateResult | typeof nothing {
  const notes: string[] = [];
  if (turn.state === "stopped") notes.push("Stopped");
  if (turn.result?.stopped === "length") notes.push("Cut at the longest length");
  if (turn.took !== undefined) notes.push(seconds(turn.took));
  const tokens = turn.result?.tokens.length ?? 0;
  if (tokens > 0) notes.push(`${tokens} tokens`);
  return notes.length > 0 ? html`<p class="foot">${notes.join(" · ")}</p>` : nothing;
}

function taskTag(task: Task): TemplateResult | typeof nothing {
  const tags: Partial<Record<Task["kind"], string>> = { detect: "Find all", locate: "Point to" };
  const tag = tags[task.kind];
  return tag ? html`<span class="tag">${tag}</span> ` : nothing;
}

/** What was asked: in the element's words, or in the reader's. */
function renderAsked(task: Task, lang: string): TemplateResult {
  if (task.kind === "caption") return html`What is in this box?`;
  if (task.kind === "describe") return html`Describe this photo.`;
  return html`<span lang=${lang || nothing}>${wordsOf(task)}</span>`;
}

function nothingFound(task: Task): string {
  return task.kind === "detect" || task.kind === "locate" ? "Nothing of that kind was found." : "No answer.";
}

/** A closed piece of an answer as a screen reader should say it. */
export function spokenSegment({ text, regions }: Segment): string {
  if (regions.length === 0) return text;
  const ids = regions.map(({ id }) => id).join(", ");
  return `${text || `${regions.length} found`}, ${regionWord(regions)} ${ids}`;
}

/** How an answer ended, as a screen reader should say it after its pieces. */
export function spokenEnd(turn: Turn): string {
  if (turn.state === "stopped") return "Stopped.";
  const empty = turn.segments.every((s) => !s.text && s.regions.length === 0);
  return empty ? nothingFound(turn.task) : "End of the answer.";
}

function regionWord(regions: readonly Region[]): string {
  return regions.length === 1 ? "region" : "regions";
}
