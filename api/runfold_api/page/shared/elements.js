// Creation of elements. Text becomes text nodes only, so no content of an event can become markup;
// the Content-Security-Policy (Trusted Types) blocks every other way.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an HTML element. `attributes`: `on…` functions become listeners, `css` sets styles, false and
 * null are omitted. Children: nodes, text, arrays, null.
 */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** Create an SVG element. */
export function svg(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace an element's children. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [property, each] of Object.entries(value)) element.style.setProperty(property, each);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}
