// The upload, as its sender should see it.

import { bitrate, el, percent } from './dom.js';

const LIMITS = { none: 'nothing', cpu: 'this computer', bandwidth: 'the network', other: 'something else' };

/** Fill a table body with what Publisher.health() returned. */
export function showHealth(body, health) {
  const rows = health.layers.map((layer) => [
    layer.rid ? `layer ${layer.rid}` : 'video',
    layer.bps > 0 ? `${layer.width}×${layer.height} · ${Math.round(layer.fps)}/s · ${bitrate(layer.bps)}` : 'not sent',
  ]);
  rows.push(['sound', bitrate(health.audioBps)]);
  rows.push(['all', bitrate(health.totalBps)]);
  if (health.availableBps) rows.push(['network carries', bitrate(health.availableBps)]);
  rows.push(['round trip', health.roundTripMs === null ? '–' : `${health.roundTripMs.toFixed(0)} ms`]);
  rows.push(['loss', percent(health.loss)]);
  rows.push(['held back by', LIMITS[health.limit] ?? health.limit]);
  body.replaceChildren(...rows.map(([name, value]) => el('tr', {}, el('th', {}, name), el('td', { class: 'number' }, value))));
}
