// The page's own files, kept as they are fetched: from the server while it answers, else as they were last.
// The network is not among them: the wasmgraph package keeps it, by what it holds.

const KEPT = "wasmgraph-page";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin || url.pathname.endsWith(".wasm")) return;
  event.respondWith(fresh(request));
});

async function fresh(request) {
  const kept = await caches.open(KEPT);
  try {
    const response = await fetch(request);
    if (response.ok) await kept.put(request, response.clone());
    return response;
  } catch (error) {
    const last = await kept.match(request);
    if (last === undefined) throw error;
    return last;
  }
}
