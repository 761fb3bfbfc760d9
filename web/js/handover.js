// From the program by HLS, seconds behind, to the slots by WHEP without a gap: the slots are held as far behind, hidden and
// silent, until both show the same moment; then picture and sound change over, and the slots glide to life.

import { pause } from './api.js';
import { watchFrames } from './frames.js';

const MOST_DELAY_MS = 3900; // browsers hold 4 s at most
const USUAL_MS = 120; // from a host's camera to a slot that is not held
const LOOK_MS = 50;
const SAME_MS = 17; // half a frame: nobody sees it
const NEAR_MS = 50; // a frame and a half, for when that does not come about
const TRIM = 0.06; // of the program's speed: pitch is kept, and nobody notices
const CATCH_UP = 0.2; // while they are far apart, as when the program has stalled
const FAR_MS = 150;
const HURRY = 1.5;
const FADE_MS = 150;
const PATIENCE_MS = 10_000; // for the very moment; then for one nearby
const UNPLACED_MS = 20_000; // a browser that does not place frames changes over all the same
const LIMIT_MS = 60_000;
const GLIDE_MS_PER_S = 100; // as fast as browsers let go of what they hold

const SYNC_IDS_PER_MS = 65_536;

export class Handover extends EventTarget {
  /** `player` plays the program; `makeViewer(delayMs)` makes a Viewer whose tiles are in `over`, an element that covers the
   * program, and whose sounds are the children of `sounds`. `muted()` says whether sound is off.
   * Events: state {state: 'waiting' | 'connecting' | 'aligning' | 'live', …}. */
  constructor(player, makeViewer, { over, sounds, muted }) {
    super();
    Object.assign(this, { player, makeViewer, over, sounds, muted, viewer: null, slot: null, program: null, apart: null });
  }

  /** Resolves with {apart}: by how many ms the moments differed when it changed over; null when that is not known.
   * `serverNow` is the relay's clock now, in ms since the epoch. */
  async run(serverNow) {
    const since = performance.now();
    const serverAt = () => serverNow + performance.now() - since;
    this.over.classList.add('hidden-below');
    const unwatch = watchFrames(this.player.video, (metadata) => this.programShown(metadata));
    try {
      const delayMs = await this.nearEnough(serverAt);
      this.say('connecting', { delayMs });
      this.viewer = this.makeViewer(delayMs);
      this.viewer.addEventListener('frame', ({ detail }) => this.slotShown(detail));
      this.silence();
      await this.viewer.start();
      await this.aligned(since);
      await this.changeOver();
    } finally {
      unwatch();
      this.player.video.playbackRate = 1;
    }
    this.glide(); // goes on by itself
    return { apart: this.apart };
  }

  /** Wait until the program is no further behind than slots can be held; play it faster meanwhile. */
  async nearEnough(serverAt) {
    for (;;) {
      const shown = this.player.shownAt;
      const behind = shown === null ? 0 : serverAt() - shown - USUAL_MS;
      if (behind <= MOST_DELAY_MS) return Math.max(0, Math.round(behind));
      this.say('waiting', { behind });
      this.player.video.playbackRate = HURRY;
      await pause(LOOK_MS);
    }
  }

  programShown({ mediaTime, expectedDisplayTime }) {
    const moment = this.player.momentOf(mediaTime);
    this.program = moment === null ? null : { moment, at: expectedDisplayTime };
  }

  slotShown({ index, syncId, metadata }) {
    if (syncId === null || (this.slot && this.slot.index < index)) return;
    this.slot = { index, moment: Number(syncId) / SYNC_IDS_PER_MS, at: metadata.expectedDisplayTime };
  }

  /** How many ms later what the slots show happened than what the program shows; null while one is not placed. */
  ahead() {
    if (!this.slot || !this.program) return null;
    return this.slot.moment - this.program.moment - (this.slot.at - this.program.at);
  }

  /** Wait until the same moment is shown: the program plays a little faster or slower until it is. */
  async aligned(since) {
    this.say('aligning');
    let steady = 0;
    for (let passed = 0; passed < LIMIT_MS && steady < 3; passed = performance.now() - since) {
      await pause(LOOK_MS);
      const ahead = this.ahead();
      if (ahead === null) {
        if (passed > UNPLACED_MS) break;
        continue;
      }
      const most = Math.abs(ahead) > FAR_MS ? CATCH_UP : TRIM;
      this.player.video.playbackRate = 1 + Math.max(-most, Math.min(most, ahead / 1000));
      steady = Math.abs(ahead) <= (passed < PATIENCE_MS ? SAME_MS : NEAR_MS) ? steady + 1 : 0;
    }
    this.apart = this.ahead();
  }

  /** The slots come up over the program, which goes on below until they are all there is to see. */
  async changeOver() {
    const { video } = this.player;
    const loud = video.muted ? 0 : video.volume;
    this.over.classList.remove('hidden-below');
    const began = performance.now();
    for (let share = 0; share < 1; ) {
      share = Math.min(1, (performance.now() - began) / FADE_MS);
      this.over.style.opacity = String(Math.max(0.001, share));
      video.volume = loud * (1 - share);
      for (const audio of this.sounds.children) audio.volume = share;
      await new Promise(requestAnimationFrame);
    }
    this.changed = true;
    this.player.stop();
    this.say('live', { apart: this.apart });
  }

  silence() {
    const hush = () => {
      for (const audio of this.sounds.children) {
        audio.muted = this.muted();
        if (!this.changed) audio.volume = 0;
      }
    };
    this.viewer.addEventListener('tracks', hush);
    hush();
  }

  /** Come to life slowly enough that neither picture nor sound jumps. */
  async glide() {
    while (this.viewer.delayMs > 0 && !this.viewer.closed) {
      await pause(500);
      this.viewer.setDelay(Math.max(0, this.viewer.delayMs - GLIDE_MS_PER_S / 2));
    }
  }

  say(state, more = {}) {
    this.dispatchEvent(new CustomEvent('state', { detail: { state, ...more } }));
  }
}
