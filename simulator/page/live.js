// Keeps the page up to date: calls come as Server-Sent Events, and after some the rest of the page is asked for again.
"use strict";

const SHOWN = 200;
const PAUSE = 1000;
const calls = document.getElementById("calls");
const live = document.getElementById("live");
let last = Number(calls.dataset.last);
let asked = false;

function row(...cells) {
  const made = document.createElement("tr");
  for (const [text, style] of cells) {
    const cell = made.appendChild(document.createElement("td"));
    cell.textContent = text;
    cell.className = style;
  }
  calls.prepend(made);
  while (calls.rows.length > SHOWN) calls.lastElementChild.remove();
}

function show(line) {
  if (line.number > last + 1) row(["", "num"], ["", ""], [`${line.number - last - 1} calls are not shown`, "soft"]);
  last = line.number;
  row([line.number, "num"], [new Date(line.time * 1000).toISOString().slice(11, 19), ""],
    [`${line.verb} ${line.path}`, "path"], [line.client, ""],
    [`${line.status ?? "none"} ${line.error}`, line.status === 200 ? "good" : "bad"],
    [line.fault, ""], [line.milliseconds.toFixed(1), "num"], [line.body, "path"]);
}

async function refresh() {
  const answer = await fetch(new URL("/", location.origin));
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const later = fresh.getElementById(part.id);
    if (later && !part.contains(document.activeElement)) part.replaceWith(document.adoptNode(later));
  }
}

function ask() {
  if (asked) return;
  asked = true;
  setTimeout(() => refresh().catch(() => {}).finally(() => { asked = false; }), PAUSE);
}

const source = new EventSource(new URL(`/page/log?after=${last}`, location.origin));
source.onopen = () => { live.textContent = "Live: later ones appear by themselves."; ask(); };
source.onerror = () => { live.textContent = source.readyState === EventSource.CLOSED
  ? "Not live: load the page again for later ones." : "Not live: waiting for the simulator."; };
source.onmessage = (event) => { show(JSON.parse(event.data)); ask(); };
