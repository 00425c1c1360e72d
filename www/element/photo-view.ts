/** The photo with its boxes. Boxes are elements, not pixels: they have names, focus and high contrast. */

import { html, nothing, type TemplateResult } from "lit";
import { classMap } from "lit/directives/class-map.js";
import type { Region } from "../engine/index.js";
import { area, boxesOfTask, type Size } from "./boxes.js";
import type { Drawing } from "./draw.js";
import { each } from "./each.js";
import { renderAsked, renderDrawing } from "./drawn-view.js";
import type { Highlight } from "./highlight.js";
import { colour, mentioned } from "./palette.js";
import type { Chosen, Turn } from "./session.js";
import { place, styled } from "./styled.js";
import type { Zoom } from "./zoom.js";

/** What the view shows. */
export interface PhotoView {
  readonly chosen: Chosen;
  readonly alt: string;
  /** The language of `alt`; empty where it is the element's own. */
  readonly lang: string;
  /** The answer whose boxes are coloured. */
  readonly turn: Turn | undefined;
  /** Whether boxes that no phrase is tied to are shown as well. */
  readonly showAll: boolean;
  readonly drawing: Drawing;
  readonly highlight: Highlight;
  readonly zoom: Zoom;
  /** The option that was focused last; empty where none was. */
  readonly focusable: string;
  readonly onFocus: (key: string) => void;
  readonly onSize: (width: number, height: number) => void;
  readonly size: Size;
}

interface Shown {
  readonly key: string;
  readonly turn: number;
  readonly region: Region;
  readonly colour: number | undefined;
  readonly phrase: string;
}

/** Draws the photo, its boxes and what is being drawn. */
export function renderPhoto(given: PhotoView): TemplateResult {
  const { chosen, drawing, size, zoom, turn } = given;
  const shown = boxesOf(given);
  const view = { ...given, focusable: reachable(given, shown) };
  const ratio = size.width && size.height ? size.width / size.height : 1;
  return html`
    <div
      class=${classMap({ frame: true, armed: drawing.armed, looking: chosen.looking !== undefined })}
      ${styled({ "--ratio": String(ratio), "--zoom": String(zoom.scale) })}
      @pointerdown=${drawing.pointerDown}
      @pointermove=${drawing.pointerMove}
      @pointerup=${drawing.pointerUp}
      @pointercancel=${() => drawing.release()}
      @wheel=${zoom.wheel}
      @touchstart=${zoom.touchStart}
      @touchmove=${zoom.touchMove}
      @touchend=${(event: TouchEvent) => zoom.touchEnd(event, drawing.armed)}
    >
      <img
        part="photo"
        src=${chosen.url}
        alt=${view.alt || chosen.name}
        lang=${view.lang || nothing}
        draggable="false"
        @load=${(event: Event) => {
          const image = event.target as HTMLImageElement;
          view.onSize(image.naturalWidth, image.naturalHeight);
        }}
      />
      ${
        shown.length > 0
          ? html`<div
              class="boxes"
              role="listbox"
              aria-label="Regions of the photo"
              aria-multiselectable="true"
              @click=${{ handleEvent: drawing.swallowClick, capture: true }}
              @keydown=${(event: KeyboardEvent) => walk(event, shown, view)}
            >
              ${each(
                shown,
                (s) => s.key,
                (s) => renderBox(s, view),
              )}
            </div>`
          : nothing
      }
      ${turn && drawing.boxes.length === 0 ? renderAsked(boxesOfTask(turn.task), size) : nothing}
      ${renderDrawing(drawing, size, drawing.armed)}
      ${chosen.looking ? html`<div class="scan" aria-hidden="true"></div>` : nothing}
    </div>
  `;
}

/** Boxes to show, larger ones first so that smaller ones lie on top and can be pointed at. */
function boxesOf(view: PhotoView): Shown[] {
  const { turn, chosen } = view;
  const segments = turn?.segments.filter((s) => s.regions.length > 0) ?? [];
  const colouring = colour(segments);
  const tied: Shown[] = mentioned(segments).map((region) => ({
    key: `${turn?.id ?? 0}-${region.id}`,
    turn: turn?.id ?? 0,
    region,
    colour: colouring.regions.get(region.id),
    phrase: segments.find((s) => s.regions.some((r) => r.id === region.id))?.text ?? "",
  }));
  const isTied = (region: Region) => tied.some((t) => String(t.region.box) === String(region.box));
  const others: Shown[] = (chosen.photo?.regions ?? [])
    .filter((region) => !isTied(region) && (tied.length === 0 || view.showAll))
    .map((region) => ({ key: `0-${region.id}`, turn: 0, region, colour: undefined, phrase: "" }));
  return [...tied, ...others].sort((a, b) => area(b.region.box) - area(a.region.box));
}

function renderBox(shown: Shown, view: PhotoView): TemplateResult {
  const { region, turn, key } = shown;
  const { highlight, size } = view;
  const target = { turn, regions: [region.id] };
  const active = highlight.has(turn, region.id);
  const dimmed = highlight.current !== undefined && !active;
  return html`<div
    part="box"
    id=${`box-${key}`}
    class=${classMap({
      box: true,
      tied: shown.colour !== undefined,
      [`c${shown.colour ?? 0}`]: shown.colour !== undefined,
      active,
      dimmed,
    })}
    ${place(region.box, size)}
    role="option"
    tabindex=${view.focusable === key ? 0 : -1}
    aria-selected=${active ? "true" : "false"}
    aria-label=${describe(shown, size)}
    @pointerenter=${() => highlight.point(target)}
    @pointerleave=${() => highlight.point(undefined)}
    @focus=${() => {
      view.onFocus(key);
      highlight.point(target);
    }}
    @blur=${() => highlight.point(undefined)}
    @click=${() => highlight.pin(target)}
  >
    <span class="number" part="label" aria-hidden="true">${region.id}</span>
  </div>`;
}

function describe({ region, phrase }: Shown, { width, height }: PhotoView["size"]): string {
  const [x0, y0, x1, y1] = region.box;
  const [x, y] = [(x0 + x1) / 2 / (width || 1), (y0 + y1) / 2 / (height || 1)];
  const across = x < 0.35 ? "left" : x > 0.65 ? "right" : "centre";
  const down = y < 0.35 ? "top" : y > 0.65 ? "bottom" : "middle";
  const sure = `${Math.round(region.score * 100)} %`;
  return `Region ${region.id}${phrase ? `: ${phrase}` : ""}, ${down} ${across}, ${sure}`;
}

/** Arrow keys, Home and End walk through the boxes from left to right. */
function walk(event: KeyboardEvent, shown: readonly Shown[], view: PhotoView): void {
  const order = [...shown].sort(
    (a, b) => a.region.box[0] - b.region.box[0] || a.region.box[1] - b.region.box[1],
  );
  const at = order.findIndex((s) => s.key === view.focusable);
  const current = order[at];
  if (!current) return;
  const steps: Partial<Record<string, number>> = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: order.length - 1,
  };
  const target = { turn: current.turn, regions: [current.region.id] };
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    view.highlight.pin(target);
    return;
  }
  if (event.key === "Escape") {
    view.highlight.clear();
    return;
  }
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const next = order[(step + order.length) % order.length];
  if (!next) return;
  view.onFocus(next.key);
  const root = (event.currentTarget as HTMLElement).getRootNode() as ShadowRoot;
  root.getElementById(`box-${next.key}`)?.focus();
}

/** The key of the box that Tab reaches: the one last focused while it is shown, else the one mentioned or found first. */
function reachable({ focusable, turn, chosen }: PhotoView, shown: readonly Shown[]): string {
  const first = turn?.segments.flatMap((s) => s.regions).at(0);
  const keys = [
    focusable,
    first ? `${turn?.id ?? 0}-${first.id}` : "",
    `0-${chosen.photo?.regions.at(0)?.id ?? 0}`,
  ];
  return keys.find((key) => shown.some((s) => s.key === key)) ?? shown[0]?.key ?? "";
}
