// Boxes on a picture, in the colors of squeezedet/drawing.py.

// Okabe and Ito's colors, told apart with every kind of color vision.
export const COLORS = [
  [0, 158, 115],
  [230, 159, 0],
  [86, 180, 233],
  [213, 94, 0],
  [240, 228, 66],
  [0, 114, 178],
  [204, 121, 167],
];

/** The CSS color of a class. */
export function color(classes, name) {
  return `rgb(${COLORS[classes.indexOf(name) % COLORS.length].join(" ")})`;
}

/**
 * Draw a picture and boxes, the best one on top. A label never lies on that of a better box; where
 * there is no room it is left out, as on a phone labels are larger than many boxes.
 *
 * @param {HTMLCanvasElement} canvas of any size of the picture's shape
 * @param {ImageBitmap} bitmap the picture
 * @param {object[]} boxes detections by descending score, in pixels of an image of size
 * @param {number[]} size [width, height] of the image that the boxes are of
 * @param {{classes: string[], unit: number, chosen: object?}} options unit: canvas pixels of one
 *   pixel of the screen, for lines and letters; chosen: the only box to show in full strength
 */
export function draw(canvas, bitmap, boxes, size, { classes, unit, chosen = null }) {
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  pen.font = `600 ${12 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  pen.lineWidth = 2 * unit;
  const scale = [canvas.width / size[0], canvas.height / size[1]];
  const order = chosen ? [chosen, ...boxes.filter((box) => box !== chosen)] : boxes;
  const marks = order.map((box) => ({
    box,
    ink: color(classes, box.class),
    strength: chosen && box !== chosen ? 0.3 : 1,
    corners: box.xyxy.map((v, i) => v * scale[i % 2]),
  }));
  for (const { ink, strength, corners } of [...marks].reverse()) {
    const [x1, y1, x2, y2] = corners;
    pen.globalAlpha = strength;
    pen.strokeStyle = ink;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  const labels = [];
  for (const mark of marks) {
    const label = places(pen, mark, unit).find((at) => !labels.some((l) => overlap(at, l)));
    if (!label) continue;
    labels.push(label);
    write(pen, mark, label, unit);
  }
  pen.globalAlpha = 1;
}

/** Where a label may go: above its box or, at the picture's upper edge, inside it; below it. */
function places(pen, { box, corners }, unit) {
  const text = `${box.class} ${box.score.toFixed(2)}`;
  const [width, height] = [pen.measureText(text).width + 6 * unit, 16 * unit];
  const [left, top, , bottom] = corners;
  const x = Math.min(Math.max(left - unit, 0), Math.max(pen.canvas.width - width, 0));
  return [top >= height ? top - height : top, bottom]
    .filter((y) => y + height <= pen.canvas.height)
    .map((y) => ({ text, x, y, width, height }));
}

function overlap(a, b) {
  const across = a.x < b.x + b.width && b.x < a.x + a.width;
  return across && a.y < b.y + b.height && b.y < a.y + a.height;
}

function write(pen, { ink, strength }, { text, x, y, width, height }, unit) {
  pen.globalAlpha = strength;
  pen.fillStyle = ink;
  pen.fillRect(x, y, width, height);
  pen.fillStyle = "#000";
  pen.fillText(text, x + 3 * unit, y + 2 * unit);
}
