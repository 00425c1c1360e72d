/** Drawing boxes on the photo: by dragging, by two clicks, by keyboard. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import type { Box } from "../engine/index.js";
import { tidyBox } from "./session.js";

/** The photo that is drawn on. */
export interface Canvas {
  readonly width: number;
  readonly height: number;
  /** Where the photo is on the screen. */
  rect(): DOMRect;
}

// Less than this is a click that shook, in CSS pixels.
const SLOP = 5;
// A box smaller than this, in pixels of the photo, says nothing.
const SMALLEST = 4;

type Point = readonly [x: number, y: number];

/** The boxes that were drawn and the one that is being drawn. */
export class Drawing implements ReactiveController {
  boxes: readonly Box[] = [];
  /** The box that is being drawn. */
  draft: Box | undefined;
  /** Whether the next press on the photo begins a box, also by touch or by single clicks. */
  armed = false;
  /** Whether the draft is moved by keys. */
  keyed = false;
  readonly #host: ReactiveControllerHost;
  readonly #canvas: () => Canvas | undefined;
  readonly #announce: (text: string) => void;
  #pressed: { readonly at: Point; readonly x: number; readonly y: number } | undefined;
  #corner: Point | undefined;
  #dragged = false;

  constructor(
    host: ReactiveControllerHost,
    canvas: () => Canvas | undefined,
    announce: (text: string) => void,
  ) {
    this.#host = host;
    this.#canvas = canvas;
    this.#announce = announce;
    host.addController(this);
  }

  hostDisconnected(): void {
    this.cancel();
  }

  /** Forgets everything: another photo. */
  clear(): void {
    this.boxes = [];
    this.cancel();
  }

  /** Forgets one box. */
  remove(index: number): void {
    this.boxes = this.boxes.filter((_, at) => at !== index);
    this.#announce(`Box ${index + 1} removed.`);
    this.#host.requestUpdate();
  }

  /** Makes ready to draw, or gives it up. */
  toggle(): void {
    if (this.armed) {
      this.cancel();
      return;
    }
    this.armed = true;
    this.#host.requestUpdate();
  }

  /** Begins a box in the middle that keys move. */
  beginWithKeys(): void {
    const canvas = this.#canvas();
    if (!canvas) return;
    const { width, height } = canvas;
    this.armed = true;
    this.keyed = true;
    this.draft = tidyBox([width * 0.35, height * 0.35, width * 0.65, height * 0.65], width, height);
    this.#say();
    this.#host.requestUpdate();
  }

  /** Gives up what is being drawn. */
  cancel(): void {
    this.draft = undefined;
    this.armed = false;
    this.keyed = false;
    this.#pressed = undefined;
    this.#corner = undefined;
    this.#host.requestUpdate();
  }

  /** Takes the draft as a box. */
  commit(): void {
    const { draft } = this;
    this.cancel();
    if (!draft || draft[2] - draft[0] < SMALLEST || draft[3] - draft[1] < SMALLEST) return;
    this.boxes = [...this.boxes, draft];
    this.#announce(`Box ${this.boxes.length} drawn.`);
    this.#host.requestUpdate();
  }

  /** Whether the click that follows belongs to a drag. */
  readonly swallowClick = (event: MouseEvent): void => {
    if (!this.#dragged) return;
    this.#dragged = false;
    event.stopPropagation();
    event.preventDefault();
  };

  readonly pointerDown = (event: PointerEvent): void => {
    this.#dragged = false;
    if (event.button !== 0 || !event.isPrimary || this.keyed) return;
    // A finger scrolls unless drawing was asked for.
    if (event.pointerType === "touch" && !this.armed) return;
    const at = this.#at(event);
    if (at) this.#pressed = { at, x: event.clientX, y: event.clientY };
  };

  readonly pointerMove = (event: PointerEvent): void => {
    const from = this.#pressed?.at ?? this.#corner;
    if (!from) return;
    if (this.#pressed && !this.#dragged) {
      if (Math.hypot(event.clientX - this.#pressed.x, event.clientY - this.#pressed.y) < SLOP) return;
      this.#dragged = true;
      this.#corner = undefined;
      (event.currentTarget as Element).setPointerCapture(event.pointerId);
    }
    const to = this.#at(event);
    if (to) this.#draft(from, to);
  };

  readonly pointerUp = (event: PointerEvent): void => {
    const pressed = this.#pressed;
    this.#pressed = undefined;
    if (!pressed) return;
    if (this.#dragged) {
      this.commit();
      return;
    }
    if (!this.armed) return;
    // Two single clicks, for whoever can't drag: one corner, then the other.
    const at = this.#at(event);
    if (!at) return;
    this.#dragged = true;
    if (this.#corner) {
      this.#draft(this.#corner, at);
      this.commit();
    } else {
      this.#corner = at;
      this.#announce("First corner set. Click the opposite corner.");
    }
  };

  readonly keyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && (this.draft || this.armed)) {
      event.preventDefault();
      event.stopPropagation();
      this.cancel();
      return;
    }
    const canvas = this.#canvas();
    if (!this.keyed || !this.draft || !canvas) return;
    if (event.key === "Enter") {
      event.preventDefault();
      this.commit();
      return;
    }
    const way = DIRECTIONS[event.key];
    if (!way) return;
    event.preventDefault();
    const step = (size: number) => (event.altKey ? 1 : Math.max(1, Math.round(size / 50)));
    const [dx, dy] = [way[0] * step(canvas.width), way[1] * step(canvas.height)];
    const [x0, y0, x1, y1] = this.draft;
    const moved: Box = event.shiftKey
      ? [x0, y0, Math.max(x1 + dx, x0 + SMALLEST), Math.max(y1 + dy, y0 + SMALLEST)]
      : inside([x0 + dx, y0 + dy, x1 + dx, y1 + dy], canvas);
    this.draft = tidyBox(moved, canvas.width, canvas.height);
    this.#say();
    this.#host.requestUpdate();
  };

  #draft(from: Point, to: Point): void {
    const canvas = this.#canvas();
    if (!canvas) return;
    this.draft = tidyBox([from[0], from[1], to[0], to[1]], canvas.width, canvas.height);
    this.#host.requestUpdate();
  }

  #at(event: PointerEvent): Point | undefined {
    const canvas = this.#canvas();
    if (!canvas) return undefined;
    const rect = canvas.rect();
    if (rect.width === 0 || rect.height === 0) return undefined;
    return [
      ((event.clientX - rect.left) / rect.width) * canvas.width,
      ((event.clientY - rect.top) / rect.height) * canvas.height,
    ];
  }

  #say(): void {
    const canvas = this.#canvas();
    if (!this.draft || !canvas) return;
    const [x0, y0, x1, y1] = this.draft;
    const share = (value: number, of: number) => Math.round((value / of) * 100);
    this.#announce(
      `Box: left ${share(x0, canvas.width)}, top ${share(y0, canvas.height)}, width ${share(x1 - x0, canvas.width)}, ` +
        `height ${share(y1 - y0, canvas.height)} per cent.`,
    );
  }
}

const DIRECTIONS: Partial<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** The box moved back inside, its size kept. */
function inside(box: Box, { width, height }: Canvas): Box {
  const dx = Math.max(0, -box[0]) - Math.max(0, box[2] - width);
  const dy = Math.max(0, -box[1]) - Math.max(0, box[3] - height);
  return [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
}
