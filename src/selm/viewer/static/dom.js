// Makes elements. Every text becomes a text node, so that no text is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `onclick` and the like are functions, null attributes are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return node;
}

let fields = 0;

/** A control under its label; the label is not around it, or its name would hold all options. */
export function field(label, control, kind = "") {
  fields += 1;
  control.id = `field-${fields}`;
  return el("div", { class: `field ${kind}` }, el("label", { for: control.id }, label), control);
}

/** A labelled select; options are [value, words, disabled]. */
export function choice(label, options, value, onchange) {
  const select = el(
    "select",
    { onchange: () => onchange(select.value) },
    options.map(([key, words, disabled]) => el("option", { value: key, disabled }, words)),
  );
  select.value = value;
  return field(label, select);
}

/** Whether a key belongs to the element that has the focus, such as a field of text. */
export function isTyping(target) {
  return target instanceof Element && target.closest("input, select, textarea") !== null;
}
