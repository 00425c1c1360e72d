/** Which boxes stand out: phrase and box point at each other by hover, focus and click. */

import type { ReactiveController, ReactiveControllerHost } from "lit";

/** Boxes of one answer; `turn` 0 are those of the photo itself. */
export interface Target {
  readonly turn: number;
  readonly regions: readonly number[];
}

/** What is pointed at now, and what was clicked and stays. */
export class Highlight implements ReactiveController {
  readonly #host: ReactiveControllerHost;
  #hovered: Target | undefined;
  #pinned: Target | undefined;

  constructor(host: ReactiveControllerHost) {
    this.#host = host;
    host.addController(this);
  }

  /** The pointer is not over anything any more; what was pinned stays. */
  hostDisconnected(): void {
    this.#hovered = undefined;
  }

  /** What stands out. */
  get current(): Target | undefined {
    return this.#hovered ?? this.#pinned;
  }

  /** Points at boxes while hovered or focused. */
  point(target: Target | undefined): void {
    this.#hovered = target;
    this.#host.requestUpdate();
  }

  /** Keeps boxes standing out, or lets them go when they are clicked again. */
  pin(target: Target): void {
    this.#pinned = same(this.#pinned, target) ? undefined : target;
    this.#host.requestUpdate();
  }

  /** Lets everything go. */
  clear(): void {
    this.#hovered = undefined;
    this.#pinned = undefined;
    this.#host.requestUpdate();
  }

  /** Whether a box stands out. */
  has(turn: number, region: number): boolean {
    const { current } = this;
    return current?.turn === turn && current.regions.includes(region);
  }

  /** Whether a click on it would let it go. */
  isPinned(target: Target): boolean {
    return same(this.#pinned, target);
  }
}

function same(a: Target | undefined, b: Target): boolean {
  return (
    a?.turn === b.turn &&
    a.regions.length === b.regions.length &&
    a.regions.every((id, at) => id === b.regions[at])
  );
}
