/** What the student's file says of itself, as a list on the page. */

import { number } from "./words.js";

/**
 * Fill in the list.
 *
 * @param {object} model as in model.json
 */
export function describe(model) {
  const { card, example } = model;
  const about = document.getElementById("about");
  const rows = {
    Student: `${model.name}, x${model.scale}`,
    Parameters: card.parameters ? number(card.parameters) : "", // Exported files do not tell.
    Method: [card.method, card.teacher && `teacher ${card.teacher}`].filter(Boolean).join(", "),
    "Trained on": card.data,
    "PSNR-Y": scores(card.scores, "psnr_y"),
    PSNR: scores(card.scores, "psnr"),
    Tiles: model.reach === null ? "The network sees the whole picture: tiles differ a little." : "",
    Runtime: `onnxruntime-web ${model.runtime}`,
    Example: `${example.name}: ${example.credit}`,
  };
  for (const [term, text] of Object.entries(rows)) {
    if (text) about.querySelector("dl").append(row("dt", term), row("dd", text));
  }
  about.hidden = false;
}

function row(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text; // Text, whatever a stranger's file holds.
  return made;
}

/** Return the scores of all sets in one metric, in words; "" without any. */
function scores(sets, metric) {
  return Object.entries(sets)
    .filter(([, values]) => metric in values)
    .map(([set, values]) => `${set} ${values[metric].toFixed(2)} dB`)
    .join(", ");
}
