// From the boxes of every anchor to the few that are reported: the same rules as
// squeezedet/runtime/postprocess.py.

const OTHERS_SCORE = 0.05; // boxes below move no other one, nor its score
const DOUBLE_IOU = 0.6; // boxes of one class that votes move onto one another by more than this are one
const PART_SHARE = 0.85; // a box with this share of its area inside another may be a part of it

/**
 * The boxes to report, in pixels of the image and inside it, by descending score.
 *
 * @param {{boxes: Float32Array, scores: Float32Array, classes: BigInt64Array}} raw of every anchor,
 *   boxes (A, 4) as x1, y1, x2, y2 in pixels of the network's input
 * @param {{candidates: number, top_n: number, nms_iou: number|number[],
 *   vote_iou: number|number[], part_of: number[], score: number}} selection; an array holds one
 *   number for each class
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

/** Threshold, candidates, NMS per class, top-N, voting, NMS again where boxes moved, parts. */
function select(raw, selection) {
  const least = (box) => perClass(selection.nms_iou, box.classId);
  let kept = suppress(best(raw, selection.score, selection.candidates), least).slice(0, selection.top_n);
  const share = (box) => perClass(selection.vote_iou, box.classId);
  const others = best(raw, OTHERS_SCORE, selection.candidates);
  if (kept.some((box) => share(box) < 1)) {
    const moved = kept.map((box) => vote(box, others, share(box)));
    kept = suppress(moved, (box) => Math.max(DOUBLE_IOU, least(box)));
  }
  return selection.part_of?.length ? withoutParts(kept, others, selection) : kept;
}

/** Boxes without those that are more likely part of another object, as a rider is of a cyclist. */
function withoutParts(boxes, wholes, { part_of: partOf, score: least }) {
  const inside = (box, whole) =>
    whole.classId === partOf[box.classId] && shared(box.xyxy, whole.xyxy) >= PART_SHARE * area(box.xyxy);
  return boxes
    .map((box) => {
      const highest = Math.max(0, ...wholes.filter((w) => inside(box, w)).map((w) => w.score));
      return { ...box, score: box.score * (1 - highest) };
    })
    .filter(({ score }) => score >= least)
    .sort((a, b) => b.score - a.score);
}

/** NMS per class of boxes by descending score; `least` gives the IoU of a box's class. */
function suppress(boxes, least) {
  const kept = [];
  for (const box of boxes) {
    const hidden = kept.some((k) => k.classId === box.classId && iou(k.xyxy, box.xyxy) > least(box));
    if (!hidden) kept.push(box);
  }
  return kept;
}

/** The `count` best boxes of `least` or more, by descending score. */
function best(raw, least, count) {
  const found = [];
  raw.scores.forEach((score, index) => {
    if (score >= least) found.push({ index, score });
  });
  found.sort((a, b) => b.score - a.score || a.index - b.index);
  return found.slice(0, count).map(({ index, score }) => ({
    classId: Number(raw.classes[index]),
    score,
    xyxy: Array.from(raw.boxes.subarray(index * 4, index * 4 + 4)),
  }));
}

/** A box moved to the weighted mean of the voters of its class that overlap it by `least`. */
function vote(box, voters, least) {
  if (least >= 1) return box;
  let total = 0;
  const sum = [0, 0, 0, 0];
  for (const { classId, score, xyxy } of voters) {
    if (classId !== box.classId) continue;
    const overlap = iou(box.xyxy, xyxy);
    if (overlap < least) continue;
    total += overlap * score;
    xyxy.forEach((v, i) => (sum[i] += overlap * score * v));
  }
  return total > 0 ? { ...box, xyxy: sum.map((v) => v / total) } : box;
}

function perClass(value, classId) {
  return Array.isArray(value) ? value[classId] : (value ?? 1);
}

function clamp(value, most) {
  return Math.min(Math.max(value, 0), most);
}

function area([x1, y1, x2, y2]) {
  return Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
}

function shared(a, b) {
  return area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
}

function iou(a, b) {
  const both = shared(a, b);
  const union = area(a) + area(b) - both;
  return union > 0 ? both / union : 0;
}
