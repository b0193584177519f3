// The backend that sends pictures to `squeezedet serve`.

import { askToken } from "./token.js";

export const TOKEN = "squeezedet-token"; // its name in the tab's storage
const JPEG_QUALITY = 0.92;
const RETRIES = 5;

/**
 * @param {object} config of the page
 * @param {URL} root the page's address
 * @returns {Promise<object>} what browser.js gives as well: {model, where, detect}
 */
export async function connect(config, root) {
  const model = await firstAnswer(new URL("model", root));
  const frames = new Frames(root);
  return {
    model,
    where: where(root),
    /** The record of {name, bitmap, file?}; boxes of at least this score. */
    async detect({ name, bitmap, file }, score) {
      const record = await (file ? post(root, file, score) : frames.detect(bitmap, score));
      return { ...record, image: name };
    },
  };
}

/** What is said of where pictures go. */
function where(root) {
  const own = /^(localhost|127\.[\d.]+|\[::1\])$/.test(root.hostname);
  const place = own ? `${root.origin}, an address of this computer` : root.origin;
  return `Detection runs on the server at ${place}: pictures are sent there and nowhere else.`;
}

/** What the server says of its model; the first thing asked for, and so the one that needs a token. */
export async function firstAnswer(address) {
  for (;;) {
    const response = await ask(address);
    if (response.ok) return response.json();
    if (response.status !== 401) throw new Error(await reason(response));
    sessionStorage.setItem(TOKEN, await askToken(sessionStorage.getItem(TOKEN) !== null));
  }
}

async function post(root, body, score) {
  const response = await ask(new URL(`detect?score=${score}`, root), { method: "POST", body });
  if (response.ok) return response.json();
  throw new Error(await reason(response));
}

/** An answer of the server, which is asked again when it is busy. */
export async function ask(address, request = {}) {
  for (let tries = 0; ; tries++) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    const response = await fetch(address, { ...request, headers }).catch(() => {
      throw new Error("the server does not answer");
    });
    if (response.status !== 503 || tries === RETRIES) return response;
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, Math.min(seconds, 10) * 1000));
  }
}

/** What the server says is wrong. */
export async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    // not the server's own words, but those of something before it
    return `the server answers ${response.status} ${response.statusText}`;
  }
}

/** Frames of a video or camera: through a WebSocket, or where there is none as single pictures. */
class Frames {
  #root;
  #stream = null;
  #streams = true; // whether the server has a stream for this page

  constructor(root) {
    this.#root = root;
  }

  async detect(bitmap, score) {
    const blob = await jpeg(bitmap);
    if (this.#streams && !this.#stream?.open) {
      this.#stream = await openStream(this.#root, score).catch(() => null);
      this.#streams = this.#stream !== null;
    }
    return this.#streams ? this.#stream.detect(blob) : post(this.#root, blob, score);
  }
}

/** A WebSocket that answers each JPEG with its record, one at a time. */
async function openStream(root, score) {
  const address = new URL("stream", root);
  address.protocol = root.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  let waiting = null;
  const settle = (outcome, value) => {
    waiting?.[outcome](value);
    waiting = null;
  };
  socket.onmessage = ({ data }) => {
    const answer = JSON.parse(data);
    if (answer.error) settle("reject", new Error(answer.error));
    else settle("resolve", answer);
  };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onclose = (event) => {
      const error = new Error(event.reason || "the server closed the connection");
      settle("reject", error);
      reject(error);
    };
  });
  const token = sessionStorage.getItem(TOKEN) ?? undefined; // a socket can be given no header
  socket.send(JSON.stringify({ score, token }));
  return {
    get open() {
      return socket.readyState === WebSocket.OPEN;
    },
    detect: (blob) =>
      new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        socket.send(blob);
      }),
  };
}

function jpeg(bitmap) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
}
