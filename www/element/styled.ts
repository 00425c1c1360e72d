/** Styles by the object model: a strict content security policy forbids style attributes, which Lit's own directive writes first. */

import { noChange } from "lit";
import { Directive, directive, type ElementPart, PartType, type PartInfo } from "lit/directive.js";
import type { Box } from "../engine/index.js";
import type { Size } from "./boxes.js";

type Styles = Readonly<Record<string, string>>;

class Styled extends Directive {
  constructor(info: PartInfo) {
    super(info);
    if (info.type !== PartType.ELEMENT) throw new Error("styled() stands where an attribute would, alone");
  }

  #element: HTMLElement | undefined;

  override update(part: ElementPart, [styles]: [Styles]): typeof noChange {
    this.#element = part.element as HTMLElement;
    return this.render(styles);
  }

  render(styles: Styles): typeof noChange {
    for (const [name, value] of Object.entries(styles)) this.#element?.style.setProperty(name, value);
    return noChange;
  }
}

/** Sets properties of an element's style. */
export const styled = directive(Styled);

/** Puts an element where a box is, in shares of the photo: it stays there at every size of the photo on the screen. */
export function place([x0, y0, x1, y1]: Box, { width, height }: Size) {
  const percent = (value: number, of: number) => `${of ? (value / of) * 100 : 0}%`;
  return styled({
    left: percent(x0, width),
    top: percent(y0, height),
    width: percent(x1 - x0, width),
    height: percent(y1 - y0, height),
  });
}
