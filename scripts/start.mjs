// `npm start`: sets everything up, serves the page, prints the address. A second run takes seconds.

import { buildSite } from "./build.mjs";
import { say } from "./lib.mjs";
import { serve } from "./serve.mjs";

await buildSite();
const port = Number(process.env.PORT ?? 8080);
// A taken port is no reason not to start.
const { url } = await serve({ port }).catch(() => serve());
say("");
say(`Groma is at ${url}  (Ctrl+C ends it)`);
