// The backend that runs the model in this browser: no picture leaves it.

/**
 * @param {object} config of the folder: addresses relative to the page's, and their sizes
 * @param {URL} root the page's address
 * @returns {Promise<object>} what server.js gives as well: {model, where, detect}
 */
export async function connect(config, root) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const call = calls(worker);
  const open = Object.fromEntries(
    Object.entries(config.files).map(([name, path]) => [name, new URL(path, root).href]),
  );
  const { card, threads, version } = await call({ open });
  const count = threads === 1 ? "one thread" : `${threads} threads`;
  return {
    model: {
      name: card.name,
      classes: card.classes,
      score: card.selection.score,
      licence: card.licence,
      engine: `onnxruntime-web ${version}, ${count}`,
    },
    where: "Detection runs in this browser: no picture leaves it.",
    /** The record of {name, bitmap}; boxes of at least this score. */
    async detect({ name, bitmap }, score) {
      // A copy goes to the worker, as the page shows its own.
      const copy = await createImageBitmap(bitmap);
      return call({ name, bitmap: copy, score }, [copy]);
    },
  };
}

/** Calls into a worker: a message goes, the promise holds its answer. */
function calls(worker) {
  const waiting = new Map();
  let next = 0;
  const settle = (id, error, answer) => {
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error) reject?.(new Error(error));
    else resolve?.(answer);
  };
  worker.onmessage = ({ data }) => settle(data.id, data.error, data.answer);
  worker.onerror = (event) => {
    const reason = event.message || "its script cannot be loaded";
    for (const id of [...waiting.keys()]) settle(id, `the worker failed: ${reason}`);
  };
  return (message, transfer = []) =>
    new Promise((resolve, reject) => {
      waiting.set(++next, { resolve, reject });
      worker.postMessage({ ...message, id: next }, transfer);
    });
}
