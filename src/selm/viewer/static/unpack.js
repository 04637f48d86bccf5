// Reads the packed data: JSON, compressed with gzip, in base64 (selm/viewer/page.py).

const unpacked = new Map();

/** The value of a script element of data; it is unpacked once. */
export function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, read(document.getElementById(id)));
  return unpacked.get(id);
}

async function read(node) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old to unpack the page's data; take one from 2023 or later.");
  }
  const bytes = decoded(node.textContent);
  node.remove(); // its text is not needed any more, and may be large
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function decoded(text) {
  if (typeof Uint8Array.fromBase64 === "function") return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}
