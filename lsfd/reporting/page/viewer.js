
// Two views of a picture, one over the other: a line wipes between them, both zoom together.
(() => {
  "use strict";
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const { pictures, bar } = JSON.parse(document.getElementById("report-data").textContent);
  const MOST = 8;
  const STEP = Math.SQRT2;
  const GRASP = 28; // Pixels on either side of the line in which a drag takes hold of it.
  const SIDES = ["left", "right"];

  const find = (name) => document.getElementById(name);
  const stage = find("stage");
  const wipe = find("wipe");
  const selects = { left: find("left"), right: find("right") };
  const panes = Object.fromEntries(SIDES.map((side) => [side, stage.querySelector(`[data-side="${side}"]`)]));
  const divider = stage.querySelector(".divider");
  const state = { picture: 0, views: { left: 0, right: 0 }, share: 0.5, zoom: 1, x: 0, y: 0 };

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // What is shown

  const fillSelects = () => {
    const { views } = pictures[state.picture];
    for (const side of SIDES) {
      const groups = new Map();
      views.forEach((view, index) => {
        if (!groups.has(view.group)) {
          const group = document.createElement("optgroup");
          group.label = view.group;
          groups.set(view.group, group);
        }
        groups.get(view.group).append(new Option(view.label, index));
      });
      selects[side].replaceChildren(...groups.values());
      selects[side].value = state.views[side];
    }
  };

  const showSide = (side) => {
    const view = pictures[state.picture].views[state.views[side]];
    const image = panes[side].querySelector("img");
    image.src = view.src;
    image.alt = [view.label, view.note].filter(Boolean).join(", ");
    const tag = panes[side].querySelector(".tag");
    const name = document.createElement("b");
    name.textContent = view.label;
    tag.replaceChildren(name, view.note ? ` ${view.note.replaceAll(" ", "\u00a0")}` : "");
    selects[side].value = state.views[side];
    showScale(side, view);
  };

  const showScale = (side, view) => {
    const line = viewer.querySelector(`.scale[data-side="${side}"]`);
    line.hidden = !view.scale;
    if (!view.scale) return;
    const colours = new Image();
    colours.src = bar;
    colours.alt = "to";
    const name = document.createElement("span");
    name.textContent = view.label;
    line.replaceChildren(name, "0", colours, `${view.scale.top} ${view.scale.unit}`);
  };

  const showPicture = (index) => {
    const before = pictures[state.picture].views;
    const { views, left, right, width, height } = pictures[index];
    // The same views of the next picture, where it has them.
    const kept = (side, other) => {
      const found = views.findIndex((view) => view.label === before[state.views[side]].label);
      return found < 0 ? other : found;
    };
    const first = stage.dataset.ready !== "yes";
    state.views = first ? { left, right } : { left: kept("left", left), right: kept("right", right) };
    state.picture = index;
    stage.dataset.ready = "yes";
    stage.style.aspectRatio = `${width} / ${height}`;
    // As wide as the window's height and the pixels allow; the slider below it as well.
    stage.parentElement.style.maxWidth = `min(${(84 * width) / height}vh, ${Math.max(3 * width, 480)}px)`;
    for (const source of viewer.querySelectorAll("[data-source]")) {
      source.hidden = Number(source.dataset.source) !== index;
    }
    fillSelects();
    SIDES.forEach(showSide);
    setZoom(1, 0, 0);
  };

  const showWipe = () => {
    const percent = 100 * state.share;
    panes.left.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    panes.right.style.clipPath = `inset(0 0 0 ${percent}%)`;
    divider.style.left = `${percent}%`;
    wipe.value = percent;
  };

  const setShare = (share) => {
    state.share = clamp(share, 0, 1);
    showWipe();
  };

  // Zoom: x and y are the stage's pixels by which the picture is moved; 0 and less.

  const setZoom = (zoom, x, y) => {
    state.zoom = clamp(zoom, 1, MOST);
    state.x = clamp(x, stage.clientWidth * (1 - state.zoom), 0);
    state.y = clamp(y, stage.clientHeight * (1 - state.zoom), 0);
    for (const side of SIDES) {
      const image = panes[side].querySelector("img");
      image.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
      image.classList.toggle("pixels", state.zoom > 1 || isCoarse(side));
    }
    stage.classList.toggle("zoomed", state.zoom > 1);
    find("zoom").textContent = `${Number(state.zoom.toFixed(1))}×`;
    // Not "disabled", which would take the focus, and the keys with it, from who pressed it last.
    find("zoom-in").ariaDisabled = state.zoom >= MOST;
    find("zoom-out").ariaDisabled = find("zoom-fit").ariaDisabled = state.zoom <= 1;
  };

  // The low-resolution input and maps on its grid are squares at any size.
  const isCoarse = (side) => pictures[state.picture].views[state.views[side]].coarse;

  // Keeps the point (x, y) of the stage where it is.
  const zoomAt = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    stage.classList.remove("easing");
    let zoom = clamp(state.zoom * factor, 1, MOST);
    if (zoom < 1.01) zoom = 1;
    if (zoom > MOST - 0.01) zoom = MOST;
    const change = zoom / state.zoom;
    setZoom(zoom, x - (x - state.x) * change, y - (y - state.y) * change);
  };

  const eased = (change) => {
    stage.classList.add("easing");
    change();
  };

  const press = (factor, x, y) => eased(() => {
    zoomAt(factor, x, y);
    stage.classList.add("easing");
  });

  const pan = (x, y) => {
    stage.classList.remove("easing");
    setZoom(state.zoom, state.x + x, state.y + y);
  };

  // Pointers: one wipes or pans, two zoom.

  const pointers = new Map();
  let drags = "";

  const inStage = (event) => {
    const bounds = stage.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  };

  const onLine = ({ x }) => Math.abs(x - state.share * stage.clientWidth) <= GRASP;

  const spread = () => {
    const [one, other] = [...pointers.values()];
    return {
      distance: Math.hypot(one.x - other.x, one.y - other.y),
      x: (one.x + other.x) / 2,
      y: (one.y + other.y) / 2,
    };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const place = inStage(event);
    pointers.set(event.pointerId, place);
    stage.setPointerCapture(event.pointerId);
    drags = pointers.size > 1 ? "zoom" : state.zoom > 1 && !onLine(place) ? "pan" : "wipe";
    stage.classList.toggle("panning", drags === "pan");
    // A press on the line takes hold of it, one elsewhere brings it there.
    if (drags === "wipe" && !onLine(place)) setShare(place.x / stage.clientWidth);
  });

  stage.addEventListener("pointermove", (event) => {
    const place = inStage(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      stage.classList.toggle("wiping", state.zoom > 1 && onLine(place));
      return;
    }
    if (drags === "wipe") setShare(place.x / stage.clientWidth);
    if (drags === "pan") pan(place.x - before.x, place.y - before.y);
    const last = drags === "zoom" && pointers.size === 2 ? spread() : null;
    pointers.set(event.pointerId, place);
    if (last) {
      const now = spread();
      zoomAt(now.distance / last.distance, now.x, now.y);
      pan(now.x - last.x, now.y - last.y);
    }
  });

  const release = (event) => {
    pointers.delete(event.pointerId);
    stage.classList.remove("panning");
    if (pointers.size) drags = "";
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);

  stage.addEventListener("dblclick", (event) => {
    const { x, y } = inStage(event);
    if (state.zoom > 1) eased(() => setZoom(1, 0, 0));
    else press(3, x, y);
  });

  // The page scrolls under the wheel until the picture was selected.
  stage.addEventListener("wheel", (event) => {
    const selected = stage.contains(document.activeElement) || event.ctrlKey;
    if (!selected || (event.deltaY > 0 && state.zoom === 1)) return;
    event.preventDefault();
    const { x, y } = inStage(event);
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoomAt(Math.exp(-clamp(event.deltaY * lines, -120, 120) / 300), x, y);
  }, { passive: false });

  // Keys

  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.key === "+" || event.key === "=") press(STEP);
    else if (event.key === "-" || event.key === "_") press(1 / STEP);
    else if (event.key === "0") eased(() => setZoom(1, 0, 0));
    else return;
    event.preventDefault();
  });

  stage.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    if (state.zoom > 1) {
      pan((arrow[0] * stage.clientWidth) / 10, (arrow[1] * stage.clientHeight) / 10);
    } else if (arrow[0]) {
      setShare(state.share - arrow[0] / 50);
    } else {
      return; // Up and down scroll the page.
    }
    event.preventDefault();
  });

  // Controls

  wipe.addEventListener("input", () => {
    state.share = Number(wipe.value) / 100;
    showWipe();
  });
  for (const side of SIDES) {
    selects[side].addEventListener("change", () => {
      state.views[side] = Number(selects[side].value);
      showSide(side);
      setZoom(state.zoom, state.x, state.y);
    });
  }
  find("swap").addEventListener("click", () => {
    state.views = { left: state.views.right, right: state.views.left };
    SIDES.forEach(showSide);
    setZoom(state.zoom, state.x, state.y);
  });
  find("zoom-in").addEventListener("click", () => press(STEP));
  find("zoom-out").addEventListener("click", () => press(1 / STEP));
  find("zoom-fit").addEventListener("click", () => eased(() => setZoom(1, 0, 0)));
  for (const radio of viewer.querySelectorAll('input[name="picture"]')) {
    radio.addEventListener("change", () => showPicture(Number(radio.value)));
  }

  // A change of the stage's size keeps what is in its middle.
  let size = [stage.clientWidth, stage.clientHeight];
  new ResizeObserver(() => {
    const now = [stage.clientWidth, stage.clientHeight];
    setZoom(state.zoom, (state.x * now[0]) / size[0] || 0, (state.y * now[1]) / size[1] || 0);
    size = now;
  }).observe(stage);

  // A reload may have kept the choice of a picture.
  const checked = viewer.querySelector('input[name="picture"]:checked');
  showPicture(Number(checked.value));
  showWipe();
})();
