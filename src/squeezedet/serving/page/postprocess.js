// From the boxes of every anchor to the few that are reported: the same rules as
// squeezedet/runtime/postprocess.py.

/**
 * The boxes to report, in pixels of the image and inside it, by descending score.
 *
 * @param {{boxes: Float32Array, scores: Float32Array, classes: BigInt64Array}} raw of every anchor,
 *   boxes (A, 4) as x1, y1, x2, y2 in pixels of the network's input
 * @param {{candidates: number, top_n: number, nms_iou: number, score: number}} selection
 * @param {number[]} content [width, height] of the image within the network's input
 * @param {number[]} original [width, height] of the image
 * @returns {{classId: number, score: number, xyxy: number[]}[]}
 */
export function report(raw, selection, content, original) {
  const scale = [original[0] / content[0], original[1] / content[1]];
  return select(raw, selection)
    .map(({ classId, score, xyxy }) => {
      const inside = xyxy.map((v, i) => clamp(v * scale[i % 2], original[i % 2]));
      return { classId, score, xyxy: inside };
    })
    .filter(({ xyxy }) => area(xyxy) > 0); // a box may lie on the very edge
}

/** Threshold, candidates, NMS per class, top-N. */
function select(raw, selection) {
  const candidates = [];
  raw.scores.forEach((score, index) => {
    if (score >= selection.score) candidates.push({ index, score });
  });
  candidates.sort((a, b) => b.score - a.score || a.index - b.index);
  const kept = [];
  for (const { index, score } of candidates.slice(0, selection.candidates)) {
    const classId = Number(raw.classes[index]);
    const xyxy = Array.from(raw.boxes.subarray(index * 4, index * 4 + 4));
    const hidden = kept.some((k) => k.classId === classId && iou(k.xyxy, xyxy) > selection.nms_iou);
    if (!hidden) kept.push({ classId, score, xyxy });
  }
  return kept.slice(0, selection.top_n);
}

function clamp(value, most) {
  return Math.min(Math.max(value, 0), most);
}

function area([x1, y1, x2, y2]) {
  return Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
}

function iou(a, b) {
  const shared = area([
    Math.max(a[0], b[0]),
    Math.max(a[1], b[1]),
    Math.min(a[2], b[2]),
    Math.min(a[3], b[3]),
  ]);
  const union = area(a) + area(b) - shared;
  return union > 0 ? shared / union : 0;
}
