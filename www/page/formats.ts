/** An answer as text, as JSON and as COCO's boxes. */

import { mentioned } from "../element/palette.js";
import type { Turn } from "../element/session.js";
import { wordsOf } from "../element/words.js";
import { joinText, type Segment } from "../engine/index.js";

/** The photo that an answer is about. */
export interface About {
  readonly name: string;
  readonly width: number;
  readonly height: number;
}

/** The answer as the command line prints it: `a dog [1, 2] sleeps.` */
export function asText(turn: Turn): string {
  return joinText(turn.segments.map((segment) => ({ text: numbered(segment) })));
}

/** Everything about the answer: the photo's size, the task, and what the engine gave. */
export function asJson(turn: Turn, { name, width, height }: About): string {
  return pretty({ photo: { name, width, height }, task: turn.task, answer: turn.result });
}

/** The boxes in COCO's form: `[x, y, width, height]`, a category for each phrase. */
export function asCoco(turn: Turn, { name, width, height }: About): string {
  const tied = turn.segments.filter((segment) => segment.regions.length > 0);
  const names = [...new Set(tied.map((segment) => categoryOf(segment, turn)))];
  const annotations = tied.flatMap((segment) =>
    segment.regions.map(({ box: [x0, y0, x1, y1], score }) => ({
      image_id: 1,
      category_id: names.indexOf(categoryOf(segment, turn)) + 1,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      area: (x1 - x0) * (y1 - y0),
      iscrowd: 0,
      score,
    })),
  );
  return pretty({
    images: [{ id: 1, file_name: name, width, height }],
    categories: names.map((category, at) => ({ id: at + 1, name: category })),
    annotations: annotations.map((annotation, at) => ({ id: at + 1, ...annotation })),
  });
}

/** The answer's boxes with their phrases, each once. */
export function labelled(turn: Turn): { id: number; phrase: string }[] {
  return mentioned(turn.segments).map(({ id }) => ({
    id,
    phrase: turn.segments.find((s) => s.regions.some((r) => r.id === id))?.text ?? "",
  }));
}

function numbered({ text, regions }: Segment): string {
  const ids = regions.map(({ id }) => id).join(", ");
  return ids ? `${text} [${ids}]`.trim() : text;
}

/** The phrase; a bare list of boxes is of what was looked for. */
function categoryOf({ text }: Segment, { task }: Turn): string {
  return text || wordsOf(task) || "region";
}

function pretty(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}
