// The picture of coseglib.explorer.stage: shows a photograph and what was marked in it, and says where a hand was.
const SVG = "http://www.w3.org/2000/svg";

function shape(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function mark(parent, { kind, at }, [width, height]) {
  const group = shape(parent, "g", { class: `coseg-mark coseg-${kind}` });
  if (kind === "box" || kind === "cell") {
    const [x0, y0, x1, y1] = at;
    for (const outline of ["coseg-under", "coseg-over"])
      shape(group, "rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: outline });
    return;
  }
  const [x, y] = [at[0] + 0.5, at[1] + 0.5], r = Math.max(width, height) / 45, arm = 0.55 * r;
  shape(group, "circle", { cx: x, cy: y, r });
  shape(group, "path", { d: `M${x - arm} ${y}h${2 * arm}` + (kind === "point" ? `M${x} ${y - arm}v${2 * arm}` : "") });
}

function render({ model, el }) {
  el.classList.add("coseg-stage");
  const picture = el.appendChild(document.createElement("img"));
  picture.draggable = false;
  const drawing = shape(el, "svg", { preserveAspectRatio: "none" });
  const [kept, trail] = [shape(drawing, "g", {}), shape(drawing, "g", {})];  // what counts; what the hand does now
  const brush = shape(drawing, "circle", { class: "coseg-brush", r: 0 });
  let path = null, address = null;

  function show() {
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([model.get("value")], { type: `image/${model.get("kind")}` }));
    picture.src = address;
    picture.alt = model.get("name");
  }
  function draw() {
    drawing.setAttribute("viewBox", `0 0 ${model.get("size").join(" ")}`);
    kept.replaceChildren();
    for (const one of model.get("marks")) mark(kept, one, model.get("size"));
  }
  function share(event) {
    const { left, top, width, height } = drawing.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }
  function follow(shift) {
    const size = model.get("size"), tool = model.get("tool");
    const places = path.map(([x, y]) => [x * size[0], y * size[1]]), [from, to] = [places[0], places.at(-1)];
    trail.replaceChildren();
    if (tool === "line") {
      const d = "M" + (places.length > 1 ? places : [from, from]).map(([x, y]) => `${x} ${y}`).join("L");
      shape(trail, "path", { d, class: "coseg-line", "stroke-width": 2 * model.get("radius") });
    } else if (path.length > 1 && (tool === "this" || tool === "not")) {
      const at = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
      mark(trail, { kind: "box", at }, size);
    } else if (tool !== "match") {
      const kind = (tool === "not") === shift ? "point" : "not_point";
      mark(trail, { kind, at: from.map((v) => v - 0.5) }, size);
    }
  }
  function hover(event) {
    const [x, y] = share(event), [width, height] = model.get("size");
    brush.setAttribute("r", model.get("tool") === "line" ? model.get("radius") : 0);
    brush.setAttribute("cx", x * width);
    brush.setAttribute("cy", y * height);
  }
  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    drawing.setPointerCapture(event.pointerId);
    path = [share(event)];
    path.from = [event.clientX, event.clientY];
  });
  drawing.addEventListener("pointermove", (event) => {
    hover(event);
    if (!path) return;
    const far = Math.hypot(event.clientX - path.from[0], event.clientY - path.from[1]) > 4;  // less is a click
    if (far || path.length > 1) {
      path.push(share(event));
      follow(event.shiftKey);
    }
  });
  drawing.addEventListener("pointerup", (event) => {
    if (!path) return;
    follow(event.shiftKey);
    model.send({ path: [...path], shift: event.shiftKey });
    path = null;
  });
  drawing.addEventListener("pointercancel", () => { path = null; trail.replaceChildren(); });
  drawing.addEventListener("pointerleave", () => brush.setAttribute("r", 0));
  function done(message) {
    if (message.done && !path) trail.replaceChildren();
  }
  model.on("change:value", show);
  model.on("change:marks", draw);
  model.on("change:size", draw);
  model.on("msg:custom", done);
  show();
  draw();
  return () => {
    model.off("change:value", show);
    model.off("change:marks", draw);
    model.off("change:size", draw);
    model.off("msg:custom", done);
    if (address) URL.revokeObjectURL(address);
  };
}

export default { render };
