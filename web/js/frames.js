// When the frames happened that a slot shows. A sync id is a time in 1/65536 ms since 1970, the same on all nodes and for
// all viewers; it does not fit a JavaScript number, so it is a BigInt here and a decimal string in the API's JSON.

const PER_SECOND = 65_536_000n;
const KEPT = 8; // bindings of a slot: more than change while a frame waits to be shown
const SETTLED_S = 60; // after so long nothing of the binding before waits any more
const HOLD_MS = 3000;
const MOST_TOLERANCE = (16n * PER_SECOND) / 1000n;

/** The signed distance of two RTP timestamps, which wrap around at 32 bits (RFC 3550). */
export const ticksBetween = (from, to) => (to - from) | 0;

const line = (data) => ({
  at: data.rtp_timestamp,
  syncId: data.sync_id === null || data.sync_id === undefined ? null : BigInt(data.sync_id),
  hz: data.clock_hz,
});

/** RTP timestamps of one slot to sync ids. Feed it `slot.bound` and `slot.timeline`. */
export class FrameClock {
  constructor() {
    this.bindings = [];
  }

  /** From this RTP timestamp on the slot shows something else. */
  bound(data) {
    if (data.rtp_timestamp === null || data.rtp_timestamp === undefined) return;
    this.bindings.push({ from: data.rtp_timestamp, ...line(data) });
    if (this.bindings.length > KEPT) this.bindings.shift();
  }

  /** What the slot shows now, placed anew. */
  timeline(data) {
    const settled = SETTLED_S * data.clock_hz;
    if (!this.bindings.length) this.bindings.push({ from: (data.rtp_timestamp - settled) >>> 0 });
    const current = this.bindings.findLast((each) => ticksBetween(each.from, data.rtp_timestamp) >= 0) ?? this.bindings[0];
    Object.assign(current, line(data));
    if (current === this.bindings.at(-1) && ticksBetween(current.from, data.rtp_timestamp) > settled) {
      current.from = (data.rtp_timestamp - settled) >>> 0; // distances stay far below half the range
      this.bindings = [current];
    }
  }

  /** The sync id of the frame with this RTP timestamp (`metadata.rtpTimestamp` of requestVideoFrameCallback); null when
   * it is not known. */
  syncIdOf(rtpTimestamp) {
    if (rtpTimestamp === undefined) return null;
    const found = this.bindings.findLast((each) => ticksBetween(each.from, rtpTimestamp) >= 0);
    if (!found || found.syncId === null || found.syncId === undefined) return null;
    return found.syncId + (BigInt(ticksBetween(found.at, rtpTimestamp)) * PER_SECOND) / BigInt(found.hz);
  }
}

/** Calls `onFrame(metadata)` for every frame that a video element shows, until it is called itself. */
export function watchFrames(video, onFrame) {
  let watching = true;
  const next = () =>
    video.requestVideoFrameCallback?.((_, metadata) => {
      if (!watching) return;
      onFrame(metadata);
      next();
    });
  next();
  return () => (watching = false);
}

/** What a slot shows: the newest frame's sync id, and how far the one before was. */
export class Shown {
  constructor() {
    this.syncId = null;
    this.step = 0n;
  }

  frame(syncId) {
    if (syncId === null) return;
    if (this.syncId !== null && syncId > this.syncId) this.step = syncId - this.syncId;
    this.syncId = syncId;
  }

  /** Whether the frame of `at` is shown, or one after it. Half a frame is forgiven: two nodes' lines are not one. */
  reached(at) {
    if (this.syncId === null) return false;
    const half = this.step / 2n;
    return this.syncId + (half < MOST_TOLERANCE ? half : MOST_TOLERANCE) >= at;
  }
}

/** Holds events back until the frame that they belong to is shown, for `limitMs` at most. */
export class HeldEvents {
  /** `slotsFor(event)` returns the `Shown` of the slots of which one has to reach the event's frame; none: at once. */
  constructor(slotsFor, release, limitMs = HOLD_MS) {
    this.slotsFor = slotsFor;
    this.release = release;
    this.limitMs = limitMs;
    this.waiting = [];
  }

  /** Take an event whose `data.at` is the sync id of a frame. */
  add(event) {
    const at = BigInt(event.data.at);
    if (this.isDue(event, at)) {
      this.release(event);
      return;
    }
    const entry = { event, at };
    entry.timer = setTimeout(() => this.let(entry), this.limitMs);
    this.waiting.push(entry);
  }

  /** A frame was shown. */
  look() {
    for (const entry of this.waiting.filter(({ event, at }) => this.isDue(event, at))) this.let(entry);
  }

  isDue(event, at) {
    const slots = this.slotsFor(event);
    return !slots.length || slots.some((shown) => shown.reached(at));
  }

  let(entry) {
    clearTimeout(entry.timer);
    const place = this.waiting.indexOf(entry);
    if (place < 0) return;
    this.waiting.splice(place, 1);
    this.release(entry.event);
  }

  /** Let all go, as when the session ends. */
  flush() {
    for (const entry of [...this.waiting]) this.let(entry);
  }
}
