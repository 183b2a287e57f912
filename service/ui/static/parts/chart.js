/** Curves over a job's or a monitor's time, drawn as SVG. */

import { html } from "../vendor/preact.js";

/** Of a chart that stands beside another, and of one alone. */
const WIDTHS = { half: 640, whole: 1120 };
const HEIGHT = 200;
const EDGE = { left: 44, right: 12, top: 12, bottom: 26 };

/** @typedef {{ name: string, kind: string, points: [number, number][] }} Series */

/** Round ends of an axis that hold all values. @param {number[]} values @param {[number, number] | undefined} given */
function ends(values, given) {
  if (given) return given;
  const top = Math.max(...values, 1e-9);
  const unit = 10 ** Math.floor(Math.log10(top));
  return /** @type {[number, number]} */ ([0, Math.ceil(top / unit) * unit]);
}

/**
 * Curves of one quantity; at `cut` something begins anew.
 *
 * @param {{ series: Series[], label: string, across: string, begin?: string, range?: [number, number], format?: (value: number) => string, level?: number, cut?: number, wide?: boolean }} given
 */
export function Chart({
  series,
  label,
  across,
  begin,
  range,
  format = (value) => String(Number(value.toPrecision(2))),
  level,
  cut,
  wide = false,
}) {
  const width = wide ? WIDTHS.whole : WIDTHS.half;
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return html`<p class="chart-empty">${label}: nothing measured yet.</p>`;
  const [low, high] = ends(
    points.map(([, y]) => y),
    range,
  );
  const last = Math.max(...points.map(([x]) => x), 1);
  const first = Math.min(...points.map(([x]) => x), last - 1e-9);
  const x = (/** @type {number} */ at) =>
    EDGE.left + ((at - first) / (last - first || 1)) * (width - EDGE.left - EDGE.right);
  const y = (/** @type {number} */ at) =>
    HEIGHT - EDGE.bottom - ((at - low) / (high - low || 1)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const marks = [0, 0.5, 1].map((share) => low + share * (high - low));
  const newest = series
    .filter((one) => one.points.length > 0)
    .map((one) => `${one.name} ${format(one.points[one.points.length - 1][1])}`)
    .join(", ");
  return html`
    <figure class="chart">
      <figcaption>
        <strong>${label}</strong>
        ${series.map((one) => html`<span class=${`key ${one.kind}`}>${one.name}</span>`)}
      </figcaption>
      <svg viewBox=${`0 0 ${width} ${HEIGHT}`} role="img" aria-label=${`${label}: ${newest} now`}>
        ${marks.map(
          (mark) => html`
          <line class="grid" x1=${EDGE.left} x2=${width - EDGE.right} y1=${y(mark)} y2=${y(mark)} />
          <text class="tick" x=${EDGE.left - 8} y=${y(mark) + 4} text-anchor="end">${format(mark)}</text>
        `,
        )}
        ${level !== undefined && html`<line class="level" x1=${EDGE.left} x2=${width - EDGE.right} y1=${y(level)}
          y2=${y(level)} />`}
        ${cut !== undefined && cut > first && cut < last && html`<line class="cut" x1=${x(cut)} x2=${x(cut)}
          y1=${EDGE.top} y2=${HEIGHT - EDGE.bottom} />`}
        ${begin && html`<text class="tick" x=${EDGE.left} y=${HEIGHT - 6}>${begin}</text>`}
        <text class="tick" x=${width - EDGE.right} y=${HEIGHT - 6} text-anchor="end">${across}</text>
        ${series.map(
          (one) => html`
          <polyline class=${`curve ${one.kind}`}
            points=${one.points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ")} />
          ${
            one.points.length > 0 &&
            html`<circle class=${`dot ${one.kind}`} r="3.5"
            cx=${x(one.points[one.points.length - 1][0])} cy=${y(one.points[one.points.length - 1][1])} />`
          }
        `,
        )}
      </svg>
    </figure>
  `;
}
