// WHEP: a number of slots into which the relay plays whoever is on air. Slots are re-bound without renegotiation, so
// the elements made here live as long as the session.

import { Rates, Session } from './session.js';

export class Viewer extends Session {
  constructor(api, room, { videoSlots = 4, audioSlots = 4 } = {}) {
    super(api, `/whep/${encodeURIComponent(room)}`);
    this.videoSlots = videoSlots;
    this.audioSlots = audioSlots;
    this.negotiations = 0;
    this.slots = [];
    this.tracks = [];
    this.rates = new Rates();
    this.addEventListener('opened', () => this.follow());
  }

  async prepare(pc) {
    this.negotiations += 1;
    this.tracks = [];
    const kinds = [...Array(this.videoSlots).fill('video'), ...Array(this.audioSlots).fill('audio')];
    for (const kind of kinds) {
      const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
      this.tracks.push(transceiver.receiver.track);
    }
    this.dispatchEvent(new CustomEvent('tracks', { detail: this.tracks }));
  }

  /** Follow what the relay plays in which slot. */
  follow() {
    this.unfollow?.();
    this.unfollow = this.api.events(`/v1/sessions/${encodeURIComponent(this.id)}/events`, (type, event) => {
      if (type === 'session.slots') this.slots = event.data.slots;
      else if (type === 'slot.bound') this.slots = this.slots.map((slot) => (slot.index === event.data.index ? { ...slot, ...event.data } : slot));
      else return;
      this.dispatchEvent(new CustomEvent('slots', { detail: this.slots }));
    });
  }

  /** Re-bind, pause or cap a slot. */
  async change(index, change) {
    return this.api.json('PATCH', `/v1/sessions/${encodeURIComponent(this.id)}/slots/${index}`, change);
  }

  async stop() {
    this.unfollow?.();
    await super.stop();
  }

  /** Frames per second, bitrate, freezes and loss per slot index. */
  async health() {
    const slots = new Map();
    if (!this.pc) return slots;
    const indexOf = new Map(this.pc.getTransceivers().map((t, index) => [t.mid, index]));
    for (const stat of (await this.pc.getStats()).values()) {
      if (stat.type !== 'inbound-rtp' || !indexOf.has(stat.mid)) continue;
      slots.set(indexOf.get(stat.mid), {
        kind: stat.kind,
        bps: this.rates.of(stat.id, stat.bytesReceived, stat.timestamp) * 8,
        lost: stat.packetsLost,
        received: stat.packetsReceived,
        fps: stat.framesPerSecond ?? 0,
        width: stat.frameWidth ?? 0,
        height: stat.frameHeight ?? 0,
        freezes: stat.freezeCount ?? 0,
        frozenSeconds: stat.totalFreezesDuration ?? 0,
      });
    }
    return slots;
  }
}
