/**
 * A list of templates by key: an item that stays keeps its elements, and with them focus.
 *
 * Stands for Lit's `repeat`, which leaves a comment behind for every item that goes (https://github.com/lit/lit/issues/5298, in
 * lit-html 3.3.1 to 3.3.3): in a live region that is one for every line ever said. With that mended, `repeat` will do.
 */

import { noChange } from "lit";
import { Directive, directive, type ChildPart } from "lit/directive.js";
import { insertPart, removePart, setChildPartValue, setCommittedValue } from "lit/directive-helpers.js";

class Each extends Directive {
  #parts = new Map<unknown, ChildPart>();

  render<T>(items: readonly T[], _key: (item: T) => unknown, template: (item: T) => unknown): unknown {
    return items.map(template);
  }

  override update(list: ChildPart, [items, key, template]: Parameters<this["render"]>): unknown {
    const old = this.#parts;
    const keys = items.map(key);
    const wanted = new Set(keys);
    for (const [gone, part] of old) {
      if (wanted.has(gone)) continue;
      const { endNode } = part;
      removePart(part);
      endNode?.parentNode?.removeChild(endNode);
    }
    // From the end, so that each item's next one stands already; what is in its place is not moved.
    const parts: ChildPart[] = [];
    for (const [at, item] of [...items.entries()].reverse()) {
      const part = insertPart(list, parts[0], old.get(keys[at]));
      parts.unshift(setChildPartValue(part, template(item)));
    }
    this.#parts = new Map(parts.map((part, at) => [keys[at], part]));
    setCommittedValue(list, parts);
    return noChange;
  }
}

/** Draws each item; keys are different from one another. */
export const each = directive(Each) as <T>(
  items: readonly T[],
  key: (item: T) => unknown,
  template: (item: T) => unknown,
) => unknown;
