// The service worker: keeps the built files, so that the app opens without its gateway. It never sees an answer of the
// gateway, and keeps none. Its name of the cache is that of the build; an older one is dropped when this takes over.

/// <reference lib="webworker" />

declare const self: ServiceWorkerGlobalScope;
/** SHA-256 (hex) of each file, by its path. */
declare const __FILES__: Record<string, string>;
declare const __NAME__: string;

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches.open(__NAME__).then((cache) => Promise.all(Object.entries(__FILES__).map(([file, digest]) => keep(cache, file, digest)))),
  );
});

/** Keep a file that is the one that was built; another one ends the installation, and the older worker stays. */
async function keep(cache: Cache, file: string, digest: string): Promise<void> {
  const response = await fetch(file, { cache: "reload" });
  const content = await response.clone().arrayBuffer();
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const shown = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (!response.ok || shown !== digest) throw new Error(`${file} is not the file that was built`);
  await cache.put(file, response);
}

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys().then(async (names) => {
      await Promise.all(names.filter((name) => name.startsWith("engram-") && name !== __NAME__).map((name) => caches.delete(name)));
      await self.clients.claim();
    }),
  );
});

self.addEventListener("message", (event) => {
  if (event.data === "take over") void self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.cache === "no-store") return; // what asks so compares what is served with what is kept
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin || !url.pathname.startsWith("/app/")) return;
  const file = request.mode === "navigate" ? "/app/" : url.pathname;
  if (!(file in __FILES__)) return;
  event.respondWith(
    caches.match(file, { cacheName: __NAME__ }).then((kept) => kept ?? fetch(request)),
  );
});

export {};
