/** Photos to begin with, with their credits. Set-up brings them; without them nothing is shown. */

import type { GromaChat } from "../element/chat.js";

/** What `samples/samples.json` says of a photo. */
interface Sample {
  readonly file: string;
  readonly alt: string;
  readonly credit: string;
}

/** Fills the list of samples. */
export async function showSamples(section: HTMLElement, chat: GromaChat): Promise<void> {
  const home = new URL("samples/", document.baseURI);
  const list = section.querySelector("ul");
  const response = await fetch(new URL("samples.json", home)).catch(() => undefined);
  if (!list || !response?.ok) return;
  const samples = (await response.json()) as Sample[];
  list.replaceChildren(...samples.map((sample) => item(sample, home, chat)));
  section.hidden = samples.length === 0;
}

function item(sample: Sample, home: URL, chat: GromaChat): HTMLLIElement {
  const image = new Image();
  image.src = new URL(sample.file, home).href;
  image.alt = sample.alt;
  const button = document.createElement("button");
  button.type = "button";
  button.title = sample.credit;
  button.append(image);
  button.addEventListener("click", () => void choose(sample, image.src, chat));
  const credit = document.createElement("small");
  credit.textContent = sample.credit;
  const li = document.createElement("li");
  li.append(button, credit);
  return li;
}

async function choose(sample: Sample, url: string, chat: GromaChat): Promise<void> {
  const response = await fetch(url);
  if (response.ok) await chat.open(await response.blob(), sample.alt);
}
