/**
 * The page without a network. A version of the app is brought whole or not at all, each file checked against the hash that
 * the build wrote here, so that the files of two versions never meet. Weights are none of its business: they are in the
 * origin-private file system.
 */

// A module for TypeScript's sake: a script of its own would share its names with the library's.
export {};

declare const self: ServiceWorkerGlobalScope;

/** The app's files and their sha256, and what names this set: the build puts them in front of this script. */
declare const FILES: Readonly<Record<string, string>>;
declare const VERSION: string;

const scope = new URL(self.registration.scope);
// Caches are the whole origin's, so their names say which page they belong to.
const OURS = `groma ${scope.pathname} `;
const APP = `${OURS}${VERSION}`;
const SAMPLES = `${OURS}samples`;

self.addEventListener("install", (event) => event.waitUntil(bring()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("message", (event) => {
  // Only when the page asks: until then every open page keeps the version that it began with.
  if (event.data === "take over") event.waitUntil(self.skipWaiting());
  if (event.data === "tidy") event.waitUntil(tidy());
});
self.addEventListener("fetch", (event) => {
  const answer = answerTo(event.request);
  if (answer) event.respondWith(answer);
});

async function bring(): Promise<void> {
  const cache = await caches.open(APP);
  try {
    await Promise.all(
      Object.entries(FILES).map(async ([path, sha256]) => {
        const url = new URL(path, scope).href;
        const response = (await usable(await caches.match(url), sha256)) ?? (await fetched(url, sha256));
        await cache.put(url, response);
      }),
    );
  } catch (error) {
    await caches.delete(APP);
    throw error;
  }
  // Nice to have: without them the page is whole.
  await bringSamples().catch(() => undefined);
}

async function fetched(url: string, sha256: string): Promise<Response> {
  const response = await fetch(url, { cache: "no-cache" });
  const whole = response.ok ? await usable(response, sha256) : undefined;
  if (!whole) throw new Error(`${url} is not the file of this version`);
  return whole;
}

/** A copy of a response if it has the bytes that are wanted; freed of how it came (redirects, compression). */
async function usable(response: Response | undefined, sha256: string): Promise<Response | undefined> {
  if (!response) return undefined;
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if (Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) return undefined;
  const headers = new Headers(response.headers);
  for (const name of ["content-encoding", "content-length"]) headers.delete(name);
  return new Response(bytes, { headers });
}

async function takeOver(): Promise<void> {
  await tidy();
  await self.clients.claim();
}

/** Removes other versions once no page can need them: one that still runs an older one may yet start its worker. */
async function tidy(): Promise<void> {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const before = (await caches.keys()).filter(
    (name) => name.startsWith(OURS) && name !== SAMPLES && name !== APP,
  );
  // The one page that is open has just begun with this version, or is about to be loaded again.
  if (pages.length <= 1) await Promise.all(before.map((name) => caches.delete(name)));
}

/** The photos to begin with, where the site has any: the first visit's own requests come before this worker. */
async function bringSamples(): Promise<void> {
  const home = new URL("samples/", scope);
  const list = await fetch(new URL("samples.json", home));
  if (!list.ok || !list.headers.get("content-type")?.includes("json")) return;
  const files = (await list.clone().json()) as { readonly file: string }[];
  const cache = await caches.open(SAMPLES);
  await cache.put(new URL("samples.json", home).href, list);
  await cache.addAll(files.map(({ file }) => new URL(file, home).href));
}

/** What is ours to answer; the rest goes its way. */
function answerTo(request: Request): Promise<Response> | undefined {
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) {
    return undefined;
  }
  const path = url.pathname.slice(scope.pathname.length);
  if (request.mode === "navigate" && path === "") return fromCache("index.html", request);
  if (path in FILES) return fromCache(path, request);
  if (path.startsWith("assets/")) return ofAnyVersion(request);
  if (path.startsWith("samples/")) return freshOrKept(request);
  return undefined;
}

async function fromCache(path: string, request: Request): Promise<Response> {
  const cache = await caches.open(APP);
  return (await cache.match(new URL(path, scope).href)) ?? fetch(request);
}

/** A file whose name has its hash is the same file in every version. */
async function ofAnyVersion(request: Request): Promise<Response> {
  return (await caches.match(request.url)) ?? fetch(request);
}

async function freshOrKept(request: Request): Promise<Response> {
  const cache = await caches.open(SAMPLES);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request.url, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request.url);
    if (kept) return kept;
    throw error;
  }
}
