/** Which colour belongs to which phrase and its boxes. Colour is never the only mark: each box has its number. */

import type { Region, Segment } from "../engine/index.js";

/** The colours: white on each has a contrast of 4.5 and more. */
export const HUES = [
  "#1c5fd4",
  "#c02f2a",
  "#1b7a3d",
  "#7b3fc4",
  "#a85400",
  "#0b7382",
  "#b5257c",
  "#676500",
] as const;
const COLOURS = HUES.length;

/** A colour's number for each region that an answer mentions, and for each of its phrases. */
export interface Colouring {
  readonly regions: ReadonlyMap<number, number>;
  readonly phrases: ReadonlyMap<number, number>;
}

/** Gives every phrase the next colour; a region has the colour of the first phrase that mentions it. */
export function colour(segments: readonly Segment[]): Colouring {
  const regions = new Map<number, number>();
  const phrases = new Map<number, number>();
  let next = 0;
  for (const segment of segments) {
    if (segment.regions.length === 0) continue;
    const known = segment.regions.map((region) => regions.get(region.id)).find((c) => c !== undefined);
    // A bare list (everything found) names no phrase to share a colour: each box has its own.
    const bare = segment.text === "";
    const own = known ?? next++ % COLOURS;
    phrases.set(segment.index, own);
    segment.regions.forEach((region, at) => {
      if (regions.has(region.id)) return;
      regions.set(region.id, bare && at > 0 ? next++ % COLOURS : own);
    });
  }
  return { regions, phrases };
}

/** Regions of an answer, each once, in the order in which they are mentioned. */
export function mentioned(segments: readonly Segment[]): Region[] {
  return [...new Map(segments.flatMap((s) => s.regions.map((r) => [r.id, r] as const))).values()];
}
