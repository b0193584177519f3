// The page of the server's own cameras: a card for each, fed by one WebSocket.

import { TOKEN, ask, firstAnswer, reason } from "../server.js";
import { Card } from "./card.js";

const MOST_PER_S = 12; // pictures of all cameras together
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

const find = (id) => document.getElementById(id);
const root = new URL(".", location.href);
root.username = root.password = "";

start().catch((error) => (find("error").textContent = `The page cannot start: ${error.message}`));

async function start() {
  const model = await firstAnswer(new URL("model", root));
  find("model").textContent = `${model.name}, ${model.engine}`;
  const { names, editable } = await call("cameras");
  const cards = new Map(names.map((name) => [name, new Card(name, model.classes, editable, call)]));
  find("cards").append(...[...cards.values()].map((card) => card.root));
  find("cards").classList.toggle("several", names.length > 1);
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    try {
      await follow(cards, () => (pause = FIRST_PAUSE_MS));
    } catch (error) {
      for (const card of cards.values()) card.say("away", error.message);
    }
    await sleep(pause);
    const now = await call("cameras").catch(() => null);
    if (now && now.names.join() !== names.join()) location.reload(); // it was started with others
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

/** A JSON answer of the server; `body` is sent by PUT. */
async function call(path, body) {
  const request = body ? { method: "PUT", body: JSON.stringify(body) } : {};
  const response = await ask(new URL(path, root), request);
  if (response.ok) return response.json();
  throw new Error(await reason(response));
}

/** Show the newest pictures until the connection ends; one is asked for when the last one is shown. */
async function follow(cards, onPicture) {
  const address = new URL("stream", root);
  address.protocol = root.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const seen = new Map([...cards.keys()].map((name) => [name, -1]));
  try {
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = () => reject(new Error("the server does not answer"));
    });
    for (const card of cards.values()) card.begin();
    socket.send(JSON.stringify({ token: sessionStorage.getItem(TOKEN) ?? undefined }));
    for (;;) {
      await visible();
      const start = performance.now();
      const [header, jpeg] = parsed(await next(socket, { seen: Object.fromEntries(seen) }));
      if (header) {
        seen.delete(header.camera); // behind the others, whose turn comes first
        seen.set(header.camera, header.number);
        await cards.get(header.camera).show(header, jpeg);
        onPicture();
      }
      await sleep(Math.max(0, start + 1000 / MOST_PER_S - performance.now()));
    }
  } finally {
    socket.close();
  }
}

function next(socket, message) {
  return new Promise((resolve, reject) => {
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") reject(new Error(JSON.parse(data).error));
      else resolve(data);
    };
    socket.onclose = ({ reason: why }) => reject(new Error(why || "the server does not answer"));
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    else reject(new Error("the server does not answer"));
  });
}

/** [header, JPEG] of a message; nothing of an empty one. */
function parsed(buffer) {
  if (!buffer.byteLength) return [];
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const jpeg = new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" });
  return [header, jpeg];
}

/** Wait while nobody can see the page. */
async function visible() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
