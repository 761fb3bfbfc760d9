// Plays a room's HLS: by hls.js where there are Media Source Extensions, else by the browser itself (Safari on iPhones).

import Hls from '../vendor/hls.light.min.js';
import { PictureClock } from './fmp4.js';

const RETRY_MS = 2000;

export class HlsPlayer extends EventTarget {
  // `api` is an Api; `video` the element to play in; `source` "program", a publication or an identity. Events:
  // state {state: 'waiting' | 'playing' | 'ended', reason}.
  constructor(api, room, video, source = 'program') {
    super();
    Object.assign(this, { api, room, video, source, hls: null, timer: 0, stopped: false });
    video.addEventListener('playing', () => this.say('playing'));
    video.addEventListener('ended', () => this.say('ended'));
  }

  // Asks where the stream is, and goes on asking until there is one.
  async start() {
    clearTimeout(this.timer);
    try {
      const { url } = await this.api.json('GET', `/v1/rooms/${encodeURIComponent(this.room)}/hls`);
      if (!this.stopped) this.play(url);
    } catch (error) {
      this.retry(error.message);
      if ([401, 403].includes(error.status)) this.stop();
    }
  }

  play(url) {
    this.hls?.destroy();
    this.hls = null;
    if (Hls.isSupported()) {
      // Workers would be made from blobs, which the pages' content security policy refuses; fMP4 needs next to no work.
      this.hls = new Hls({ enableWorker: false, lowLatencyMode: true, liveSyncMode: 'buffered', backBufferLength: 30 });
      this.clock = new PictureClock();
      this.hls.on(Hls.Events.INIT_PTS_FOUND, (_, data) => this.clock.began(data));
      this.hls.on(Hls.Events.FRAG_LOADED, (_, data) => this.clock.loaded(data));
      this.hls.on(Hls.Events.ERROR, (_, data) => this.onError(data));
      this.hls.loadSource(url);
      this.hls.attachMedia(this.video);
    } else {
      this.video.src = url;
      this.video.onerror = () => this.retry('the browser cannot play this');
    }
    this.video.play().catch(() => {});
  }

  onError({ fatal, type, details }) {
    if (!fatal) return;
    if (type === Hls.ErrorTypes.MEDIA_ERROR) this.hls.recoverMediaError();
    else this.retry(details);
  }

  retry(reason) {
    if (this.stopped) return;
    this.say('waiting', reason);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), RETRY_MS);
  }

  // Milliseconds since the epoch of what is shown now, as the stream says; null before it plays.
  get shownAt() {
    if (this.hls) return this.hls.playingDate?.getTime() ?? null;
    const began = this.video.getStartDate?.().getTime();
    return Number.isFinite(began) ? began + this.video.currentTime * 1000 : null;
  }

  // The same of a frame that has this place in the stream (`metadata.mediaTime` of requestVideoFrameCallback).
  momentOf(mediaTime) {
    const moment = this.clock?.momentOf(mediaTime) ?? null;
    if (moment !== null) return moment;
    const now = this.shownAt;
    return now === null ? null : now - (this.video.currentTime - mediaTime) * 1000;
  }

  // Seconds between what is shown and what the newest part has; null where the browser plays by itself.
  get latency() {
    return this.hls?.latency ?? null;
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.hls?.destroy();
    this.video.removeAttribute('src');
  }

  say(state, reason = '') {
    this.dispatchEvent(new CustomEvent('state', { detail: { state, reason } }));
  }
}
