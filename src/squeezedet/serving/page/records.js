// Records of pictures: what of them is shown, and as what they are saved.

export const FLOOR = 0.1; // the lowest score that is asked for; the slider goes no lower

/**
 * The detections of a record that the settings show.
 *
 * Asking with a low score and hiding boxes afterwards gives what asking with the higher score
 * would: a box is only ever dropped for one of a higher score.
 */
export function shown(record, settings) {
  return record.detections.filter(
    (box) => box.score >= settings.score && !settings.hidden.has(box.class),
  );
}

/** The record with those detections only. */
export function filtered(record, settings) {
  return { ...record, detections: shown(record, settings) };
}

/** "2 cars, 1 pedestrian", in the order of the classes; "nothing" for none. */
export function described(boxes, classes) {
  const counts = classes
    .map((name) => [name, boxes.filter((box) => box.class === name).length])
    .filter(([, count]) => count);
  return counts.map(([name, count]) => `${count} × ${name}`).join(", ") || "nothing";
}

/** Hand a file to the visitor. */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Put text on the clipboard, which pages without https or localhost cannot reach directly. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("this browser does not let the page copy; save the JSON instead");
}
