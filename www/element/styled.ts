/** Styles by the object model: a strict content security policy forbids style attributes, which Lit's own directive writes first. */

import { noChange } from "lit";
import { Directive, directive, type ElementPart, PartType, type PartInfo } from "lit/directive.js";

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
