// The model in a thread of its own, so that the page stays alive while it runs.

import { report } from "./postprocess.js";
import { contentSize, fit, inputSize } from "./preprocess.js";

const MAX_THREADS = 4;
let model = null;

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, answer: await (data.open ? open(data.open) : detect(data)) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};

/** Load the runtime, the card and the graph, whose addresses are given. */
async function open({ runtime, glue, wasm, graph, card }) {
  const ort = await import(runtime);
  ort.env.wasm.wasmPaths = { mjs: glue, wasm };
  // Threads share memory, and browsers allow that only to pages that are isolated from others.
  const cores = navigator.hardwareConcurrency ?? 1;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MAX_THREADS, cores) : 1;
  const [known, bytes] = await Promise.all([fetched(card, "json"), fetched(graph, "arrayBuffer")]);
  const session = await ort.InferenceSession.create(new Uint8Array(bytes), {
    executionProviders: ["wasm"],
    logSeverityLevel: 3,
  });
  model = { ort, session, card: known };
  return { card: known, threads: ort.env.wasm.numThreads, version: ort.env.versions?.web ?? "" };
}

async function fetched(address, kind) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} cannot be loaded (${response.status})`);
  return response[kind]();
}

/** The record of one picture, as `squeezedet detect -o` writes it. */
async function detect({ bitmap, name, score }) {
  const { ort, session, card } = model;
  const start = performance.now();
  const original = [bitmap.width, bitmap.height];
  const size = inputSize(card.input, ...original);
  const pixels = fit(pixelsOf(bitmap), original, card.input);
  const input = new ort.Tensor("uint8", pixels, [1, size[1], size[0], 3]);
  const prepared = performance.now();
  const { boxes, scores, class_ids: classes } = await session.run({ images: input });
  const ran = performance.now();
  const raw = { boxes: boxes.data, scores: scores.data, classes: classes.data };
  const content = contentSize(card.input, ...original);
  const found = report(raw, { ...card.selection, score }, content, original);
  return {
    image: name,
    width: original[0],
    height: original[1],
    detections: found.map((box) => ({
      class: card.classes[box.classId],
      score: round(box.score, 4),
      xyxy: box.xyxy.map((v) => round(v, 2)),
    })),
    timing_ms: {
      preprocess: round(prepared - start, 3),
      network: round(ran - prepared, 3),
      postprocess: round(performance.now() - ran, 3),
    },
  };
}

/** RGBA of a picture, transparency laid on white. */
function pixelsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  bitmap.close();
  return data;
}

function round(value, digits) {
  return Number(value.toFixed(digits));
}
