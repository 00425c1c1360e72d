/** Whatever a page has as a photo, in a form that can go to the worker. */

import { abortReason, GromaError } from "./error.js";
import type { PhotoInput } from "./photo.js";
import type { PhotoSource } from "./protocol.js";

/** How a bitmap is copied: its numbers stay what they are. */
const AS_IT_IS: ImageBitmapOptions = { premultiplyAlpha: "none", colorSpaceConversion: "none" };

/** Brings a photo into a form that crosses; files cross as they are and are decoded by the engine. */
export async function toSource(photo: PhotoInput, signal?: AbortSignal): Promise<PhotoSource> {
  if (photo instanceof Blob) return { blob: photo };
  // A copy: the caller may close or change its own, and the photo may have to be looked at again.
  try {
    if (typeof ImageBitmap !== "undefined" && photo instanceof ImageBitmap)
      return { strips: await stripsOf(photo) };
    if (typeof ImageData !== "undefined" && photo instanceof ImageData) return await ofPixels(photo);
  } catch (error) {
    if (error instanceof GromaError) throw error;
    throw new GromaError(
      "image-unreadable",
      "This picture has no pixels any more: it was closed or given away.",
      {
        cause: String(error),
      },
    );
  }
  if (typeof HTMLImageElement !== "undefined" && photo instanceof HTMLImageElement) {
    const address = photo.currentSrc || photo.src;
    if (!address) throw new GromaError("image-unreadable", "This image element has no address yet.");
    try {
      return { blob: await fetchPhoto(address, signal) };
    } catch (error) {
      // Its address may be gone, as those of files are that were given back; what it shows is there still.
      const bitmap = signal?.aborted
        ? undefined
        : await createImageBitmap(photo, AS_IT_IS).catch(() => undefined);
      if (bitmap) return { strips: [readable(bitmap)] };
      throw error;
    }
  }
  if (typeof photo === "string" || photo instanceof URL)
    return { blob: await fetchPhoto(String(photo), signal) };
  throw new GromaError(
    "image-unreadable",
    "This is no photo. Give a file, an image element, pixels or an address.",
  );
}

// What is copied in one task of the page's own thread, in bytes: a few milliseconds of it.
const PIECE = 4 << 20;

/** Ends the task that runs: what follows is another one, and the page may draw in between. */
const pause = () => new Promise<void>((done) => setTimeout(done));

/** Pixels in a blob: copied once, piece by piece. */
async function ofPixels({ data, width, height }: ImageData): Promise<PhotoSource> {
  if (data.length !== width * height * 4) throw new Error("no pixels");
  const pieces: Blob[] = [];
  for (let at = 0; at < data.length; at += PIECE) {
    if (at > 0) await pause();
    pieces.push(new Blob([data.subarray(at, at + PIECE)]));
  }
  return { rgba: new Blob(pieces), width, height };
}

/** A source as it is sent, and what goes along for good: of a bitmap a copy, for the photo may have to be looked at again. */
export async function parcel(
  source: PhotoSource,
): Promise<{ readonly source: PhotoSource; readonly transfer: Transferable[] }> {
  if (!("strips" in source)) return { source, transfer: [] };
  const strips: ImageBitmap[] = [];
  for (const strip of source.strips) {
    await pause();
    strips.push(await createImageBitmap(strip, AS_IT_IS));
  }
  return { source: { strips }, transfer: strips };
}

/** Gives back our own copy of a bitmap. */
export function discard(source: PhotoSource): void {
  if ("strips" in source) for (const strip of source.strips) strip.close();
}

/** A bitmap copied strip by strip, each in a task of its own: a large one at once would keep the page from drawing. */
async function stripsOf(bitmap: ImageBitmap): Promise<ImageBitmap[]> {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.floor(PIECE / (4 * width)));
  const strips: ImageBitmap[] = [];
  try {
    for (let y = 0; y < Math.max(1, height); y += rows) {
      if (y > 0) await pause();
      const strip = await createImageBitmap(bitmap, 0, y, width, Math.min(rows, height - y), AS_IT_IS);
      strips.push(y > 0 ? strip : readable(strip));
    }
  } catch (error) {
    discard({ strips });
    throw error;
  }
  return strips;
}

/** A bitmap whose pixels may be read; those of a picture that another site gave for showing only may not, nor may they cross. */
function readable(bitmap: ImageBitmap): ImageBitmap {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context?.drawImage(bitmap, 0, 0);
  try {
    context?.getImageData(0, 0, 1, 1);
  } catch (error) {
    bitmap.close();
    throw new GromaError(
      "image-unreadable",
      "The pixels of this picture can't be read: it is from another site. Have its host allow that (CORS), and give the image the attribute crossorigin.",
      { cause: String(error) },
    );
  }
  return bitmap;
}

/** Fetches a photo; a failure says what to do. */
export async function fetchPhoto(url: string, signal?: AbortSignal): Promise<Blob> {
  let response: Response;
  try {
    response = await fetch(url, signal ? { signal } : {});
  } catch (error) {
    if (signal?.aborted) throw abortReason(signal);
    throw new GromaError(
      "image-unreadable",
      "The photo could not be fetched. Check its address, and that its host allows other sites (CORS).",
      {
        url,
        cause: String(error),
      },
    );
  }
  if (!response.ok) {
    throw new GromaError(
      "image-unreadable",
      `The photo could not be fetched: its host answered ${response.status}.`,
      { url },
    );
  }
  try {
    return await response.blob();
  } catch (error) {
    if (signal?.aborted) throw abortReason(signal);
    throw new GromaError("image-unreadable", "The photo's transfer was cut. Try again.", {
      url,
      cause: String(error),
    });
  }
}
