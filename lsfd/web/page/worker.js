/**
 * Enlarges pictures beside the page, so that the page stays alive.
 *
 * Is sent {model, engine, bitmap}, one at a time, and answers with a message for each step:
 * {kind: "bicubic" | "student", x, y, pixels}: RGBA ImageData for that place of the result,
 *   with {done, tiles} for the student's;
 * {kind: "begin", transparent}, {kind: "engine", name}, {kind: "done", seconds},
 * {kind: "failed", reason}.
 */

import { enlargeBicubic } from "./bicubic.js";
import { openEngine } from "./engine.js";
import { toPixels, toPlanes } from "./planes.js";
import { cut, innerOfEnlarged, planTiles } from "./tiles.js";
import { copyAlpha, isTransparent, spreadColours } from "./transparency.js";

/** The student, kept for the next picture. */
let engine = null;

self.onmessage = async ({ data: { model, engine: wanted, bitmap } }) => {
  try {
    await enlarge(model, wanted, readPixels(bitmap));
  } catch (error) {
    self.postMessage({ kind: "failed", reason: error?.message ?? String(error) });
  }
};

/** Return a bitmap's RGBA pixels as sRGB, and let go of it. */
function readPixels(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", {
    willReadFrequently: true,
  });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

async function enlarge(model, wanted, picture) {
  const transparent = isTransparent(picture);
  self.postMessage({ kind: "begin", transparent });
  if (transparent) spreadColours(picture);
  const tiles = planTiles(picture.width, picture.height, model);
  for (const tile of tiles) send("bicubic", tile, bicubicOf(picture, tile, model.scale), model.scale);

  engine ??= await openEngine(wanted);
  self.postMessage({ kind: "engine", name: engine.name });
  const start = performance.now();
  for (const [done, tile] of tiles.entries()) {
    const pixels = await studentOf(picture, tile, model, wanted);
    if (transparent) copyAlpha(bicubicOf(picture, tile, model.scale).data, pixels.data);
    send("student", tile, pixels, model.scale, { done: done + 1, tiles: tiles.length });
  }
  self.postMessage({ kind: "done", seconds: (performance.now() - start) / 1000 });
}

/** Return a tile without its surroundings, enlarged by interpolation. */
function bicubicOf(picture, tile, scale) {
  return cut(enlargeBicubic(cut(picture, tile.outer), scale), innerOfEnlarged(tile, scale));
}

/** Return a tile without its surroundings, enlarged by the student; opaque. */
async function studentOf(picture, tile, model, wanted) {
  const enlarged = await runEngine(toPlanes(cut(picture, tile.outer), model.multiple), wanted);
  const rect = innerOfEnlarged(tile, model.scale);
  const pixels = toPixels(enlarged.data, enlarged.width, enlarged.height, rect);
  return new ImageData(pixels, rect.width, rect.height);
}

/** Run the student; where graphics hardware fails on the way and nobody insists on it, on WASM. */
async function runEngine(planes, wanted) {
  try {
    return await engine.run(planes);
  } catch (error) {
    if (wanted !== "auto" || engine.provider === "wasm") throw error;
    engine = await openEngine("wasm");
    self.postMessage({ kind: "engine", name: engine.name });
    return engine.run(planes);
  }
}

function send(kind, { inner }, pixels, scale, more = {}) {
  const message = { kind, x: inner.x * scale, y: inner.y * scale, pixels, ...more };
  self.postMessage(message, [pixels.data.buffer]);
}
