// What WHIP and WHEP share: the offer, the resource, trickle-free ICE restart by PATCH, and coming back by itself.

import { Problem, pause } from './api.js';

const RESTART_AFTER_MS = 2000;
const GATHERING_LIMIT_MS = 1000;

/** One WebRTC connection to the relay. Subclasses set up the peer connection in `prepare(pc)`. */
export class Session extends EventTarget {
  constructor(api, endpoint) {
    super();
    this.api = api;
    this.endpoint = endpoint;
    this.pc = null;
    this.resource = null;
    this.etag = null;
    this.closed = false;
    this.state = 'idle';
  }

  /** The session's id: the last segment of its resource. */
  get id() {
    return this.resource ? decodeURIComponent(this.resource.pathname.split('/').pop()) : null;
  }

  setState(state, detail) {
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, reason: detail } }));
  }

  async start() {
    this.setState('connecting');
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.pc = pc;
    pc.addEventListener('connectionstatechange', () => this.pc === pc && this.onConnection());
    await this.prepare(pc);
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc);
    const response = await this.api.send('POST', this.endpoint, {
      body: pc.localDescription.sdp,
      headers: { 'Content-Type': 'application/sdp', Accept: 'application/sdp' },
    });
    this.resource = new URL(response.headers.get('Location'), response.url);
    this.etag = response.headers.get('ETag');
    await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    this.dispatchEvent(new Event('opened'));
  }

  onConnection() {
    const { connectionState } = this.pc;
    if (connectionState === 'connected') {
      clearTimeout(this.restartTimer);
      this.setState('live');
    } else if (connectionState === 'disconnected') {
      this.setState('unstable');
      clearTimeout(this.restartTimer);
      this.restartTimer = setTimeout(() => this.recover(), RESTART_AFTER_MS);
    } else if (connectionState === 'failed') {
      this.recover();
    }
  }

  /** Try an ICE restart; when the relay no longer knows the session, make a new one. */
  async recover() {
    clearTimeout(this.restartTimer);
    if (this.closed || this.recovering) return;
    this.recovering = true;
    this.setState('recovering');
    for (let delay = 500; !this.closed; delay = Math.min(delay * 2, 8000)) {
      try {
        if (this.resource && this.pc.connectionState !== 'closed' && (await this.restartIce())) break;
        this.pc.close();
        this.resource = null;
        await this.start();
        break;
      } catch (error) {
        if (error instanceof Problem && [401, 403].includes(error.status)) {
          this.setState('refused', error.message);
          break;
        }
        await pause((error.retryAfter ?? 0) * 1000 || delay);
      }
    }
    this.recovering = false;
  }

  /** Restart ICE (RFC 9725 4.4.2). Returns false when the session is gone. */
  async restartIce() {
    const { pc } = this;
    await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }));
    await gathered(pc);
    let response;
    try {
      response = await this.api.send('PATCH', this.resource, {
        body: fragmentOf(pc.localDescription.sdp),
        headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': this.etag ?? '*' },
      });
    } catch (error) {
      if (error instanceof Problem && [404, 412].includes(error.status)) return false;
      throw error;
    }
    this.etag = response.headers.get('ETag');
    const sdp = withCredentials(pc.remoteDescription.sdp, await response.text());
    await pc.setRemoteDescription({ type: 'answer', sdp });
    return true;
  }

  async stop() {
    this.closed = true;
    clearTimeout(this.restartTimer);
    this.pc?.close();
    this.setState('closed');
    if (this.resource) await this.api.send('DELETE', this.resource, { keepalive: true }).catch(() => {});
    this.resource = null;
  }
}

/** Wait until the host candidates are known, so that one offer carries them all. */
function gathered(pc) {
  if (pc.iceGatheringState === 'complete') return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING_LIMIT_MS);
    pc.addEventListener('icegatheringstatechange', () => {
      if (pc.iceGatheringState !== 'complete') return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/** The SDP fragment (RFC 8840) with the new credentials and candidates of an offer. */
function fragmentOf(sdp) {
  const lines = sdp.split(/\r?\n/);
  const first = (prefix) => lines.find((line) => line.startsWith(prefix));
  const media = first('m=');
  const candidates = lines.filter((line, index) => line.startsWith('a=candidate:') && lines.indexOf(line) === index);
  return [first('a=ice-ufrag:'), first('a=ice-pwd:'), media, first('a=mid:'), ...candidates, 'a=end-of-candidates', '']
    .join('\r\n');
}

/** The old answer with the credentials and candidates of the fragment that answers a restart. */
function withCredentials(sdp, fragment) {
  const value = (name) => new RegExp(`^a=${name}:(.*)$`, 'm').exec(fragment)?.[1].trim();
  const candidates = fragment.split(/\r?\n/).filter((line) => line.startsWith('a=candidate:'));
  let placed = false;
  return sdp
    .replace(/^a=ice-ufrag:.*$/gm, `a=ice-ufrag:${value('ice-ufrag')}`)
    .replace(/^a=ice-pwd:.*$/gm, `a=ice-pwd:${value('ice-pwd')}`)
    .split(/\r?\n/)
    .flatMap((line) => {
      if (!line.startsWith('a=candidate:') || !candidates.length) return [line];
      if (placed) return [];
      placed = true;
      return candidates;
    })
    .join('\r\n');
}

/** Differences per second between two getStats() snapshots of one counter, keyed by stat id. */
export class Rates {
  constructor() {
    this.previous = new Map();
  }

  /** Return the change per second of `value` since the last call for `key`, 0 the first time. */
  of(key, value, timestampMs) {
    const before = this.previous.get(key);
    this.previous.set(key, { value, timestampMs });
    if (!before || timestampMs <= before.timestampMs) return 0;
    return ((value - before.value) * 1000) / (timestampMs - before.timestampMs);
  }
}
