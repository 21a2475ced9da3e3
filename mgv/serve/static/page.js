"use strict";
// Text from the library is only ever set as textContent: a name or a subtitle is never markup.
const byId = (id) => document.getElementById(id);
const player = byId("player"), video = player.querySelector("video");
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
let stopAt = Infinity;

function play(moment) {
  const start = Number(moment.start), end = Number(moment.end);
  const base = `/api/v1/videos/${moment.video}`;
  const whole = moment.playable === "1";
  byId("player-title").textContent = `${moment.name} ${clock(start)}–${clock(end)}`;
  byId("player-note").textContent = whole ? "" : "This file's format is not played by browsers: a clip is cut, which takes a moment.";
  video.replaceChildren();
  const track = document.createElement("track");
  track.kind = "subtitles"; track.label = "words"; track.src = `${base}/subtitles.vtt`;
  if (whole) video.append(track);
  stopAt = whole ? end : Infinity;
  video.src = whole ? `${base}/media#t=${start},${end}` : `${base}/clip.mp4?start=${start}&end=${end}`;
  video.onloadeddata = () => { if (!whole) byId("player-note").textContent = ""; };
  video.onerror = () => {
    if (!video.src.includes("/clip.mp4")) { moment = { ...moment, playable: "0" }; play(moment); return; }
    byId("player-note").textContent = "This stretch cannot be played.";
  };
  player.showModal();
  video.play().catch(() => {});
}
video.addEventListener("timeupdate", () => {
  if (video.currentTime >= stopAt) { video.pause(); stopAt = Infinity; }
});
player.addEventListener("close", () => { video.pause(); video.removeAttribute("src"); video.load(); });

for (const card of document.querySelectorAll(".card")) {
  card.addEventListener("click", (event) => { event.preventDefault(); play(card.dataset); });
  card.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); play(card.dataset); } });
}

const ask = byId("ask");
ask.hidden = false;
ask.addEventListener("click", () => answer(byId("q").value));

async function answer(question) {
  if (!question.trim()) return;
  const text = byId("answer-text"), note = byId("answer-note");
  byId("answer").hidden = false; byId("receipt").hidden = true;
  text.textContent = ""; note.textContent = "…";
  ask.disabled = true;
  try {
    const response = await fetch("/api/v1/ask", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ question, stream: true }),
    });
    if (!response.ok) throw new Error((await response.json()).error || response.statusText);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      buffer += value;
      const events = buffer.split("\n\n");
      buffer = events.pop();
      for (const event of events) show(event, text, note);
    }
  } catch (error) { note.textContent = error.message; }
  ask.disabled = false;
}

function show(event, text, note) {
  const [head, data] = event.split("\n");
  const value = JSON.parse(data.slice(6));
  if (head === "event: text") text.textContent += value.text;
  if (head === "event: error") note.textContent = value.error;
  if (head !== "event: answer") return;
  text.replaceChildren();
  if (value.answer === null) note.textContent = value.reason || "No answer.";
  else {
    const cited = new Map(value.citations.map((citation) => [String(citation.number), citation]));
    for (const part of value.answer.split(/(\[\d+\])/)) {
      const citation = cited.get(part.slice(1, -1));
      text.append(citation && /^\[\d+\]$/.test(part) ? citing(part, citation) : part);
    }
    note.textContent = value.citations.map((c) => `[${c.number}] ${c.video} ${clock(c.start_s)}–${clock(c.end_s)}`).join("   ");
  }
  if (value.receipt) receipt(value.receipt);
}

function citing(label, citation) {
  const button = document.createElement("button");
  button.textContent = label; button.title = `${citation.video} ${clock(citation.start_s)}`;
  button.addEventListener("click", () => play({
    video: citation.video_id, start: citation.start_s, end: citation.end_s, name: citation.video, playable: "1",
  }));
  return button;
}

async function receipt(id) {
  byId("receipt").hidden = false; byId("replayed").textContent = "";
  const content = await (await fetch(`/api/v1/receipts/${id}`)).json();
  byId("receipt-text").textContent = JSON.stringify(content, null, 1);
  byId("replay").onclick = async () => {
    byId("replayed").textContent = "asking again …";
    const response = await fetch(`/api/v1/receipts/${id}/replay`, { method: "POST", body: "" });
    const value = await response.json();
    byId("replayed").textContent = value.error || (value.identical ? "identical" : value.differences.join("; "));
  };
}
