// The engine alone, without the element: load on a press, look at a chosen photo, describe it.

import { Groma, GromaError } from "groma-web";

// The folder of a model pack, beside the built page: `public/models/groma-s/` of this project.
const MODEL = new URL("models/groma-s/", document.baseURI);

const [load, bar, file, status, answer] = ["load", "bar", "file", "status", "answer"].map((id) =>
  document.getElementById(id),
);
let groma;

load.addEventListener("click", () =>
  say(async () => {
    load.disabled = true;
    bar.hidden = false;
    groma = await Groma.create({
      model: MODEL,
      monitor: (m) => m.addEventListener("downloadprogress", (e) => (bar.value = e.loaded / e.total)),
    });
    bar.hidden = true;
    file.disabled = false;
    status.textContent = `${groma.info.model} is ready on ${groma.info.device}.`;
  }),
);

file.addEventListener("change", () =>
  say(async () => {
    status.textContent = "Looking …";
    const photo = await groma.open(file.files[0]);
    status.textContent = `${photo.regions.length} regions. Answering …`;
    const segments = [];
    const description = photo.describe({ maxTokens: 64 });
    for await (const segment of description) {
      segments[segment.index] = segment;
      // What the model says is text, never HTML.
      answer.textContent = segments.map(({ text, regions }) => text + marks(regions)).join(" ");
    }
    const { tokens, stopped } = await description.done;
    status.textContent = `${tokens.length} tokens, ended by “${stopped}”.`;
    await photo.close();
  }),
);

const marks = (regions) => (regions.length ? ` [${regions.map(({ id }) => id).join(", ")}]` : "");

/** Failures have a sentence for people and a stable reason for programs. */
async function say(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof GromaError)) throw error;
    status.textContent = `${error.message} (${error.reason})`;
    load.disabled = groma !== undefined;
  }
}
