/** The stack of a model as it is: the commons below, one engram upon the other, and what each reads. */

import { html } from "../vendor/preact.js";
import { to } from "../routes.js";
import { counted } from "../words.js";

/** Where names end, slabs end at most, and all of it ends: on wide screens, and on narrow ones. */
const WIDE = { names: 168, rail: 560, width: 720 };
const NARROW = { names: 112, rail: 296, width: 380 };
const COMMONS = 46;
const narrow = matchMedia("(max-width: 44rem)");

/** @typedef {{ name: string, classes: string[], units: number, reads: Record<string, number> | null }} Slab */

/** The units that each task owns, all layers together. @param {{ owned: Record<string, number> }[]} capacity */
export function ownedUnits(capacity) {
  /** @type {Record<string, number>} */
  const found = {};
  for (const layer of capacity) {
    for (const [task, units] of Object.entries(layer.owned)) found[task] = (found[task] ?? 0) + units;
  }
  return found;
}

/** How many units of each owner a task reads, all layers together. @param {Record<string, Record<string, number>> | null | undefined} reads */
export function readUnits(reads) {
  if (!reads) return null;
  return Object.fromEntries(
    Object.entries(reads).map(([owner, layers]) => [
      owner,
      Object.values(layers).reduce((sum, units) => sum + units, 0),
    ]),
  );
}

/** What the arcs say, for those who do not see them. @param {Slab} slab */
function readsOf(slab) {
  const earlier = Object.entries(slab.reads ?? {}).filter(([, units]) => units > 0);
  if (slab.reads === null) return "";
  return earlier.length === 0
    ? "; reads no earlier engram"
    : `; reads ${earlier.map(([owner, units]) => `${counted(units, "unit")} of ${owner}`).join(", ")}`;
}

/** @param {{ model: string, slabs: Slab[], commons: string, selected?: string | null }} given */
export function Stack({ model, slabs, commons, selected }) {
  const { names, rail, width: whole } = narrow.matches ? NARROW : WIDE;
  const pitch = slabs.length > 40 ? 16 : slabs.length > 16 ? 24 : 38;
  const thick = pitch - (pitch > 30 ? 10 : 5);
  const height = slabs.length * pitch + COMMONS + 26;
  const most = Math.max(...slabs.map((slab) => slab.units), 1);
  const y = (/** @type {number} */ index) => height - COMMONS - 16 - (index + 1) * pitch;
  const middle = (/** @type {number} */ index) => y(index) + thick / 2;
  const place = new Map(slabs.map((slab, index) => [slab.name, index]));
  const arcs = slabs.flatMap((slab, index) =>
    Object.entries(slab.reads ?? {})
      .filter(([owner, units]) => units > 0 && place.has(owner) && place.get(owner) !== index)
      .map(([owner, units]) => ({
        from: index,
        to: place.get(owner) ?? 0,
        units,
        lit: selected === slab.name || selected === owner,
      })),
  );
  const heaviest = Math.max(...arcs.map((arc) => arc.units), 1);
  return html`
    <figure class="stack">
      <svg viewBox=${`0 0 ${whole} ${height}`} aria-label=${`The stack: commons and ${counted(slabs.length, "engram")}`}
        role="group">
        <rect class="commons" x=${names} y=${height - COMMONS - 8} width=${rail - names} height=${COMMONS} rx="5" />
        <text class="stack-name" x=${names - 14} y=${height - COMMONS / 2 - 4} text-anchor="end">commons</text>
        <text class="commons-text" x=${names + 14} y=${height - COMMONS / 2 - 4}>
          ${short(commons, Math.floor((rail - names) / 7))}</text>
        ${slabs.length > 0 && html`<line class="rail" x1=${rail + 14} x2=${rail + 14} y1=${middle(slabs.length - 1)}
          y2=${height - COMMONS / 2 - 8} />`}
        ${arcs.map((arc) => {
          const bulge = rail + 14 + Math.min(24 + (arc.from - arc.to) * 18, whole - rail - 22) * 1.2;
          return html`<path class=${`arc ${selected ? (arc.lit ? "lit" : "dim") : ""}`}
            stroke-width=${1 + 3 * (arc.units / heaviest)}
            d=${`M ${rail + 14} ${middle(arc.from)} C ${bulge} ${middle(arc.from)}, ${bulge} ${middle(arc.to)}, ${rail + 14} ${middle(arc.to)}`} />`;
        })}
        ${slabs.map((slab, index) => {
          const width = Math.max(26, (slab.units / most) * (rail - names));
          const tint = 40 + 60 * ((index + 1) / slabs.length);
          return html`
            <a href=${to("models", model, "tasks", slab.name)} class=${`slab ${selected === slab.name ? "chosen" : ""}`}
              aria-label=${`Engram ${slab.name}: ${slab.classes.join(", ")}; ${counted(slab.units, "unit")}${readsOf(slab)}`}>
              <rect class="slab-hit" x="0" y=${y(index) - 2} width=${rail + 24} height=${thick + 4} />
              <text class="stack-name" x=${names - 14} y=${middle(index) + 4} text-anchor="end">
                ${short(slab.name, Math.floor(names / 8))}</text>
              <rect class="slab-body" x=${names} y=${y(index)} width=${width} height=${thick} rx="4"
                style=${{ "--tint": `${tint}%` }} />
              <line class="leader" x1=${names + width} x2=${rail + 14} y1=${middle(index)} y2=${middle(index)} />
              ${thick > 20 && !narrow.matches && html`<text class="slab-text" x=${names + width + 10} y=${middle(index) + 4}>
                ${width < 210 ? short(slab.classes.join(" · "), Math.floor((rail - names - width) / 7)) : ""}</text>`}
              ${thick > 20 && width >= 210 && html`<text class="slab-inner" x=${names + 12} y=${middle(index) + 4}>
                ${short(slab.classes.join(" · "), Math.floor(width / 8))}</text>`}
              <circle class="joint" cx=${rail + 14} cy=${middle(index)} r="3.5" />
            </a>
          `;
        })}
      </svg>
    </figure>
  `;
}

/** @param {string} text @param {number} length */
function short(text, length) {
  return text.length <= length ? text : length < 3 ? "" : `${text.slice(0, length - 1)}…`;
}
