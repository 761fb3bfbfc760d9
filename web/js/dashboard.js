// The operator's view: rooms, sessions, packets, loss and CPU, once a second.

import { Api, fragmentParameters } from './api.js';
import { bitrate, byId, el, notice, percent, showState } from './dom.js';
import { Plot } from './plot.js';

const INTERVAL_MS = 1000;
const SESSION_ROWS = 200;

const { token } = fragmentParameters();

function table(root, columns, rows) {
  const head = el('tr', {}, ...columns.map(([title, , number]) => el('th', number ? { class: 'number' } : {}, title)));
  const body = rows.map((row) => el('tr', {}, ...columns.map(([, cell, number]) => el('td', number ? { class: 'number' } : {}, String(cell(row) ?? '–')))));
  root.replaceChildren(el('thead', {}, head), el('tbody', {}, ...body));
}

const NODE_COLUMNS = [
  ['node', (n) => n.id],
  ['region', (n) => n.region || '–'],
  ['plane', (n) => n.plane],
  ['version', (n) => n.version],
  ['sessions', (n) => `${n.sessions} / ${n.max_sessions}`, true],
  ['out', (n) => bitrate(n.bitrate_out_bps), true],
  ['CPU', (n) => `${n.cpu_percent.toFixed(0)} %`, true],
  ['memory', (n) => `${(n.memory_bytes / 2 ** 20).toFixed(0)} MiB`, true],
  ['state', (n) => (n.draining ? 'draining' : 'serving')],
];

const ROOM_COLUMNS = [
  ['room', (r) => r.id],
  ['on air', (r) => r.on_air.join(', ') || 'nobody'],
  ['participants', (r) => r.participants, true],
  ['seats', (r) => r.max_seats, true],
  ['stage', (r) => r.stage_policy],
  ['traffic', (r) => r.traffic],
  ['codecs', (r) => r.codecs.join(', ')],
];

const SESSION_COLUMNS = [
  ['room', (s) => s.room],
  ['identity', (s) => s.identity],
  ['kind', (s) => s.kind],
  ['state', (s) => s.state],
  ['in', (s) => bitrate(s.bitrate_in_bps), true],
  ['out', (s) => bitrate(s.bitrate_out_bps), true],
  ['loss', (s) => percent(s.loss), true],
  ['round trip', (s) => (s.rtt_ms === null ? '–' : `${s.rtt_ms.toFixed(0)} ms`), true],
  ['estimate', (s) => (s.estimate_bps ? bitrate(s.estimate_bps) : '–'), true],
  ['shows', (s) => [...s.publications.map((p) => `${p.kind} ${p.codec}`), ...s.slots.filter((slot) => slot.publication).map((slot) => `${slot.identity}/${slot.layer || slot.kind}`)].join(' ')],
];

class Dashboard {
  constructor(api) {
    this.api = api;
    const plots = byId('plots');
    this.packets = new Plot(plots, 'Packets per second', { names: ['in', 'out'] });
    this.bits = new Plot(plots, 'Bitrate', { names: ['in', 'out'], format: bitrate });
    this.cpu = new Plot(plots, 'CPU of the node', { format: (value) => `${value.toFixed(0)} %` });
    this.loss = new Plot(plots, 'Worst loss', { format: percent });
    this.sessionPlot = new Plot(plots, 'Sessions', { names: ['hosts', 'viewers'] });
    this.roundTrip = new Plot(plots, 'Worst round trip', { format: (value) => `${value.toFixed(0)} ms` });
    this.counts = null;
  }

  async refresh() {
    const [{ nodes }, { rooms }] = await Promise.all([this.api.get('/v1/nodes'), this.api.get('/v1/rooms')]);
    const perRoom = await Promise.all(rooms.map((room) => this.api.get(`/v1/rooms/${encodeURIComponent(room.id)}/sessions`)));
    const sessions = perRoom.flatMap((answer) => answer.sessions);
    table(byId('nodes'), NODE_COLUMNS, nodes);
    table(byId('rooms'), ROOM_COLUMNS, rooms);
    table(byId('sessions'), SESSION_COLUMNS, sessions.slice(0, SESSION_ROWS));
    this.plot(nodes, sessions);
  }

  plot(nodes, sessions) {
    const sum = (rows, value) => rows.reduce((total, row) => total + value(row), 0);
    const worst = (value) => sessions.reduce((most, session) => Math.max(most, value(session) ?? 0), 0);
    const now = performance.now() / 1000;
    const counts = { time: now, in: sum(nodes, (n) => n.packets_in), out: sum(nodes, (n) => n.packets_out) };
    if (this.counts) {
      const seconds = now - this.counts.time;
      this.packets.add(Math.max(0, counts.in - this.counts.in) / seconds, Math.max(0, counts.out - this.counts.out) / seconds);
    }
    this.counts = counts;
    this.bits.add(sum(sessions, (s) => s.bitrate_in_bps), sum(sessions, (s) => s.bitrate_out_bps));
    this.cpu.add(nodes.reduce((most, node) => Math.max(most, node.cpu_percent), 0));
    this.loss.add(worst((session) => session.loss));
    this.sessionPlot.add(sessions.filter((s) => s.kind === 'publisher').length, sessions.filter((s) => s.kind === 'viewer').length);
    this.roundTrip.add(worst((session) => session.rtt_ms));
  }
}

async function run() {
  const dashboard = new Dashboard(new Api(token));
  window.costream = dashboard;
  for (;;) {
    try {
      await dashboard.refresh();
      showState(byId('state'), 'live');
      notice(null);
    } catch (error) {
      showState(byId('state'), 'lost');
      notice(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
  }
}

if (token) run();
else notice('The dashboard needs a token in its address: #token=… — make one with: costream token --room "*" --identity ops --role service');
