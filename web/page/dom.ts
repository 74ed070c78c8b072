// Elements by id and by description, so that no text ever becomes markup on the way.

type Handlers = { [E in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[E]) => void };
type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;
type Child = Node | string | null | undefined | false;

/** The element of `index.html` with this id; a missing one is a defect of ours. */
export function byId<T extends Element>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) {
    throw new Error(`#${id}: expected a ${type.name}, found ${element?.constructor.name ?? "nothing"}`);
  }
  return element;
}

/** A new element. Attributes that are `false` or `undefined` are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Adds event handlers to an element. */
export function on<T extends HTMLElement>(element: T, handlers: Handlers): T {
  for (const [name, handler] of Object.entries(handlers)) {
    element.addEventListener(name, handler as EventListener);
  }
  return element;
}

/** A drawing of `index.html`'s sprite. Screen readers do not see it: the control around it says what it means. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button of a drawing only; `label` is its name for screen readers and its tooltip. */
export function iconButton(name: string, label: string, click: () => void): HTMLButtonElement {
  const button = h("button", { type: "button", class: "icon-button", "aria-label": label, title: label }, icon(name));
  return on(button, { click });
}

/** A button with words. */
export function button(label: string, kind: "primary" | "plain" | "danger", click: () => void): HTMLButtonElement {
  return on(h("button", { type: "button", class: `button ${kind}` }, label), { click });
}
