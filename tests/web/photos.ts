/** Photos of every kind that a reader may have, and files that only say that they are photos. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { ROOT } from "./packs.js";

/** A file as it crosses into a page. */
export interface Odd {
  readonly name: string;
  readonly bytes: Buffer;
  /** What it is refused as; nothing where it is a photo. */
  readonly reason?: "image-unreadable" | "image-too-large";
}

const native = join(ROOT, "tests", "native", "fixtures");
const ours = join(ROOT, "tests", "web", "fixture", "photos");
const all = (folder: string, ends: RegExp) =>
  readdirSync(folder)
    .filter((name) => ends.test(name))
    .map((name) => ({ name, bytes: readFileSync(join(folder, name)) }));

// A row of three pixels of four times 16 bits, unfiltered.
const SIXTEEN = Buffer.from([0, ...Array.from({ length: 24 }, (_, at) => at * 10)]);

/** Photos: what the engine decodes, and what only the browser does, an animation among them. */
export const PHOTOS: readonly Odd[] = [
  ...all(native, /\.(jpg|png|webp)$/),
  ...all(ours, /\.(gif|bmp|avif)$/),
  { name: "16_bit.png", bytes: png(3, 2, 16, 6, Buffer.concat([SIXTEEN, SIXTEEN])) },
];

/** Files that are no photo that can be seen. */
export const HOSTILE: readonly Odd[] = [
  { name: "empty", bytes: Buffer.alloc(0), reason: "image-unreadable" },
  {
    name: "cut.jpg",
    bytes: readFileSync(join(native, "progressive.jpg")).subarray(0, 40),
    reason: "image-unreadable",
  },
  { name: "text.png", bytes: Buffer.from("no picture at all"), reason: "image-unreadable" },
  {
    name: "drawing.svg",
    bytes: Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"),
    reason: "image-unreadable",
  },
  // 900 million pixels, of which there is one row; its checksums are right, so that only the size is wrong.
  { name: "huge.png", bytes: png(30_000, 30_000, 8, 2, Buffer.alloc(1 + 90_000)), reason: "image-too-large" },
  { name: "nothing.png", bytes: png(0, 0, 8, 2, Buffer.alloc(0)), reason: "image-unreadable" },
  { name: "line.png", bytes: png(0, 9, 8, 2, Buffer.alloc(9)), reason: "image-unreadable" },
  { name: "short.png", bytes: png(40, 40, 8, 2, Buffer.alloc(10)), reason: "image-unreadable" },
];

/** A PNG file, its checksums right, whatever its head claims. `rows` have their filter bytes. */
function png(width: number, height: number, depth: number, colour: number, rows: Buffer): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([depth, colour, 0, 0, 0], 8);
  const chunk = (name: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk("IHDR", head),
    chunk("IDAT", deflateSync(rows)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}
