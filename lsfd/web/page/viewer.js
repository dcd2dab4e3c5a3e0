/** Bicubic and student on top of each other, a line between them, zooming and moving. */

/** As near, in pixels of the screen, the line is taken hold of. */
const NEAR = 24;

/** Between a name and the edges of the picture. */
const EDGE = 10;

/** Share of the window's height that the picture may take. */
const TALLEST = 0.6;

/** As large a canvas every browser gives; asking takes time. */
const SURE_PIXELS = 4096 * 4096;

const element = (id) => document.getElementById(id);

export class Viewer {
  constructor() {
    this.frame = element("frame");
    this.pane = element("pane");
    this.stage = element("stage");
    this.line = element("line");
    this.sides = { left: element("left"), right: element("right") };
    this.wipe = element("wipe");
    this.layers = { bicubic: element("bicubic"), student: element("student") };
    this.zoom = "fit";
    this.wipe.addEventListener("input", () => this.moveLine());
    this.pane.addEventListener("scroll", () => this.moveLine());
    new ResizeObserver(() => this.layOut()).observe(this.frame);
    addEventListener("resize", () => this.layOut());
    for (const radio of document.querySelectorAll("#zoom input")) {
      radio.addEventListener("change", () => this.zoomTo(radio.value));
    }
    this.listenToPointer();
  }

  /**
   * Make room for a result.
   *
   * @param {number} width in pixels of the result
   * @param {number} height
   * @returns {boolean} whether the browser gives so large canvases
   */
  open(width, height) {
    for (const canvas of Object.values(this.layers)) {
      canvas.width = width;
      canvas.height = height;
      if (width * height > SURE_PIXELS && !works(canvas)) {
        this.close();
        return false;
      }
    }
    this.stage.classList.remove("transparent");
    this.wipe.value = 50;
    element("zoom").querySelector("[value=fit]").checked = true;
    this.zoomTo("fit");
    return true;
  }

  /** Let go of the memory of a result. */
  close() {
    for (const canvas of Object.values(this.layers)) canvas.width = canvas.height = 0;
  }

  /** Show a chequered ground behind the picture. */
  markTransparent() {
    this.stage.classList.add("transparent");
  }

  /** Put pixels into "bicubic" or "student". */
  paint(layer, pixels, x, y) {
    this.layers[layer].getContext("2d").putImageData(pixels, x, y);
  }

  /** Return the student's picture as a PNG file. */
  toPng() {
    return new Promise((resolve, reject) => {
      this.layers.student.toBlob(
        (blob) => (blob ? resolve(blob) : reject(new Error("the browser gave no PNG file"))),
        "image/png",
      );
    });
  }

  /** Zoom to "fit" or to so many pixels of the screen for each of the result; the centre stays. */
  zoomTo(zoom) {
    const { pane } = this;
    const centre = [
      (pane.scrollLeft + pane.clientWidth / 2) / Math.max(pane.scrollWidth, 1),
      (pane.scrollTop + pane.clientHeight / 2) / Math.max(pane.scrollHeight, 1),
    ];
    this.zoom = zoom;
    this.layOut();
    pane.scrollLeft = centre[0] * pane.scrollWidth - pane.clientWidth / 2;
    pane.scrollTop = centre[1] * pane.scrollHeight - pane.clientHeight / 2;
    this.moveLine();
  }

  /** Give the picture its size on the screen. */
  layOut() {
    const { width, height } = this.layers.student;
    if (!width) return;
    const tallest = Math.max(TALLEST * innerHeight, 200);
    const whole = 1 / devicePixelRatio;
    const fitting = Math.min(whole, this.frame.clientWidth / width, tallest / height);
    const factor = this.zoom === "fit" ? fitting : Number(this.zoom) * whole;
    this.stage.style.width = `${width * factor}px`;
    this.stage.style.height = `${height * factor}px`;
    this.stage.classList.toggle("blocks", factor > whole);
    this.pane.style.maxHeight = `${tallest}px`;
    const moves =
      this.pane.scrollWidth > this.pane.clientWidth ||
      this.pane.scrollHeight > this.pane.clientHeight;
    this.pane.classList.toggle("moves", moves);
    this.moveLine();
  }

  /** Return the part of the picture that can be seen, in pixels of the pane. */
  visible() {
    const left = this.stage.offsetLeft - this.pane.scrollLeft;
    const top = this.stage.offsetTop - this.pane.scrollTop;
    return {
      left: Math.max(left, 0),
      right: Math.min(left + this.stage.offsetWidth, this.pane.clientWidth),
      top: Math.max(top, 0),
      bottom: Math.min(top + this.stage.offsetHeight, this.pane.clientHeight),
      hidden: Math.max(-left, 0),
    };
  }

  /** Put the line where the slider says; the student is cut off to its left. */
  moveLine() {
    const { left, right, top, bottom, hidden } = this.visible();
    const share = this.wipe.value / 100;
    const place = share * (right - left);
    this.layers.student.style.clipPath = `inset(0 0 0 ${hidden + place}px)`;
    this.line.style.left = `${left + place}px`;
    this.line.style.top = `${top}px`;
    this.line.style.height = `${bottom - top}px`;
    this.label("left", left + EDGE, bottom - EDGE, place);
    const start = right - EDGE - this.sides.right.offsetWidth;
    this.label("right", start, bottom - EDGE, right - left - place);
    this.wipe.setAttribute("aria-valuetext", `student on ${100 - this.wipe.value} %`);
  }

  /** Put a side's name into a lower corner of the picture, unless the side is too narrow for it. */
  label(side, x, y, room) {
    const { style, offsetWidth } = this.sides[side];
    style.left = `${x}px`;
    style.top = `${y}px`;
    style.visibility = room > offsetWidth + 2 * EDGE ? "visible" : "hidden";
  }

  /** Dragging moves the line; away from the line it moves a picture that is larger than the pane. */
  listenToPointer() {
    let last = null;
    let takesLine = false;
    this.frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.onScrollbar(event)) return;
      takesLine = this.isNearLine(event.clientX) || !this.pane.classList.contains("moves");
      if (!takesLine && event.pointerType !== "mouse") return; // Fingers scroll by themselves.
      last = event;
      this.frame.setPointerCapture(event.pointerId);
      if (takesLine) this.dragLine(event.clientX);
      event.preventDefault();
      (takesLine ? this.wipe : this.pane).focus({ preventScroll: true });
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (!last) return;
      if (takesLine) this.dragLine(event.clientX);
      else this.pane.scrollBy(last.clientX - event.clientX, last.clientY - event.clientY);
      last = event;
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.frame.addEventListener(end, () => (last = null));
    }
  }

  isNearLine(x) {
    const { left } = this.line.getBoundingClientRect();
    return Math.abs(x - left) < NEAR;
  }

  onScrollbar({ clientX, clientY }) {
    const { left, top } = this.pane.getBoundingClientRect();
    return clientX - left > this.pane.clientWidth || clientY - top > this.pane.clientHeight;
  }

  dragLine(x) {
    const { left, right } = this.visible();
    const place = x - this.pane.getBoundingClientRect().left - left;
    this.wipe.value = (100 * place) / Math.max(right - left, 1);
    this.moveLine();
  }
}

/** Whether what is drawn on a canvas is there afterwards. */
function works(canvas) {
  const [x, y] = [canvas.width - 1, canvas.height - 1];
  const context = canvas.getContext("2d");
  context?.fillRect(x, y, 1, 1);
  const there = context?.getImageData(x, y, 1, 1).data[3] > 0;
  context?.clearRect(x, y, 1, 1);
  return there;
}
