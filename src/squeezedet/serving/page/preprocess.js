// From a picture to what the network sees: the same rules as squeezedet/runtime/preprocess.py,
// and of the resize the same numbers, bit by bit.

const STRIDE = 16;
const MAX_STRETCH = 1.03;
const MAX_SIDES = 8;
const BITS = 22; // Pillow's fixed point for 8-bit channels: 32 bits less 8 of a pixel and 2 to spare

/** [width, height] of the network's input for an image of so many pixels. */
export function inputSize(rule, width, height) {
  return rule.fixed ? [rule.width, rule.height] : ownShape(width, height, rule.width, rule.height);
}

/** [width, height] that an image has within its input: its own where a narrow border will do. */
export function contentSize(rule, width, height) {
  const size = inputSize(rule, width, height);
  const border = [size[0] - width, size[1] - height];
  const near = border.every((side) => side >= 0 && side < STRIDE);
  return near && !rule.fixed ? [width, height] : size;
}

/**
 * What the network sees of an image; a border repeats the last column and the last row.
 *
 * @param {Uint8ClampedArray} rgba pixels of the image, 4 bytes each
 * @param {number[]} original [width, height] of the image
 * @param {{width: number, height: number, fixed: boolean}} rule of the model
 * @returns {Uint8Array} RGB, 3 bytes each, of ``inputSize``
 */
export function fit(rgba, original, rule) {
  const [width, height] = inputSize(rule, ...original);
  const [inWidth, inHeight] = contentSize(rule, ...original);
  const inside = resize(rgba, original, [inWidth, inHeight]);
  if (inWidth === width && inHeight === height) return inside;
  const out = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = Math.min(y, inHeight - 1) * inWidth * 3;
    const to = y * width * 3;
    out.set(inside.subarray(from, from + inWidth * 3), to);
    const last = inside.subarray(from + (inWidth - 1) * 3, from + inWidth * 3);
    for (let x = inWidth; x < width; x++) out.set(last, to + x * 3);
  }
  return out;
}

/**
 * The input size that keeps an image's shape, at most budgetW * budgetH pixels; both sides are
 * multiples of 16. See own_shape in preprocess.py.
 */
export function ownShape(width, height, budgetW, budgetH) {
  const pixels = budgetW * budgetH;
  const down = (value) => Math.floor(value / STRIDE) * STRIDE;
  const longest = down(Math.min(Math.floor(pixels / STRIDE), MAX_SIDES * Math.max(budgetW, budgetH)));
  let best = null;
  for (let h = STRIDE; h <= longest; h += STRIDE) {
    const wanted = roundHalfEven((h * width) / height / STRIDE) * STRIDE;
    const w = Math.max(STRIDE, Math.min(wanted, longest, down(Math.floor(pixels / h))));
    const stretch = Math.abs(Math.log(w / h / (width / height)));
    const fits = stretch <= Math.log(MAX_STRETCH);
    const value = fits ? w * h : -stretch;
    if (!best || (fits && !best.fits) || (fits === best.fits && value > best.value)) {
      best = { size: [w, h], fits, value };
    }
  }
  return best.size;
}

/** As Python's round(): 0.5 goes to the even neighbour. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Bilinear with antialiasing, across and then down, with an 8-bit image between them.
 * A canvas's own scaling is another filter in every browser.
 *
 * @param {Uint8ClampedArray} rgba pixels of the image, 4 bytes each
 * @param {number[]} from [width, height] of the image
 * @param {number[]} to [width, height] wanted
 * @returns {Uint8Array} RGB, 3 bytes each
 */
export function resize(rgba, from, to) {
  const [width, height] = from;
  const [outWidth, outHeight] = to;
  const rows = new Uint8Array(outWidth * height * 3);
  const across = weights(width, outWidth);
  for (let y = 0; y < height; y++) {
    const start = y * width * 4;
    for (let x = 0, at = y * outWidth * 3; x < outWidth; x++, at += 3) {
      const first = across.first[x];
      const last = first + across.count[x];
      let [red, green, blue] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
      for (let i = first, k = x * across.most, p = start + first * 4; i < last; i++, k++, p += 4) {
        const weight = across.weight[k];
        red += rgba[p] * weight;
        green += rgba[p + 1] * weight;
        blue += rgba[p + 2] * weight;
      }
      rows[at] = red >> BITS;
      rows[at + 1] = green >> BITS;
      rows[at + 2] = blue >> BITS;
    }
  }
  return resizeRows(rows, outWidth * 3, height, outHeight);
}

/** The second pass: rows of so many bytes to another number of rows. */
function resizeRows(rows, length, height, outHeight) {
  const down = weights(height, outHeight);
  const out = new Uint8Array(length * outHeight);
  const sums = new Int32Array(length);
  for (let y = 0; y < outHeight; y++) {
    sums.fill(1 << (BITS - 1));
    for (let i = 0; i < down.count[y]; i++) {
      const weight = down.weight[y * down.most + i];
      const start = (down.first[y] + i) * length;
      for (let x = 0; x < length; x++) sums[x] += rows[start + x] * weight;
    }
    for (let x = 0, at = y * length; x < length; x++, at++) out[at] = sums[x] >> BITS;
  }
  return out;
}

/** For each output pixel its first input pixel, how many, and their weights in fixed point. */
function weights(size, outSize) {
  const scale = size / outSize;
  const support = Math.max(scale, 1); // of a triangle that is as wide as the output pixel
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const weight = new Int32Array(outSize * most);
  const row = new Float64Array(most);
  for (let x = 0; x < outSize; x++) {
    const center = (x + 0.5) * scale;
    first[x] = Math.max(0, Math.trunc(center - support + 0.5));
    count[x] = Math.min(size, Math.trunc(center + support + 0.5)) - first[x];
    let sum = 0;
    for (let i = 0; i < count[x]; i++) {
      row[i] = Math.max(0, 1 - Math.abs((i + first[x] - center + 0.5) * (1 / support)));
      sum += row[i];
    }
    for (let i = 0; i < count[x]; i++) {
      weight[x * most + i] = Math.trunc(0.5 + (row[i] / sum) * 2 ** BITS);
    }
  }
  return { first, count, weight, most };
}
