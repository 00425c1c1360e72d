/** Arithmetic of boxes, in pixels of the photo. */

import type { Box, Task } from "../engine/index.js";

/** A photo's size. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** The corner by which a box is resized; the opposite one stays. */
export type Corner = "nw" | "ne" | "sw" | "se";
export const CORNERS = ["nw", "ne", "sw", "se"] as const;

/** A box smaller than this says nothing. */
export const SMALLEST = 4;

/** A box in whole pixels inside the photo, its corners in order. */
export function tidyBox(box: Box, { width, height }: Size): Box {
  const [x0, y0, x1, y1] = box;
  return [
    clamp(Math.round(Math.min(x0, x1)), 0, width),
    clamp(Math.round(Math.min(y0, y1)), 0, height),
    clamp(Math.round(Math.max(x0, x1)), 0, width),
    clamp(Math.round(Math.max(y0, y1)), 0, height),
  ];
}

/** Whether a box is large enough to say something. */
export function speaks([x0, y0, x1, y1]: Box): boolean {
  return x1 - x0 >= SMALLEST && y1 - y0 >= SMALLEST;
}

/** The box moved, its size kept, never out of the photo. */
export function movedBox([x0, y0, x1, y1]: Box, dx: number, dy: number, size: Size): Box {
  const x = clamp(dx, -x0, size.width - x1);
  const y = clamp(dy, -y0, size.height - y1);
  return tidyBox([x0 + x, y0 + y, x1 + x, y1 + y], size);
}

/** The box with one corner moved; it never turns inside out and keeps a smallest size. */
export function resizedBox(box: Box, corner: Corner, dx: number, dy: number, size: Size): Box {
  let [x0, y0, x1, y1] = box;
  if (corner.endsWith("w")) x0 = clamp(x0 + dx, 0, x1 - SMALLEST);
  else x1 = clamp(x1 + dx, x0 + SMALLEST, size.width);
  if (corner.startsWith("n")) y0 = clamp(y0 + dy, 0, y1 - SMALLEST);
  else y1 = clamp(y1 + dy, y0 + SMALLEST, size.height);
  return tidyBox([x0, y0, x1, y1], size);
}

/** The boxes that a question speaks of. */
export function boxesOfTask(task: Task): readonly Box[] {
  return task.kind === "ask" ? task.refer : task.kind === "caption" ? [task.box] : [];
}

/** A box's area. */
export function area([x0, y0, x1, y1]: Box): number {
  return (x1 - x0) * (y1 - y0);
}

/** A box as a screen reader should say it. */
export function spokenBox(at: number, [x0, y0, x1, y1]: Box): string {
  return `Box ${at + 1}: left ${x0}, top ${y0}, width ${x1 - x0}, height ${y1 - y0} pixels.`;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
