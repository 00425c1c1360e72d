/** Photos for the engine: PNG, JPEG and WebP as they are (it decodes them itself, as the command line does); the browser decodes the rest. */

import { GromaError } from "../engine/error.js";
import type { PhotoSource } from "../engine/protocol.js";
import type { Debug } from "../engine/types.js";
import type { Picture } from "./engine.js";

// As in the engine's own decoder.
const MAX_PIXELS = 100e6;
// Far beyond any photo of so many pixels; larger files are something else.
const MAX_BYTES = 512 * 1024 * 1024;

/** A photo in the form that the engine takes. */
export async function toPicture(source: PhotoSource, debug: Debug = {}): Promise<Picture> {
  if ("rgba" in source) {
    const { rgba, width, height } = source;
    return { width, height, rgba: new Uint8Array(await read(rgba)) };
  }
  if ("strips" in source) return fromStrips(source.strips);
  const { blob } = source;
  // Its beginning says whose it is: a film need not be read for that.
  const head = new Uint8Array(await read(blob.slice(0, 12)));
  if (!engineDecodes(head)) return fromStrips([await decode(blob)]);
  if (blob.size > MAX_BYTES) {
    const size = `${Math.round(blob.size / 1e6)} MB, at most ${Math.round(MAX_BYTES / 1e6)} can be read`;
    throw new GromaError("image-too-large", `This picture's file has ${size}. Try a smaller one.`);
  }
  const turned = !isWebP(head) || (debug.webp ? debug.webp === "turned" : await turnsWebP());
  return { bytes: new Uint8Array(await read(blob)), turned };
}

/** Whether the engine has a decoder for a file, by its first bytes. */
export function engineDecodes(bytes: Uint8Array): boolean {
  const jpeg = bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
  return jpeg || text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n" || isWebP(bytes);
}

function isWebP(bytes: Uint8Array): boolean {
  return text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP";
}

function text(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, to));
}

/** 8 × 16 pixels that EXIF turns by 90 degrees: tests/native/fixtures/exif_6.webp. */
const TURNED_WEBP =
  "UklGRmQAAABXRUJQVlA4WAoAAAAIAAAABwAADwAAVlA4TCMAAAAvB8ADAB8QgycQSEYYN/z5D+IGhNlGk5zkSd5zChH9D6mvAABFWElGGgAAAE1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA";

let turning: Promise<boolean> | undefined;

/** Whether this browser turns WebP files by their EXIF orientation; boxes must lie right on what it shows. */
function turnsWebP(): Promise<boolean> {
  const bytes = Uint8Array.from(atob(TURNED_WEBP), (c) => c.charCodeAt(0));
  turning ??= createImageBitmap(new Blob([bytes])).then(
    ({ width }) => width === 16,
    () => true,
  );
  return turning;
}

async function read(blob: Blob): Promise<ArrayBuffer> {
  try {
    return await blob.arrayBuffer();
  } catch (error) {
    throw new GromaError(
      "image-unreadable",
      "The photo's file can't be read any more; it was changed or moved. Choose it again.",
      { cause: String(error) },
    );
  }
}

async function decode(blob: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new GromaError(
      "image-unreadable",
      "This file is no picture that can be read. Try a PNG, JPEG or WebP file.",
      {
        type: blob.type,
      },
    );
  }
}

/** A picture whose strips, at least one, lie below each other. */
function fromStrips(strips: readonly ImageBitmap[]): Picture {
  const width = strips[0]?.width ?? 0;
  const height = strips.reduce((sum, strip) => sum + strip.height, 0);
  try {
    // Before the copies that reading it takes.
    if (width * height > MAX_PIXELS) {
      const size = `${width} × ${height} pixels, at most ${MAX_PIXELS / 1e6} million can be read`;
      throw new GromaError("image-too-large", `This picture has ${size}. Try a smaller one.`);
    }
    return pixelsOf(strips, width, height);
  } finally {
    for (const strip of strips) strip.close();
  }
}

function pixelsOf(strips: readonly ImageBitmap[], width: number, height: number): Picture {
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("no canvas of this size");
    let y = 0;
    for (const strip of strips) {
      context.drawImage(strip, 0, y);
      y += strip.height;
    }
    const { data } = context.getImageData(0, 0, width, height);
    const rgba = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (!opaque(rgba)) readUnmultiplied(strips, rgba);
    return { width, height, rgba };
  } catch (error) {
    throw new GromaError(
      "image-too-large",
      "The browser has no memory for this picture. Try a smaller one.",
      {
        cause: String(error),
      },
    );
  }
}

function opaque(rgba: Uint8Array): boolean {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return false;
  return true;
}

/**
 * Reads the numbers of a bitmap's strips as they are. A 2D canvas multiplies colours by their alpha, which blackens what
 * cannot be seen; the engine looks at the colours alone. Without WebGL, or for strips beyond its textures, `rgba` stays as it is.
 */
function readUnmultiplied(strips: readonly ImageBitmap[], rgba: Uint8Array): void {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return;
  const most = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  let at = 0;
  for (const strip of strips) {
    const { width, height } = strip;
    const pixels = rgba.subarray(at, at + 4 * width * height);
    at += pixels.length;
    if (Math.max(width, height) > most) continue;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, strip);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    if (
      gl.checkFramebufferStatus(gl.FRAMEBUFFER) === gl.FRAMEBUFFER_COMPLETE &&
      gl.getError() === gl.NO_ERROR
    )
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    gl.deleteTexture(texture);
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
}
