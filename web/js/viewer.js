// WHEP: a number of slots into which the relay plays whoever is on air. Slots are re-bound without renegotiation, so
// the elements made here live as long as the session.

import { pause } from './api.js';
import { FrameClock, HeldEvents, Shown } from './frames.js';
import { Rates, Session } from './session.js';

export class Viewer extends Session {
  /** `delayMs` of playout leaves events the time to arrive before the frames that they belong to. With `program` the
   * slots play the mixed picture and sound of the stage; with `oneSound` one plays everybody else's sound in one. */
  constructor(api, room, { videoSlots = 4, audioSlots = 4, delayMs = 0, program = false, oneSound = false } = {}) {
    const wishes = [program && 'play=program', oneSound && 'sound=mix'].filter(Boolean).join('&');
    super(api, `/whep/${encodeURIComponent(room)}${wishes && `?${wishes}`}`);
    this.videoSlots = videoSlots;
    this.audioSlots = audioSlots;
    this.delayMs = delayMs;
    this.negotiations = 0;
    this.slots = [];
    this.tracks = [];
    this.rates = new Rates();
    this.clocks = new Map();
    this.shown = new Map();
    this.places = false;
    this.held = new HeldEvents(
      (event) => this.slotsFor(event),
      (event) => this.dispatchEvent(new CustomEvent('event', { detail: event })),
    );
  }

  async prepare(pc) {
    this.negotiations += 1;
    const tracks = [];
    const kinds = [...Array(this.videoSlots).fill('video'), ...Array(this.audioSlots).fill('audio')];
    for (const kind of kinds) {
      const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
      transceiver.setCodecPreferences(RTCRtpReceiver.getCapabilities(kind).codecs.filter(isForwarded));
      if (this.delayMs) transceiver.receiver.jitterBufferTarget = this.delayMs;
      tracks.push(transceiver.receiver.track);
    }
    return tracks;
  }

  adopted(tracks) {
    this.tracks = tracks;
    this.clocks.clear();
    this.shown.clear();
    this.dispatchEvent(new CustomEvent('tracks', { detail: tracks }));
  }

  /** A connection can take over when it shows as many pictures, or one; and has sound where nobody shows one. */
  async playing(pc, all) {
    const pictures = this.slots.filter((slot) => slot.kind === 'video' && slot.publication && !slot.paused).length;
    const enough = all ? pictures : Math.min(pictures, 1);
    while (pc.connectionState !== 'closed') {
      const stats = [...(await pc.getStats()).values()].filter((stat) => stat.type === 'inbound-rtp');
      if (enough ? stats.filter((stat) => stat.framesDecoded > 0).length >= enough : stats.some((stat) => stat.packetsReceived > 0)) return;
      await pause(20);
    }
  }

  async heard(pc) {
    let packets = 0;
    for (const stat of (await pc.getStats()).values()) if (stat.type === 'inbound-rtp') packets += stat.packetsReceived;
    return packets;
  }

  get expects() {
    return this.slots.some((slot) => slot.publication && !slot.paused);
  }

  /** What the relay plays in which slot: the state whenever the stream begins, then every change. */
  onEvent(type, data) {
    if (type === 'slot.timeline') {
      this.clock(data.index).timeline(data);
      return;
    }
    if (type === 'slot.bound') this.clock(data.index).bound(data);
    if (/^(app\.|pk\.scored|pk\.ended)/.test(type) && data.at) this.held.add({ type, data });
    else this.dispatchEvent(new CustomEvent('event', { detail: { type, data } }));
    if (type === 'slot.bound') this.setSlots(this.slots.map((slot) => (slot.index === data.index ? { ...slot, ...data } : slot)));
  }

  async onEvents(state) {
    if (state !== 'live') return;
    const { id } = this;
    const response = await this.ask('GET', '/slots').catch(() => null); // the next 'live' reads again
    if (response && id === this.id) this.setSlots((await response.json()).slots);
  }

  setSlots(slots) {
    this.slots = slots;
    this.dispatchEvent(new CustomEvent('slots', { detail: slots }));
  }

  clock(index) {
    if (!this.clocks.has(index)) this.clocks.set(index, new FrameClock());
    return this.clocks.get(index);
  }

  /** A slot's element shows a frame (`metadata` of requestVideoFrameCallback): what waited for it is let go. */
  frameShown(index, metadata) {
    if (!this.shown.has(index)) this.shown.set(index, new Shown());
    const syncId = this.clock(index).syncIdOf(metadata.rtpTimestamp);
    this.shown.get(index).frame(syncId);
    this.places ||= syncId !== null;
    this.dispatchEvent(new CustomEvent('frame', { detail: { index, syncId, metadata } }));
    this.held.look();
  }

  /** The sync id of the frame that a slot shows now, as the API takes it; of the first slot that shows one when none is
   * named. Null when it is not known. */
  syncIdNow(index = this.playingSlots().find((each) => this.shown.get(each)?.syncId)) {
    return this.shown.get(index)?.syncId?.toString() ?? null;
  }

  playingSlots() {
    return this.slots.filter((slot) => slot.kind === 'video' && slot.publication && !slot.paused).map((slot) => slot.index);
  }

  /** The slots of which one has to show an event's frame: that of the publication it names, else any. */
  slotsFor({ data }) {
    const named = this.slots.find((slot) => slot.publication && slot.publication === data.data?.publication);
    const indexes = named ? [named.index] : this.playingSlots();
    const placed = indexes.map((index) => this.shown.get(index)).filter((shown) => shown?.syncId);
    // After a move to another node the frames are not placed yet, but will be; a browser that cannot place them never will.
    return placed.length || !this.places ? placed : indexes.map(() => new Shown());
  }

  /** Play so many milliseconds later from now on; browsers get there slowly. */
  setDelay(delayMs) {
    this.delayMs = delayMs;
    for (const { receiver } of this.pc?.getTransceivers() ?? []) receiver.jitterBufferTarget = delayMs;
  }

  /** Re-bind, pause or cap a slot. */
  async change(index, change) {
    const options = { body: JSON.stringify(change), headers: { 'Content-Type': 'application/json' } };
    return (await this.ask('PATCH', `/slots/${index}`, options)).json();
  }

  async stop() {
    this.held.flush();
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

/** What the relay forwards. Offering the rest too would make an offer of eight pictures larger than it takes. */
function isForwarded({ mimeType, sdpFmtpLine = '' }) {
  const name = mimeType.toLowerCase();
  if (name === 'video/h264') return /packetization-mode=1/.test(sdpFmtpLine);
  if (name === 'video/vp9') return !/profile-id=[1-9]/.test(sdpFmtpLine);
  if (name === 'video/av1') return !/profile=[1-9]/.test(sdpFmtpLine);
  return ['audio/opus', 'video/vp8', 'video/rtx'].includes(name);
}
