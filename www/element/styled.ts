/** Styles by the object model: a strict content security policy forbids style attributes, which Lit's own directive writes first. */

import { noChange } from "lit";
import { Directive, directive, type ElementPart, PartType, type PartInfo } from "lit/directive.js";

class Styled extends Directive {
  constructor(info: PartInfo) {
    super(info);
    if (info.type !== PartType.ELEMENT) throw new Error("styled() stands where an attribute would, alone");
  }

  render(_styles: Readonly<Record<string, string>>): typeof noChange {
    return noChange;
  }

  override update(part: ElementPart, [styles]: [Readonly<Record<string, string>>]): typeof noChange {
    const { style } = part.element as HTMLElement;
    for (const [name, value] of Object.entries(styles)) style.setProperty(name, value);
    return noChange;
  }
}

/** Sets properties of an element's style. */
export const styled = directive(Styled);
