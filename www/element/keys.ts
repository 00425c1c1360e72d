/**
 * Keys that mean something here end here: pages have shortcuts on single letters and arrows (mdBook opens its search on "s" and
 * leaves the chapter on "→"), and listen where they see only that some element was the target.
 */

const MOVES: ReadonlySet<string> = new Set([
  ...["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"],
  ...["Enter", " "],
]);

const EDITS: ReadonlySet<string> = new Set(["Backspace", "Delete"]);

/** Keeps the page's shortcuts from a key; those with Ctrl, Alt or Meta, Escape and Tab stay everyone's. */
export function keepKey(event: KeyboardEvent): void {
  const { currentTarget, target, key } = event;
  // What the page put into a slot is the page's own.
  if ((currentTarget as Node).getRootNode() !== (target as Node).getRootNode()) return;
  const writes = event.getModifierState("AltGraph");
  const shortcut = event.metaKey || ((event.ctrlKey || event.altKey) && !writes);
  const typed = target instanceof HTMLInputElement && (key.length === 1 || EDITS.has(key));
  if (event.defaultPrevented || (!shortcut && (typed || MOVES.has(key)))) event.stopPropagation();
}
