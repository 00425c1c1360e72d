/** The photo with its boxes as one picture: SVG, which keeps the words, and PNG. */

import { boxesOfTask } from "../element/boxes.js";
import { colour, HUES, mentioned } from "../element/palette.js";
import type { Turn } from "../element/session.js";
import { wordsOf } from "../element/words.js";
import type { Box, Region } from "../engine/index.js";
import { asText, labelled } from "./formats.js";

const SVG = "http://www.w3.org/2000/svg";

interface Marked {
  readonly box: Box;
  readonly label: string;
  readonly hue: string;
  readonly title: string;
  readonly dashed: boolean;
}

/** What is drawn over a photo: an answer's boxes, or without an answer all that were found. */
export interface Overlay {
  readonly photo: Blob;
  readonly turn: Turn | undefined;
  readonly regions: readonly Region[];
}

/** The picture as SVG; the photo is in it as data, so that the file is whole. */
export async function asSvg(overlay: Overlay): Promise<Blob> {
  const bitmap = await createImageBitmap(overlay.photo);
  const { width, height } = bitmap;
  const canvas = paint(bitmap);
  bitmap.close();
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  // Words become text nodes: the serializer escapes them.
  if (overlay.turn) {
    svg.append(words("title", wordsOf(overlay.turn.task) || "Groma"), words("desc", asText(overlay.turn)));
  }
  // Drawn anew, so that rotation is done and nothing of the file but its pixels goes along.
  const type = overlay.photo.type === "image/jpeg" ? "image/jpeg" : "image/png";
  svg.append(node("image", { href: await asData(canvas, type), width, height }));
  const unit = unitOf(width, height);
  for (const marked of marks(overlay)) svg.append(group(marked, unit));
  const text = new XMLSerializer().serializeToString(svg);
  return new Blob([text], { type: "image/svg+xml" });
}

/** The picture as PNG, in the photo's own pixels. */
export async function asPng(overlay: Overlay): Promise<Blob> {
  const bitmap = await createImageBitmap(overlay.photo);
  const canvas = paint(bitmap);
  const unit = unitOf(bitmap.width, bitmap.height);
  bitmap.close();
  const context = canvas.getContext("2d");
  if (!context) throw new Error("The browser gave no canvas to draw on.");
  for (const marked of marks(overlay)) stroke(context, marked, unit);
  return encoded(canvas, "image/png");
}

/** Encoded beside the page's own work. */
function encoded(canvas: HTMLCanvasElement, type: string): Promise<Blob> {
  return new Promise((done, fail) => {
    const take = (blob: Blob | null) => {
      if (blob) done(blob);
      else fail(new Error("The picture is too large for this browser."));
    };
    canvas.toBlob(take, type, 0.92);
  });
}

async function asData(canvas: HTMLCanvasElement, type: string): Promise<string> {
  const blob = await encoded(canvas, type);
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result as string);
    reader.onerror = () => fail(reader.error ?? new Error("The picture can't be read."));
    reader.readAsDataURL(blob);
  });
}

function marks({ turn, regions }: Overlay): Marked[] {
  if (!turn) return regions.map((region) => ({ ...mark(region, "#333333"), title: "" }));
  const colours = colour(turn.segments).regions;
  const phrases = new Map(labelled(turn).map(({ id, phrase }) => [id, phrase]));
  const tied = mentioned(turn.segments).map((region) => ({
    ...mark(region, HUES[colours.get(region.id) ?? 0] ?? HUES[0]),
    title: phrases.get(region.id) ?? "",
  }));
  const asked = boxesOfTask(turn.task).map((box, at) => ({
    box,
    label: `[${at + 1}]`,
    hue: "#111111",
    title: "",
    dashed: true,
  }));
  return [...tied, ...asked];
}

function mark({ box, id }: Region, hue: string): Marked {
  return { box, label: String(id), hue, title: "", dashed: false };
}

/** A line's width: as thin as can be seen when the picture fills a screen. */
function unitOf(width: number, height: number): number {
  return Math.max(1, Math.max(width, height) / 400);
}

function paint(bitmap: ImageBitmap): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  return canvas;
}

/** Where the number stands: in the box's upper left corner. */
function tab({ box: [x, y], label }: Marked, unit: number) {
  const size = unit * 7;
  return { x, y, size, width: size * (0.7 + 0.6 * label.length), height: size * 1.4 };
}

function group(marked: Marked, unit: number): SVGElement {
  const { box, hue, title, label, dashed } = marked;
  const [x, y, x1, y1] = box;
  const place = { x, y, width: x1 - x, height: y1 - y, fill: "none" };
  const at = tab(marked, unit);
  const g = node("g", {});
  if (title) g.append(words("title", title));
  g.append(
    // Light under dark: seen on every photo.
    node("rect", { ...place, stroke: "#ffffff", "stroke-width": unit * 3 }),
    node("rect", {
      ...place,
      stroke: hue,
      "stroke-width": unit * 1.6,
      ...(dashed ? { "stroke-dasharray": `${unit * 5} ${unit * 3}` } : {}),
    }),
    node("rect", { x, y, width: at.width, height: at.height, fill: hue }),
  );
  const text = words("text", label);
  const attributes = {
    x: x + at.width / 2,
    y: y + at.height * 0.74,
    fill: "#ffffff",
    "text-anchor": "middle",
    "font-family": "system-ui, sans-serif",
    "font-weight": 600,
    "font-size": at.size,
  };
  for (const [name, value] of Object.entries(attributes)) text.setAttribute(name, String(value));
  g.append(text);
  return g;
}

function stroke(context: CanvasRenderingContext2D, marked: Marked, unit: number): void {
  const [x, y, x1, y1] = marked.box;
  const at = tab(marked, unit);
  context.setLineDash([]);
  context.strokeStyle = "#ffffff";
  context.lineWidth = unit * 3;
  context.strokeRect(x, y, x1 - x, y1 - y);
  if (marked.dashed) context.setLineDash([unit * 5, unit * 3]);
  context.strokeStyle = marked.hue;
  context.lineWidth = unit * 1.6;
  context.strokeRect(x, y, x1 - x, y1 - y);
  context.fillStyle = marked.hue;
  context.fillRect(x, y, at.width, at.height);
  context.fillStyle = "#ffffff";
  context.font = `600 ${at.size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(marked.label, x + at.width / 2, y + at.height / 2);
}

function node(name: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

function words(name: string, text: string): SVGElement {
  const made = document.createElementNS(SVG, name);
  made.textContent = text;
  return made;
}
