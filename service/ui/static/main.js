/** The page: its frame, and which screen an address shows. */

import { html, render, useState } from "./vendor/preact.js";
import { KeyDialog } from "./parts/dialog.js";
import { asker, Needs, useMay } from "./parts/permission.js";
import { Empty, Title } from "./parts/view.js";
import { hasKey, keepKey, keyRequest, reachable } from "./service.js";
import { announcement, useValue } from "./state.js";
import { offers } from "./offers.js";
import { route, to } from "./routes.js";
import { applyTheme, nextTheme, theme } from "./theme.js";
import { Models } from "./screens/models.js";
import { Create } from "./screens/create.js";
import { ModelScreens } from "./screens/model.js";
import { Jobs } from "./screens/jobs.js";
import { JobScreen } from "./screens/job.js";
import { Backbones } from "./screens/backbones.js";
import { Keys } from "./screens/keys.js";
import { Audit } from "./screens/audit.js";

/** @typedef {import("./parts/permission.js").Scope} Scope */

/** The places of the page's own bar: address, name, the path that the service has to have for it, and the scope. @type {[string, string, string | null, Scope][]} */
const PLACES = [
  ["models", "Models", null, "predict"],
  ["jobs", "Jobs", null, "learn"],
  ["backbones", "Backbones", null, "predict"],
  ["keys", "Keys", "/v1/keys", "admin"],
  ["audit", "Audit", "/v1/audit", "admin"],
];

/** @param {{ parts: string[] }} given */
function Screen({ parts }) {
  const [place, ...rest] = parts.length === 0 ? ["models"] : parts;
  if (place === "models" && rest.length > 0) {
    return html`<${ModelScreens} key=${rest[0]} model=${rest[0]} parts=${rest.slice(1)} />`;
  }
  if (place === "jobs" && rest.length === 1) {
    return html`<${Needs} scope="learn" what="Following jobs"><${JobScreen} key=${rest[0]} id=${rest[0]} /><//>`;
  }
  if (rest.length === 0) {
    if (place === "models") return html`<${Models} />`;
    if (place === "new") return html`<${Needs} scope="admin" what="Making a model"><${Create} /><//>`;
    if (place === "jobs") return html`<${Needs} scope="learn" what="Reading jobs"><${Jobs} /><//>`;
    if (place === "backbones") return html`<${Backbones} />`;
    if (place === "keys") return html`<${Needs} scope="admin" what="Managing keys"><${Keys} /><//>`;
    if (place === "audit") return html`<${Needs} scope="admin" what="Reading who did what"><${Audit} /><//>`;
  }
  return html`
    <${Title} name="Not found" />
    <${Empty} title="There is no such screen"><p><a class="button" href=${to("models")}>To the models</a></p><//>
  `;
}

/** @param {{ here: string, place: string, name: string, scope: Scope }} given */
function Place({ here, place, name, scope }) {
  return useMay(scope) && html`<a href=${to(place)} aria-current=${here === place ? "page" : undefined}>${name}</a>`;
}

/** @param {{ parts: string[] }} given */
function Bar({ parts }) {
  const has = useValue(offers);
  const key = useValue(hasKey);
  const who = useValue(asker);
  const shown = useValue(theme);
  const here = parts[0] === "new" ? "models" : (parts[0] ?? "models");
  const ask = () => keyRequest.set({ why: "A key for this tab.", resolve: (given) => given && location.reload() });
  const forget = () => {
    keepKey(null);
    location.reload();
  };
  return html`
    <header class="bar">
      <a class="brand" href=${to("models")} aria-label="Engram, models">
        <svg viewBox="0 0 24 24" aria-hidden="true"><rect x="2" y="17" width="20" height="5" rx="1.5" />
          <rect x="2" y="9.5" width="14" height="5" rx="1.5" /><rect x="2" y="2" width="9" height="5" rx="1.5" /></svg>
        Engram
      </a>
      <nav aria-label="Main">
        ${PLACES.filter(([, , path]) => path === null || has.has(path)).map(
          ([place, name, , scope]) => html`<${Place} here=${here} place=${place} name=${name} scope=${scope} />`,
        )}
      </nav>
      <div class="bar-acts">
        ${key && who?.name && html`<span class="asker"
          title="The key of this tab, and its scope">${who.name} <small>${who.scope}</small></span>`}
        ${(key || who === null) && html`<button type="button" class="quiet"
          onClick=${key ? forget : ask}>${key ? "Forget key" : "Use a key"}</button>`}
        <button type="button" class="quiet" aria-label=${`Colours: ${shown}. Change`} title=${`Colours: ${shown}`}
          onClick=${nextTheme}>
          <span aria-hidden="true">${{ system: "◐", light: "○", dark: "●" }[shown]}</span>
        </button>
      </div>
    </header>
  `;
}

function Page() {
  const parts = useValue(route);
  const there = useValue(reachable);
  const said = useValue(announcement);
  const [main, setMain] = useState(/** @type {HTMLElement | null} */ (null));
  const skip = (/** @type {Event} */ event) => {
    event.preventDefault();
    main?.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <${Bar} parts=${parts} />
    <div class="away" role="status" aria-live="polite">
      ${!there && html`<p>The service does not answer. This page tries again, and goes on once it is back.</p>`}
    </div>
    <main id="main" tabindex="-1" ref=${setMain}><${Screen} parts=${parts} /></main>
    <div class="hidden" aria-live="polite" aria-atomic="true">${said}</div>
    <${KeyDialog} />
  `;
}

// What is dropped beside the places for it would take the page's place.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
applyTheme();
const place = document.getElementById("page");
if (place) render(html`<${Page} />`, place);
