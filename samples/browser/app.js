// Joins the paper, the network and the bars.

import { load, tensor } from "./wasmgraph/index.js";
import { prepare, SIZE } from "./digit.js";
import { Paper } from "./paper.js";

const NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const GRAPH = "digits.wasm";

const find = (id) => document.getElementById(id);
const verdict = find("verdict");
const pad = document.querySelector(".pad");

const bars = NAMES.map((name, digit) => {
  const item = document.createElement("li");
  item.innerHTML = `<span aria-hidden="true">${digit}</span><span class="track"></span><span class="share">–</span>`;
  item.setAttribute("aria-label", name);
  find("bars").append(item);
  return item;
});

let graph = null;
let isChanged = false;
let isReading = false;

/** Read the paper again, once per frame at most and never twice at the same time. */
async function readSoon() {
  isChanged = true;
  if (isReading || graph === null) return;
  isReading = true;
  while (isChanged) {
    await new Promise(requestAnimationFrame);
    isChanged = false;
    try {
      await read();
    } catch (error) {
      verdict.textContent = `It failed: ${error.message}`;
    }
  }
  isReading = false;
}

async function read() {
  const image = prepare(paper.picture);
  if (image === null) {
    show(null);
    return;
  }
  const began = performance.now();
  const { probabilities } = await graph.run({ image: tensor(image, [1, 1, SIZE, SIZE]) });
  show(probabilities.data, performance.now() - began);
}

function show(shares, milliseconds = 0) {
  const best = shares === null ? -1 : shares.indexOf(Math.max(...shares));
  bars.forEach((item, digit) => {
    const share = shares?.[digit] ?? 0;
    item.style.setProperty("--share", share);
    item.classList.toggle("best", digit === best);
    item.querySelector(".share").textContent = shares === null ? "–" : percent(share);
    item.setAttribute("aria-label", shares === null ? NAMES[digit] : `${NAMES[digit]}: ${percent(share)}`);
  });
  find("time").textContent = shares === null ? "" : `${milliseconds.toFixed(2)} ms for this run`;
  const text = shares === null ? "Draw a digit" : `${NAMES[best]}, ${percent(shares[best])}`;
  // A status is spoken whenever it is set, even to what it was.
  if (verdict.textContent !== text) verdict.textContent = text;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

async function open(file) {
  if (!file) return;
  try {
    paper.show(await createImageBitmap(file));
  } catch {
    verdict.textContent = `${file.name || "That"} is not a picture this browser can read`;
  }
}

const paper = new Paper(find("paper"), readSoon);
find("clear").addEventListener("click", () => paper.clear());
find("file").addEventListener("change", ({ target }) => {
  open(target.files[0]);
  target.value = ""; // so that the same one can be chosen again
});
pad.addEventListener("dragover", (event) => {
  event.preventDefault();
  pad.classList.add("over");
});
pad.addEventListener("dragleave", () => pad.classList.remove("over"));
pad.addEventListener("drop", (event) => {
  event.preventDefault();
  pad.classList.remove("over");
  open(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));

try {
  graph = await load(new URL(GRAPH, import.meta.url));
  show(null);
  readSoon(); // there may be ink already
} catch (error) {
  verdict.textContent = `The network cannot be loaded: ${error.message}`;
}

// Keep the page's own files, so that it opens without its server; the network is in the package's cache.
// What was fetched before the worker was there is fetched once more for it.
if ("serviceWorker" in navigator) {
  await navigator.serviceWorker.register("worker.js");
  await navigator.serviceWorker.ready;
  const fetched = performance.getEntriesByType("resource").map(({ name }) => name);
  const own = fetched.filter((name) => new URL(name).origin === location.origin && !name.endsWith(".wasm"));
  const kept = await caches.open("wasmgraph-page");
  await kept.addAll(new Set([location.pathname, ...own]));
  document.documentElement.dataset.kept = "";
}
