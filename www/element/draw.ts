/** Boxes of the question: drawn, moved, resized and deleted by pointer, by finger and by keys. */

import type { ReactiveController, ReactiveControllerHost } from "lit";
import type { Box } from "../engine/index.js";
import { movedBox, resizedBox, speaks, spokenBox, tidyBox, type Corner, type Size } from "./boxes.js";

/** The photo that is drawn on. */
export interface Surface {
  size(): Size;
  /** Where the photo is on the screen; nothing while there is none. */
  rect(): DOMRect | undefined;
  /** Moves the focus to a box, to the button that begins one, or to the question. */
  focus(target: number | "button" | "question"): void;
  announce(text: string): void;
  /** Whether boxes are given and can't be changed. */
  closed(): boolean;
}

// Less than this is a click that shook, in CSS pixels.
const SLOP = 5;

type Point = readonly [x: number, y: number];

/** A box that is held by the pointer. */
interface Grip {
  readonly index: number;
  readonly corner: Corner | undefined;
  readonly from: Point;
  readonly box: Box;
}

/** The boxes that were drawn and the one that is being drawn. */
export class Drawing implements ReactiveController {
  /** The box that is being drawn. */
  draft: Box | undefined;
  /** Whether the next press on the photo begins a box, also by touch or by single clicks. */
  armed = false;
  readonly #host: ReactiveControllerHost;
  readonly #surface: Surface;
  #boxes: readonly Box[] = [];
  #pressed: { readonly at: Point; readonly x: number; readonly y: number } | undefined;
  #corner: Point | undefined;
  #grip: Grip | undefined;
  #dragged = false;

  constructor(host: ReactiveControllerHost, surface: Surface) {
    this.#host = host;
    this.#surface = surface;
    host.addController(this);
  }

  hostDisconnected(): void {
    this.cancel();
  }

  /** The boxes, as the question numbers them from 1. */
  get boxes(): readonly Box[] {
    return this.#boxes;
  }

  set boxes(boxes: readonly Box[]) {
    this.#boxes = boxes;
    this.#host.requestUpdate();
  }

  /** Whether boxes are given and can't be changed. */
  get closed(): boolean {
    return this.#surface.closed();
  }

  /** Forgets everything: another photo. */
  clear(): void {
    this.boxes = [];
    this.cancel();
  }

  /** Brings boxes that were given before the photo was known inside it. */
  fit(): void {
    const size = this.#surface.size();
    this.boxes = this.#boxes.map((box) => tidyBox(box, size)).filter(speaks);
  }

  /** Forgets one box. */
  remove(index: number): void {
    this.boxes = this.#boxes.filter((_, at) => at !== index);
    this.#surface.announce(`Box ${index + 1} removed.`);
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

  /** Puts a box in the middle, which keys then move. */
  addByKeys(): void {
    const size = this.#surface.size();
    if (size.width === 0) return;
    const { width, height } = size;
    this.#add(tidyBox([width * 0.35, height * 0.35, width * 0.65, height * 0.65], size));
    this.#surface.focus(this.#boxes.length - 1);
  }

  /** Gives up what is being drawn. */
  cancel(): void {
    this.draft = undefined;
    this.armed = false;
    this.release();
  }

  /** Lets go of what the pointer began: a second finger came. */
  release(): void {
    this.draft = undefined;
    this.#pressed = undefined;
    this.#corner = undefined;
    this.#grip = undefined;
    this.#host.requestUpdate();
  }

  /** Whether the click that follows belongs to a drag. */
  readonly swallowClick = (event: MouseEvent): void => {
    if (!this.#dragged) return;
    this.#dragged = false;
    event.stopPropagation();
    event.preventDefault();
  };

  /** A press on the photo. */
  readonly pointerDown = (event: PointerEvent): void => {
    this.#dragged = false;
    if (this.closed || event.button !== 0 || !event.isPrimary) return;
    // A finger scrolls unless drawing was asked for.
    if (event.pointerType === "touch" && !this.armed) return;
    const at = this.#at(event);
    if (at) this.#pressed = { at, x: event.clientX, y: event.clientY };
  };

  /** A press on a box, or on one of its corners. */
  grab(event: PointerEvent, index: number, corner?: Corner): void {
    const from = this.#at(event);
    const box = this.#boxes[index];
    if (this.closed || event.button !== 0 || !event.isPrimary || !from || !box) return;
    event.stopPropagation();
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    this.#grip = { index, corner, from, box };
  }

  readonly pointerMove = (event: PointerEvent): void => {
    const to = this.#at(event);
    if (!to) return;
    if (this.#grip) {
      this.#drag(this.#grip, to);
      return;
    }
    const from = this.#pressed?.at ?? this.#corner;
    if (!from) return;
    if (this.#pressed && !this.#dragged) {
      if (Math.hypot(event.clientX - this.#pressed.x, event.clientY - this.#pressed.y) < SLOP) return;
      this.#dragged = true;
      this.#corner = undefined;
      (event.currentTarget as Element).setPointerCapture(event.pointerId);
    }
    this.#draft(from, to);
  };

  readonly pointerUp = (event: PointerEvent): void => {
    const grip = this.#grip;
    if (grip) {
      this.#grip = undefined;
      this.#say(grip.index);
      return;
    }
    const pressed = this.#pressed;
    this.#pressed = undefined;
    if (!pressed) return;
    if (this.#dragged) {
      this.#commit();
      return;
    }
    if (!this.armed) return;
    // Two single clicks, for whoever can't drag: one corner, then the other.
    const at = this.#at(event);
    if (!at) return;
    this.#dragged = true;
    if (this.#corner) {
      this.#draft(this.#corner, at);
      this.#commit();
    } else {
      this.#corner = at;
      this.#surface.announce("First corner set. Click the opposite corner.");
    }
  };

  /** Keys on the photo: Escape gives up what is being drawn. */
  readonly keyDown = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || (!this.draft && !this.armed)) return;
    event.preventDefault();
    event.stopPropagation();
    this.cancel();
  };

  /** Keys on a box. Arrows move it by a pixel of the photo, with Shift further; with Alt they resize it. */
  key(event: KeyboardEvent, index: number): void {
    const box = this.#boxes[index];
    if (!box || this.closed) return;
    const way = DIRECTIONS[event.key];
    if (way) {
      const size = this.#surface.size();
      const step = event.shiftKey ? Math.max(10, Math.round(Math.max(size.width, size.height) / 50)) : 1;
      const [dx, dy] = [way[0] * step, way[1] * step];
      this.#put(index, event.altKey ? resizedBox(box, "se", dx, dy, size) : movedBox(box, dx, dy, size));
      this.#say(index);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.remove(index);
      this.#surface.focus("button");
    } else if (event.key === "Enter") this.#surface.focus("question");
    else if (event.key === "Escape") this.#surface.focus("button");
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #add(box: Box): void {
    this.boxes = [...this.#boxes, box];
    this.#surface.announce(`Box ${this.#boxes.length} drawn.`);
  }

  #put(index: number, box: Box): void {
    this.boxes = this.#boxes.map((old, at) => (at === index ? box : old));
  }

  #commit(): void {
    const { draft } = this;
    this.cancel();
    if (draft && speaks(draft)) this.#add(draft);
  }

  #drag({ index, corner, from, box }: Grip, to: Point): void {
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    const size = this.#surface.size();
    this.#put(index, corner ? resizedBox(box, corner, dx, dy, size) : movedBox(box, dx, dy, size));
  }

  #draft(from: Point, to: Point): void {
    this.draft = tidyBox([from[0], from[1], to[0], to[1]], this.#surface.size());
    this.#host.requestUpdate();
  }

  #at(event: PointerEvent): Point | undefined {
    const rect = this.#surface.rect();
    if (!rect?.width || !rect.height) return undefined;
    const { width, height } = this.#surface.size();
    return [
      ((event.clientX - rect.left) / rect.width) * width,
      ((event.clientY - rect.top) / rect.height) * height,
    ];
  }

  #say(index: number): void {
    const box = this.#boxes[index];
    if (box) this.#surface.announce(spokenBox(index, box));
  }
}

const DIRECTIONS: Partial<Record<string, Point>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
