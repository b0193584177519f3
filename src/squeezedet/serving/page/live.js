// Video files and cameras: the newest frame, as soon as the detector is free.

const RATE_FRAMES = 20; // the rate is that of so many frames

/** Open a camera; with an id, that one, else the one that looks away from the visitor. */
export async function openCamera(deviceId) {
  if (!navigator.mediaDevices) {
    throw new Error("a browser gives the camera only to pages from https or localhost");
  }
  const choice = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
  return navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, ...choice } });
}

/** The cameras there are; their names are known once one of them was allowed. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput");
}

/**
 * Play into a video element.
 *
 * @param {HTMLVideoElement} video
 * @param {File | MediaStream} source
 */
export async function play(video, source) {
  stop(video);
  if (source instanceof MediaStream) video.srcObject = source;
  else video.src = URL.createObjectURL(source);
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error("this browser cannot play it"));
  });
  await video.play();
}

/** Let go of what it plays; a camera's light goes out. */
export function stop(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.onerror = null;
  video.srcObject = null;
  video.removeAttribute("src");
  video.load();
}

/**
 * Call `use` with the newest frame, again and again, until the signal; frames that come while it
 * works are passed over, as those of a camera must be.
 *
 * @param {HTMLVideoElement} video that plays
 * @param {(bitmap: ImageBitmap, timeS: number) => Promise<void>} use
 * @param {AbortSignal} signal
 */
export async function follow(video, use, signal) {
  const frames = watch(video, signal);
  while (await frames.next()) {
    const timeS = video.currentTime;
    const bitmap = await createImageBitmap(video).catch(() => null); // at times it has none yet
    if (bitmap) await use(bitmap, timeS);
  }
}

/** Tells of new frames: `next()` holds true once there is one that was not told, false at the end. */
function watch(video, signal) {
  let [fresh, wake] = [false, null];
  const tell = () => {
    fresh = true;
    wake?.();
  };
  if (video.requestVideoFrameCallback) {
    const tick = () => {
      tell();
      if (!signal.aborted) video.requestVideoFrameCallback(tick);
    };
    video.requestVideoFrameCallback(tick);
  } else {
    let last = -1;
    const tick = () => {
      if (video.currentTime !== last) tell();
      last = video.currentTime;
      if (!signal.aborted) requestAnimationFrame(tick);
    };
    tick();
  }
  signal.addEventListener("abort", () => wake?.());
  return {
    async next() {
      if (!fresh && !signal.aborted) await new Promise((resolve) => (wake = resolve));
      [fresh, wake] = [false, null];
      return !signal.aborted;
    },
  };
}

/** Frames per second over the last frames. */
export class Rate {
  #times = [];

  /** Count a frame; the rate, or null after the first. */
  count() {
    this.#times = [...this.#times.slice(1 - RATE_FRAMES), performance.now()];
    const seconds = (this.#times.at(-1) - this.#times[0]) / 1000;
    return seconds > 0 ? (this.#times.length - 1) / seconds : null;
  }
}
