// Saves a picture as the page shows it, with its colours written into it.

// What the style sheet decides; a picture alone has no style sheet.
const STYLED = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray",
  "stroke-linecap", "stroke-linejoin", "paint-order", "text-anchor", "font-family", "font-size", "font-weight", "opacity",
];

/** Download the picture as SVG. */
export function saveSvg(picture, name) {
  download(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(alone(picture))}`, `${name}.svg`);
}

/** Download it as PNG, with twice the pixels for printing. */
export function savePng(picture, name) {
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * picture.width.baseVal.value;
    canvas.height = 2 * picture.height.baseVal.value;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    download(canvas.toDataURL("image/png"), `${name}.png`);
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(alone(picture))}`;
}

/** The picture as text that needs nothing else. */
function alone(picture) {
  const copy = picture.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const originals = picture.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((node, i) => {
    const style = getComputedStyle(originals[i]);
    for (const key of STYLED) node.setAttribute(key, style.getPropertyValue(key));
    for (const key of ["class", "tabindex", "role"]) node.removeAttribute(key);
  });
  copy.querySelectorAll("[visibility=hidden]").forEach((node) => node.remove());
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(ground);
  return new XMLSerializer().serializeToString(copy);
}

function download(address, name) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}
