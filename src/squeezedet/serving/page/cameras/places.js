// Lines and zones on a picture.

import { COLORS } from "../drawing.js";

const FIRST = 3; // the first colors are those of the classes

/** The CSS color of a line or a zone; a paler one for a line's second direction. */
export function colorOf(index, pale = false) {
  return `rgb(${COLORS[(index + FIRST) % COLORS.length].join(" ")} / ${pale ? "45%" : "100%"})`;
}

/**
 * Draw them.
 *
 * @param {HTMLCanvasElement} canvas which shows the picture
 * @param {{lines: object[], zones: object[]}} places points in pixels of a picture of this size
 * @param {number[]} size [width, height]
 * @param {number} unit canvas pixels of one pixel of the screen
 * @param {{points: number[][], closed: boolean}?} shape what is being drawn
 */
export function drawPlaces(canvas, { lines, zones, handles }, size, unit, shape = null) {
  const pen = canvas.getContext("2d");
  const scale = [canvas.width / size[0], canvas.height / size[1]];
  const at = ([x, y]) => [x * scale[0], y * scale[1]];
  pen.save();
  pen.font = `600 ${12 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  [...lines, ...zones].forEach((place, index) => {
    const color = colorOf(index);
    const points = place.points.map(at);
    const isZone = index >= lines.length;
    trace(pen, points, isZone, color, 2.5 * unit);
    if (isZone) write(pen, points[0], zoneLabel(place), color, unit);
    else ways(pen, points, place, color, unit);
    if (handles) points.forEach((point) => dot(pen, point, color, unit));
  });
  if (shape?.points.length) {
    const points = shape.points.map(at);
    trace(pen, points, false, "#fff", 2.5 * unit);
    points.forEach((point) => dot(pen, point, "#fff", unit));
  }
  pen.restore();
}

function zoneLabel({ name, inside }) {
  return inside === undefined ? name : `${name}: ${inside}`;
}

function trace(pen, points, closed, color, width) {
  pen.beginPath();
  points.forEach((point, i) => (i ? pen.lineTo(...point) : pen.moveTo(...point)));
  if (closed) {
    pen.closePath();
    pen.globalAlpha = 0.15;
    pen.fillStyle = color;
    pen.fill();
    pen.globalAlpha = 1;
  }
  for (const [ink, px] of [["rgb(0 0 0 / 60%)", width * 1.8], [color, width]]) {
    pen.strokeStyle = ink;
    pen.lineWidth = px;
    pen.stroke();
  }
}

/** The two directions of a line, each on the side to which it leads. */
function ways(pen, [a, b], { name, directions, counts }, color, unit) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = Math.hypot(dx, dy) || 1;
  const right = [-dy / length, dx / length]; // as one looks from the first end to the second, y is down
  const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  directions.forEach((way, i) => {
    const sign = i ? -1 : 1;
    const tip = middle.map((v, k) => v + sign * right[k] * 14 * unit);
    trace(pen, [middle, tip], false, color, 2 * unit);
    const text = counts ? `${way} ${counts[way]}` : way;
    const half = pen.measureText(text).width / 2 + 4 * unit;
    const away = 14 * unit + Math.abs(right[0]) * half + Math.abs(right[1]) * 10 * unit;
    write(pen, middle.map((v, k) => v + sign * right[k] * away), text, color, unit, true);
  });
  write(pen, a, name, color, unit);
}

/** A label at a point, moved into the picture. */
function write(pen, [x, y], text, color, unit, centered = false) {
  const [width, height] = [pen.measureText(text).width + 6 * unit, 17 * unit];
  const left = clamp(centered ? x - width / 2 : x + 6 * unit, pen.canvas.width - width);
  const top = clamp(y - height / 2, pen.canvas.height - height);
  pen.fillStyle = color;
  pen.fillRect(left, top, width, height);
  pen.fillStyle = "#000";
  pen.fillText(text, left + 3 * unit, top + height / 2);
}

function clamp(value, most) {
  return Math.max(0, Math.min(value, most));
}

function dot(pen, [x, y], color, unit) {
  pen.beginPath();
  pen.arc(x, y, 6 * unit, 0, 2 * Math.PI);
  pen.fillStyle = color;
  pen.fill();
  pen.strokeStyle = "#000";
  pen.lineWidth = 1.5 * unit;
  pen.stroke();
}
