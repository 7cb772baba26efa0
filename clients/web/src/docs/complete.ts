/** Names, roles and levels that Swagger UI leaves out, for those who hear the page or use its keys. */

/** Attributes of parts, by selector. */
const ATTRIBUTES: readonly [selector: string, attributes: Readonly<Record<string, string>>][] = [
  [".information-container > section", { "aria-label": "About this API" }],
  [".schemes", { "aria-label": "Server and token" }],
  [".filter", { "aria-label": "Search" }],
  [".operation-filter-input", { "aria-label": "Search the endpoints", placeholder: "Search paths, names and texts" }],
  ["#servers", { "aria-label": "Server" }],
  [".body-param__text", { "aria-label": "Request body" }],
  [".examples-select-element", { "aria-label": "Example" }],
  [".modal-ux", { role: "dialog", "aria-modal": "true", "aria-label": "Tokens" }],
  [".close-modal", { "aria-label": "Close" }],
  // They scroll, so keys must reach them.
  ["pre.microlight, .highlight-code > pre, .curl, .table-container", { tabindex: "0" }],
];

/** Completes what is in an element, now and whenever it changes. */
export function complete(root: HTMLElement): void {
  let due = false;
  const later = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      completeNow(root);
    });
  };
  new MutationObserver(later).observe(root, { childList: true, subtree: true });
}

function completeNow(root: HTMLElement): void {
  for (const [selector, attributes] of ATTRIBUTES) {
    for (const one of root.querySelectorAll(selector)) {
      for (const [name, value] of Object.entries(attributes)) {
        if (one.getAttribute(name) !== value) one.setAttribute(name, value);
      }
    }
  }
  // Tags follow the title: they are the second level, and what is inside of operations the next ones.
  for (const one of root.querySelectorAll("h3, h4, h5, h6")) {
    if (one.closest(".renderedMarkdown")) continue;
    const level = Math.min(Number(one.tagName[1]) - 1, one.closest(".modal-ux") ? 3 : 6);
    one.setAttribute("aria-level", String(level));
  }
  // What a button says is what it is called.
  for (const one of root.querySelectorAll(".auth-btn-wrapper [aria-label]")) one.removeAttribute("aria-label");
  for (const one of root.querySelectorAll(".responses-table[role=region]")) {
    const operation = one.id.replace(/_responses$/, "").replaceAll("_", " ");
    one.setAttribute("aria-label", `Responses of ${operation}`);
  }
  for (const one of root.querySelectorAll<HTMLElement>("tr[data-param-name] :is(input, select, textarea)")) {
    const name = one.closest<HTMLElement>("tr")?.dataset["paramName"];
    if (name && !one.hasAttribute("aria-label")) one.setAttribute("aria-label", name);
  }
}
