// The page: pictures, videos and the camera go to a backend, what it finds is shown.
//
// There are two backends with one border, {model, where, detect({name, bitmap, file?}, score)}:
// server.js asks `squeezedet serve`, browser.js runs the model in the page.

import * as live from "./live.js";
import { Listbox } from "./listbox.js";
import { FLOOR, copy, described, filtered, save } from "./records.js";
import { View, element } from "./view.js";

const MOST_FRAMES = 10_000; // records kept of a video or camera, the newest
const MOST_FAILURES = 5; // frames in a row that may get no answer, as a busy server gives none
const PAUSE_MS = 200; // after such a frame
const THUMB_PX = 112; // height

const find = (id) => document.getElementById(id);
const settings = { score: 0.4, hidden: new Set() };
const pictures = []; // {name, file, record, error, thumb}
const video = find("video");
let backend, view, strip, floor;
let chosen = -1; // of the pictures
let working = false; // on the pictures
let frames = null; // records of what plays; null for pictures
let playing = null; // AbortController of what plays

start().catch((error) => {
  say("");
  complain(`The page cannot start: ${error.message}`);
});

async function start() {
  const config = await (await fetch(new URL("config.json", import.meta.url))).json();
  const root = new URL(".", location.href);
  root.username = root.password = ""; // an address with them is none to ask for
  const megabytes = (config.bytes ?? 0) / 1e6;
  say(megabytes ? `Loading the model, ${megabytes.toFixed(0)} MB ...` : "Starting ...");
  const { connect } = await import(config.mode === "browser" ? "./browser.js" : "./server.js");
  backend = await connect(config, root);
  const { name, classes, score, engine } = backend.model;
  find("model").textContent = [name, engine].filter(Boolean).join(", ");
  find("where").textContent = backend.where;
  find("licence").textContent = backend.model.licence ? `Licence of the model: ${backend.model.licence}` : "";
  settings.score = score;
  floor = Math.min(FLOOR, score);
  view = new View(find, classes, settings);
  strip = new Listbox(find("strip"), choose);
  listen();
  setScore(floor, score);
  for (const id of ["choose", "camera", "example", "score"]) find(id).disabled = false;
  if (config.example) {
    find("example").hidden = false;
    find("example").onclick = () => showExample(new URL(config.example, root));
  }
  find("to-cameras").hidden = !config.cameras;
  say("Ready.");
}

function listen() {
  find("choose").onclick = () => find("files").click();
  find("files").onchange = () => {
    take([...find("files").files]);
    find("files").value = ""; // so that the same file can be chosen again
  };
  find("camera").onclick = () => useCamera();
  find("device").onchange = () => useCamera(find("device").value);
  find("score").oninput = () => setScore(floor, Number(find("score").value));
  find("play").onclick = () => (video.paused ? video.play() : video.pause());
  find("stop").onclick = stopPlaying;
  find("seek").oninput = () => (video.currentTime = Number(find("seek").value));
  for (const event of ["play", "pause", "timeupdate", "durationchange"]) {
    video.addEventListener(event, showPlayer);
  }
  find("copy").onclick = () =>
    copy(JSON.stringify(filtered(view.picture.record, settings), null, 2))
      .then(() => say("The JSON is on the clipboard."))
      .catch((error) => complain(error.message));
  find("save-json").onclick = saveJson;
  find("save-picture").onclick = savePicture;
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
  listenToDrops();
}

function listenToDrops() {
  const over = (is) => find("stage").classList.toggle("over", is);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    take([...event.dataTransfer.files]);
  });
}

function setScore(least, score) {
  settings.score = score;
  Object.assign(find("score"), { min: least, value: score });
  find("score-value").textContent = score.toFixed(2);
  view.update();
}

// ------------------------------------------------------------------ pictures

/** Take files that were chosen, dropped or pasted. */
function take(files) {
  if (!backend || !files.length) return;
  complain("");
  const isVideo = (file) => file.type.startsWith("video/");
  const films = files.filter(isVideo);
  if (films.length) {
    playFile(films[0]);
    if (files.length > 1) complain("One video at a time: the others were left out.");
    return;
  }
  stopPlaying();
  const first = pictures.length;
  for (const file of files) {
    const thumb = element("canvas", { width: THUMB_PX, height: THUMB_PX });
    pictures.push({ name: file.name || "pasted picture", file, record: null, error: "", thumb });
  }
  strip.fill(pictures.map(({ name, thumb }) => element("li", { title: name }, [thumb])));
  find("strip").hidden = pictures.length < 2;
  choose(first);
  work();
}

/** Detect in the pictures that have not been looked at, one after the other. */
async function work() {
  if (working) return;
  working = true;
  for (let index; (index = pictures.findIndex((p) => !p.record && !p.error)) >= 0; ) {
    const picture = pictures[index];
    try {
      await look(picture);
    } catch (error) {
      picture.error = `${picture.name}: ${error.message}`;
      picture.thumb.classList.add("wrong");
    }
    if (index === chosen && !playing) await choose(index);
  }
  working = false;
}

async function look(picture) {
  const bitmap = await decode(picture.file);
  drawThumb(picture.thumb, bitmap);
  const start = performance.now();
  picture.record = await backend.detect({ ...picture, bitmap }, floor);
  picture.totalMs = performance.now() - start;
  bitmap.close();
}

/** The pixels as the file has them, upright; without color management, as the detector's. */
async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("this browser cannot read it as a picture");
  }
}

function drawThumb(thumb, bitmap) {
  thumb.width = Math.min(Math.max((THUMB_PX * bitmap.width) / bitmap.height, 32), 4 * THUMB_PX);
  thumb.getContext("2d").drawImage(bitmap, 0, 0, thumb.width, thumb.height);
}

/** Show one of the pictures. */
async function choose(index) {
  if (index < 0) return strip.mark(chosen);
  stopPlaying();
  chosen = index;
  strip.mark(index);
  const picture = pictures[index];
  complain(picture.error);
  let bitmap;
  try {
    bitmap = await decode(picture.file);
  } catch {
    return; // the picture's error says it
  }
  if (chosen !== index || playing) return bitmap.close();
  view.show({ name: picture.name, bitmap, record: picture.record });
  showFigures(picture.record, picture.totalMs);
  const found = picture.record && described(view.boxes(), backend.model.classes);
  say(`${picture.name}: ${found ?? (picture.error ? "no answer" : "looking ...")}`);
}

async function showExample(address) {
  const blob = await (await fetch(address)).blob();
  take([new File([blob], address.pathname.split("/").at(-1), { type: blob.type })]);
}

// ---------------------------------------------------------- videos and camera

async function playFile(file) {
  await run(file.name, file);
}

async function useCamera(deviceId) {
  complain("");
  stopPlaying();
  say("Waiting for the camera ...");
  try {
    const stream = await live.openCamera(deviceId);
    const devices = await live.cameras();
    find("device").replaceChildren(
      ...devices.map((d, i) => element("option", { value: d.deviceId, textContent: d.label || `camera ${i + 1}` })),
    );
    find("device").value = stream.getVideoTracks()[0].getSettings().deviceId;
    find("devices").hidden = devices.length < 2;
    await run("camera", stream);
  } catch (error) {
    say("");
    complain(`No camera: ${error.message}`);
  }
}

/** Play a file or a camera and detect in its newest frames until it is stopped. */
async function run(name, source) {
  stopPlaying();
  const abort = new AbortController();
  [playing, frames] = [abort, []];
  chosen = -1;
  strip.mark(-1);
  const rate = new live.Rate();
  try {
    await live.play(video, source);
    say(`${name}: ${source instanceof MediaStream ? "live" : "playing"}`);
    showPlayer();
    let failures = 0;
    const use = async (bitmap, timeS) => {
      try {
        await useFrame({ name, bitmap, timeS, rate, abort });
        failures = 0;
      } catch (error) {
        if (++failures === MOST_FAILURES) throw error;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    };
    await live.follow(video, use, abort.signal);
  } catch (error) {
    if (!abort.signal.aborted) {
      stopPlaying();
      say("");
      complain(`${name}: ${error.message}`);
    }
  }
}

async function useFrame({ name, bitmap, timeS, rate, abort }) {
  const start = performance.now();
  const found = await backend.detect({ name, bitmap }, floor);
  if (abort.signal.aborted) return bitmap.close();
  const record = { ...found, time_s: Math.round(timeS * 1000) / 1000 };
  frames = [...frames.slice(1 - MOST_FRAMES), record];
  view.show({ name, bitmap, record });
  showFigures(record, performance.now() - start, rate.count());
}

function stopPlaying() {
  if (!playing) return;
  playing.abort();
  playing = null;
  live.stop(video);
  find("player").hidden = true;
  find("devices").hidden = true;
  say("Stopped.");
}

function showPlayer() {
  if (!playing) return;
  const isFile = Number.isFinite(video.duration);
  find("player").hidden = false;
  find("play").textContent = video.paused ? "Play" : "Pause";
  find("seek").hidden = !isFile;
  if (isFile) Object.assign(find("seek"), { max: video.duration, value: video.currentTime });
}

// ------------------------------------------------------------------- results

function showFigures(record, totalMs, rate) {
  find("figures").hidden = !record;
  for (const id of ["copy", "save-json", "save-picture"]) find(id).disabled = !record;
  if (!record) return;
  const network = record.timing_ms?.network;
  find("network").textContent = network === undefined ? "-" : `${network.toFixed(0)} ms`;
  find("total").textContent = `${totalMs.toFixed(0)} ms`;
  find("rate-field").hidden = !playing;
  find("rate").textContent = rate ? `${rate.toFixed(1)} a second` : "-";
}

/** One record a line for what plays, one array for pictures. */
function saveJson() {
  if (chosen < 0) {
    const lines = frames.map((record) => `${JSON.stringify(filtered(record, settings))}\n`);
    save(`${view.picture.name}.jsonl`, new Blob(lines, { type: "application/jsonl" }));
  } else {
    const records = pictures.filter((p) => p.record).map((p) => filtered(p.record, settings));
    save("detections.json", new Blob([JSON.stringify(records, null, 2), "\n"], { type: "application/json" }));
  }
}

function savePicture() {
  const name = view.picture.name.replace(/\.[^.]*$/, "");
  view.drawn().toBlob((blob) => save(`${name}-boxes.png`, blob));
}

function say(text) {
  find("status").textContent = text;
}

function complain(text) {
  find("error").textContent = text;
}
