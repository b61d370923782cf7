// The service worker: keeps the built files, so that the app opens without its gateway. It never sees an answer of the
// gateway, and keeps none. Its name of the cache is that of the build; an older one is dropped when this takes over.

/// <reference lib="webworker" />

declare const self: ServiceWorkerGlobalScope;
declare const __FILES__: string[];
declare const __NAME__: string;

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches.open(__NAME__).then((cache) => cache.addAll(__FILES__.map((file) => new Request(file, { cache: "reload" })))),
  );
});

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
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin || !url.pathname.startsWith("/app/")) return;
  const file = request.mode === "navigate" ? "/app/" : url.pathname;
  if (!__FILES__.includes(file)) return;
  event.respondWith(
    caches.match(file, { cacheName: __NAME__ }).then((kept) => kept ?? fetch(request)),
  );
});

export {};
