/** The page: a picture comes in, a worker enlarges it, the viewer shows it, a button saves it. */

import { describe } from "./about.js";
import { listenForPictures } from "./intake.js";
import { Viewer } from "./viewer.js";
import { number, size } from "./words.js";

/** Limits of the canvases that the result is shown on. */
const LONGEST_SIDE = 16384;
const MOST_MEGAPIXELS = 64;

const element = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

/** "auto", or as `?engine=wasm` or `?engine=webgpu` says. */
const ENGINE = parameters.get("engine") ?? "auto";

const viewer = new Viewer();
let model = null;
let worker = null;
/** The picture that is shown: {name, width, height, engine, state: "working" | "done" | "stopped"}. */
let job = null;
/** How many pictures have been given: one that is decoded too late is dropped. */
let given = 0;

start();

async function start() {
  element("unstarted").remove();
  const response = await fetch("model.json").catch(() => null);
  if (!response?.ok) return fail("model.json cannot be read: the page's folder is incomplete.");
  model = await response.json();
  const tile = Number(parameters.get("tile")); // `?tile=64` says how large the tiles are.
  if (tile > 0) model.tile = tile;
  element("times").textContent = `${model.scale} times`;
  element("times").hidden = false;
  describe(model);
  listenForPictures(model.example, receive, fail);
  addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && job?.state === "working") cancel();
  });
  element("cancel").addEventListener("click", cancel);
  element("save").addEventListener("click", save);
  document.body.dataset.ready = "";
}

/** Decode a file and have it enlarged. */
async function receive(file, remark) {
  stop();
  const turn = ++given;
  say(`Reading ${file.name} …`);
  let bitmap = null;
  try {
    // Values stay as stored but for a colour profile, which is converted to sRGB.
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
  } catch {
    // Not to be read: what is wrong is said below.
  }
  if (turn !== given) return bitmap?.close();
  if (!bitmap) return fail(noPicture(file));
  if (makeRoom(bitmap)) return enlarge(file.name, bitmap, remark);
  fail(tooLarge(bitmap));
  bitmap.close();
}

/** Return whether the result can be shown; the viewer is then ready for it. */
function makeRoom({ width, height }) {
  const sides = [width * model.scale, height * model.scale];
  if (sides[0] * sides[1] > MOST_MEGAPIXELS * 1e6 || Math.max(...sides) > LONGEST_SIDE) return false;
  if (viewer.open(...sides)) return true;
  element("view").hidden = true; // The earlier result is gone.
  if (job) enter("stopped");
  return false;
}

function enlarge(name, bitmap, remark) {
  const { width, height } = bitmap;
  job = { name, width: width * model.scale, height: height * model.scale };
  element("title").textContent = name;
  element("sizes").textContent = `${size(width, height)} → ${size(job.width, job.height)}`;
  element("view").hidden = false;
  element("progress").removeAttribute("value");
  element("count").textContent = "";
  enter("working");
  say(`Enlarging ${name}.${remark} The student is being loaded …`);
  worker ??= new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => hear(data);
  worker.onerror = ({ message }) =>
    hear({ kind: "failed", reason: message ?? "worker.js cannot be started" });
  worker.postMessage({ model, engine: ENGINE, bitmap }, [bitmap]);
}

/** Do what a message of the worker says. */
function hear(message) {
  switch (message.kind) {
    case "begin":
      if (message.transparent) viewer.markTransparent();
      break;
    case "bicubic":
      viewer.paint("bicubic", message.pixels, message.x, message.y);
      break;
    case "engine":
      job.engine = message.name;
      say(`Enlarging ${job.name} with ${message.name} …`);
      break;
    case "student":
      viewer.paint("student", message.pixels, message.x, message.y);
      element("progress").max = message.tiles;
      element("progress").value = message.done;
      element("count").textContent = `${message.done} of ${message.tiles} tiles`;
      break;
    case "done":
      finish(message.seconds);
      break;
    case "failed":
      stop();
      fail(`The student could not enlarge ${job.name}: ${message.reason}.`);
  }
}

function finish(seconds) {
  const megapixels = (job.width * job.height) / 1e6;
  enter("done");
  say(
    `Done: ${number(megapixels)} megapixels in ${number(seconds)} s, ` +
      `${number(megapixels / seconds)} megapixels/s with ${job.engine}.`,
  );
}

/** Leave off, at once: a worker that computes hears nothing, so it is ended. */
function stop() {
  if (job?.state !== "working") return;
  worker.onmessage = worker.onerror = null;
  worker.terminate();
  worker = null;
  enter("stopped");
}

function cancel() {
  const { value, max } = element("progress");
  stop();
  say(value ? `Cancelled after ${value} of ${max} tiles.` : "Cancelled.");
}

async function save() {
  try {
    const address = URL.createObjectURL(await viewer.toPng());
    const link = document.createElement("a");
    link.href = address;
    link.download = `${job.name.replace(/\.[^.]*$/, "") || "picture"}_x${model.scale}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    say(`Saved as ${link.download}.`);
  } catch (error) {
    fail(`The picture could not be saved: ${error.message}.`);
  }
}

/** Show the buttons that belong to a state; the keyboard's place is not lost with a button. */
function enter(state) {
  const lost = element("working").contains(document.activeElement);
  job.state = state;
  element("working").hidden = state !== "working";
  element("save").hidden = state !== "done";
  document.body.dataset.state = state;
  if (lost) element(state === "done" ? "save" : "file").focus();
}

function say(text) {
  element("status").textContent = text;
  element("problem").textContent = "";
}

function fail(text) {
  element("status").textContent = "";
  element("problem").textContent = text;
}

function noPicture({ name }) {
  return (
    `${name} is no picture that this browser can read. It reads PNG, JPEG, WebP, AVIF, GIF and ` +
    "BMP files that are not damaged."
  );
}

function tooLarge({ width, height }) {
  const sides = [width * model.scale, height * model.scale];
  return (
    `${size(width, height)} pixels are too many: the result would have ${size(...sides)} ` +
    `(${number((sides[0] * sides[1]) / 1e6)} megapixels). A page can show ${MOST_MEGAPIXELS} ` +
    `megapixels and ${LONGEST_SIDE} pixels on a side, in some browsers less. The command ` +
    "lsfd upscale has no such limit."
  );
}
