/** The ways by which a picture comes to the page. */

import { size } from "./words.js";

const element = (id) => document.getElementById(id);

/**
 * Listen for pictures: chosen, pasted, dropped, or the example.
 *
 * @param {{file: string, name: string, width: number, height: number}} example
 * @param {(file: File, remark: string) => void} take is given each of them
 * @param {(text: string) => void} refuse is told why something else was not taken
 */
export function listenForPictures(example, take, refuse) {
  const takeFirst = (files) =>
    take(files[0], files.length > 1 ? ` Of the ${files.length} files this is the first.` : "");
  listenToButton(takeFirst);
  listenToClipboard(takeFirst, refuse);
  listenToDrops(takeFirst, refuse);
  offer(example, take, refuse);
}

function listenToButton(takeFirst) {
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) takeFirst(target.files);
    target.value = ""; // So that the same file can be chosen again.
  });
}

function listenToClipboard(takeFirst, refuse) {
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) takeFirst(clipboardData.files);
    else refuse("The clipboard holds no picture.");
  });
}

function listenToDrops(takeFirst, refuse) {
  const { classList } = document.body;
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      classList.add("over");
    });
  }
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    classList.remove("over");
    if (event.dataTransfer.files.length) takeFirst(event.dataTransfer.files);
    else refuse("What was dropped is no file: save the picture first, then drop its file.");
  });
}

function offer({ file, name, width, height }, take, refuse) {
  const button = element("example");
  button.querySelector("img").src = file;
  button.querySelector("small").textContent = `${name}, ${size(width, height)}`;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const response = await fetch(file).catch(() => null);
    if (response?.ok) take(new File([await response.blob()], file), "");
    else refuse(`${file} cannot be read: the server is gone, or the page's folder is incomplete.`);
  });
}
