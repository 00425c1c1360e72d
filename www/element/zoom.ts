/**
 * Looking closer at the photo: by pinch, by the wheel with Ctrl, by a double tap, by buttons. The photo grows inside a pane
 * that scrolls, so that panning is the browser's own and a page around the element scrolls as ever.
 */

import type { ReactiveController, ReactiveControllerHost } from "lit";

const MOST = 8;
/** What one press of a button does. */
const STEP = 1.5;
/** What a double tap goes to. */
const CLOSE = 2.5;
// Two taps within this time and distance are one double tap, in milliseconds and CSS pixels.
const SOON = 300;
const NEAR = 30;

interface Pinch {
  readonly distance: number;
  readonly scale: number;
}

/** How close the reader looks. */
export class Zoom implements ReactiveController {
  scale = 1;
  readonly #host: ReactiveControllerHost;
  readonly #frame: () => HTMLElement | null;
  readonly #onPinch: () => void;
  readonly #announce: (text: string) => void;
  #pinch: Pinch | undefined;
  #tapped = { time: 0, x: 0, y: 0 };

  constructor(
    host: ReactiveControllerHost,
    frame: () => HTMLElement | null,
    onPinch: () => void,
    announce: (text: string) => void,
  ) {
    this.#host = host;
    this.#frame = frame;
    this.#onPinch = onPinch;
    this.#announce = announce;
    host.addController(this);
  }

  hostDisconnected(): void {
    this.reset();
  }

  /** Whether one can look closer still. */
  get canGrow(): boolean {
    return this.scale < MOST;
  }

  /** The whole photo again. */
  reset(): void {
    this.scale = 1;
    this.#pinch = undefined;
    this.#host.requestUpdate();
  }

  /** One step closer (1) or back (-1), around the middle of what is seen. */
  async step(way: 1 | -1): Promise<void> {
    const pane = this.#frame()?.parentElement?.getBoundingClientRect();
    if (!pane) return;
    await this.#to(this.scale * STEP ** way, pane.left + pane.width / 2, pane.top + pane.height / 2);
    this.#announce(`Zoom ${Math.round(this.scale * 100)} per cent.`);
  }

  /** The wheel zooms with Ctrl, as trackpads say a pinch; without it, it scrolls. */
  readonly wheel = (event: WheelEvent): void => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    void this.#to(this.scale * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  };

  readonly keyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") void this.step(1);
    else if (event.key === "-") void this.step(-1);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  };

  readonly touchStart = (event: TouchEvent): void => {
    const pair = fingers(event);
    if (!pair) return;
    this.#onPinch();
    this.#pinch = { distance: pair.distance, scale: this.scale };
  };

  readonly touchMove = (event: TouchEvent): void => {
    const pair = fingers(event);
    if (!pair || !this.#pinch) return;
    event.preventDefault();
    void this.#to((this.#pinch.scale * pair.distance) / this.#pinch.distance, pair.x, pair.y);
  };

  /** The end of a pinch, or the second tap of two. */
  touchEnd(event: TouchEvent, drawing: boolean): void {
    const pinched = this.#pinch !== undefined;
    if (event.touches.length < 2) this.#pinch = undefined;
    const touch = event.changedTouches[0];
    if (!touch || pinched || drawing || event.touches.length > 0) return;
    const { clientX: x, clientY: y } = touch;
    const last = this.#tapped;
    const time = event.timeStamp;
    this.#tapped = { time, x, y };
    if (time - last.time > SOON || Math.hypot(x - last.x, y - last.y) > NEAR) return;
    this.#tapped = { time: 0, x, y };
    event.preventDefault();
    void this.#to(this.scale > 1 ? 1 : CLOSE, x, y);
  }

  /** Takes a scale and keeps the point of the photo under (x, y) where it is. */
  async #to(scale: number, x: number, y: number): Promise<void> {
    const frame = this.#frame();
    const pane = frame?.parentElement;
    if (!frame || !pane) return;
    const before = frame.getBoundingClientRect();
    const [across, down] = [(x - before.left) / before.width, (y - before.top) / before.height];
    this.scale = Math.min(Math.max(scale, 1), MOST);
    this.#host.requestUpdate();
    await this.#host.updateComplete;
    const after = frame.getBoundingClientRect();
    pane.scrollBy(after.left + across * after.width - x, after.top + down * after.height - y);
  }
}

/** The middle and the distance of two fingers. */
function fingers({ touches }: TouchEvent): { x: number; y: number; distance: number } | undefined {
  const [a, b] = [touches[0], touches[1]];
  if (!a || !b || touches.length !== 2) return undefined;
  return {
    x: (a.clientX + b.clientX) / 2,
    y: (a.clientY + b.clientY) / 2,
    distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1,
  };
}
