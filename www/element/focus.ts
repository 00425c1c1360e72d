/** Keeps the keyboard's place: where what was focused is not drawn any more, what took its place is focused. */

import type { LitElement } from "lit";

// In the order in which they are tried; the first that is there is meant.
const PLACES = {
  box: ['[role="option"][tabindex="0"]', ".draw", ".ways .primary"],
  stage: [".draw", ".ways .primary"],
  talk: [".gate button", ".line .stop", ".line input", ".line button"],
} as const;

/** See the module. */
export function keepFocus(host: LitElement): void {
  let held: Element | null | undefined;
  let places: readonly string[] = [];
  host.addController({
    hostUpdate: () => {
      held = host.shadowRoot?.activeElement;
      if (!held) return;
      const side = held.closest(".stage") ? PLACES.stage : PLACES.talk;
      places = held.getAttribute("role") === "option" ? PLACES.box : side;
    },
    hostUpdated: () => {
      const root = host.shadowRoot;
      if (!held || !root || root.contains(held)) return;
      const found = places.map((place) => root.querySelector<HTMLElement>(place)).find((e) => e !== null);
      found?.focus();
    },
  });
}
