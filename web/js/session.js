// What WHIP and WHEP share: the offer, the resource, trickle-free ICE restart by PATCH, coming back by itself, and moving to
// another node before the old connection is let go.

import { Problem, pause } from './api.js';

const RESTART_AFTER_MS = 2000;
const GATHERING_LIMIT_MS = 1000;
const TAKEOVER_LIMIT_MS = 5000;
const LINGER_MS = 1000; // as long as the relay hands on what comes on it
const LOOK_MS = 75;
const SILENCE_MS = 500; // ten pictures at 20 frames a second, 25 packets of sound, five reports of what arrived
const HINTED_SILENCE_MS = 150; // once the node's events have been cut
const ASK_MS = 500;
const MOST_ASKED = 3; // services, of those that may know a session

/** One WebRTC connection to the relay. Subclasses set up each peer connection in `prepare(pc)`, and may say in
 * `playing(pc)` when one can take over from the one before. */
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
    this.adopt(await this.connect());
  }

  /** Make a connection beside the present one. Returns what `adopt` takes. */
  async connect() {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    try {
      const prepared = await this.prepare(pc);
      await pc.setLocalDescription(await pc.createOffer());
      await gathered(pc);
      const response = await this.offer(pc.localDescription.sdp);
      const made = {
        pc,
        prepared,
        resource: new URL(response.headers.get('Location'), response.url),
        etag: response.headers.get('ETag'),
      };
      await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
      return made;
    } catch (error) {
      pc.close();
      throw error;
    }
  }

  /** Offer, at another node when the one that is asked is full or drains: it says where (a redirect would lose the token
   * on the way to another origin). */
  async offer(sdp) {
    const options = { body: sdp, headers: { 'Content-Type': 'application/sdp', Accept: 'application/sdp' }, again: true };
    try {
      return await this.api.send('POST', this.endpoint, options);
    } catch (error) {
      if (!error.elsewhere) throw error;
      return this.api.send('POST', new URL(`${this.endpoint}?via=redirect`, error.elsewhere), options);
    }
  }

  /** Ask for what belongs to this session: first where its offer was answered. */
  async ask(method, path, options) {
    return this.api.ask(method, `/v1/sessions/${encodeURIComponent(this.id)}${path}`, this.resource.origin, options);
  }

  /** Use a connection from now on; the one before ends. */
  adopt({ pc, prepared, resource, etag }) {
    const before = { pc: this.pc, resource: this.resource };
    Object.assign(this, { pc, resource, etag });
    pc.addEventListener('connectionstatechange', () => this.pc === pc && this.onConnection());
    this.adopted(prepared);
    this.hinted = false;
    this.guard(pc);
    this.follow();
    this.dispatchEvent(new Event('opened'));
    this.onConnection();
    clearTimeout(this.restartTimer);
    this.letGo?.();
    const letGo = () => {
      this.letGo = null;
      before.pc?.close();
      this.end(before.resource);
    };
    if (!this.lingers || before.pc?.connectionState !== 'connected') return letGo();
    this.letGo = letGo;
    setTimeout(() => this.letGo === letGo && letGo(), LINGER_MS);
  }

  /** For subclasses: whether the connection before is of use for another moment. */
  get lingers() {
    return false;
  }

  /** Tell the relay that a session is over; one that is lost already need not be waited for. */
  end(resource) {
    if (resource) this.api.send('DELETE', resource, { keepalive: true }).catch(() => {});
  }

  /** Follow the session's events. When its node drains go elsewhere; when the stream is cut look closely. */
  follow() {
    this.unfollow?.();
    const onEvent = (type, event) => {
      if (type === 'node.draining') this.migrate(type);
      if (type === 'node.lost') this.hinted = true;
      this.onEvent(type, event.data);
    };
    const onState = (state) => {
      this.hinted = state !== 'live';
      this.onEvents(state);
    };
    const path = `/v1/sessions/${encodeURIComponent(this.id)}/events`;
    this.unfollow = this.api.events(path, onEvent, onState, this.resource.origin);
  }

  /** For subclasses: an event of the session or its room. */
  onEvent() {}

  /** For subclasses: the stream of events is 'live', 'lost' or 'refused'. */
  onEvents() {}

  /** For subclasses: the connection for which `prepare` returned this is the one in use now. */
  adopted() {}

  /** For subclasses: resolves when a connection plays something, or `all` that the one it replaces does. */
  async playing() {}

  /** For subclasses: how many packets have come on a connection. */
  async heard() {
    return 0;
  }

  /** For subclasses: whether packets have to come now. */
  get expects() {
    return true;
  }

  /** Watch for silence. A node that dies says nothing, and ICE takes seconds to notice: when all packets stop at once, ask
   * whether the session is still there, and go elsewhere if nobody can say so. */
  async guard(pc) {
    let packets = 0;
    let since = 0;
    while (this.pc === pc && !this.closed) {
      await pause(LOOK_MS);
      const count = await this.heard(pc);
      const now = performance.now();
      if (count !== packets) [packets, since] = [count, now];
      if (!packets || !this.expects || now - since < (this.hinted ? HINTED_SILENCE_MS : SILENCE_MS) || this.migrating || this.recovering) continue;
      if (await this.isLost()) await this.migrate('silence');
      since = performance.now();
    }
  }

  /** Whether the session is gone, or the node that holds it: nobody who answers knows it. */
  async isLost() {
    const path = `/v1/sessions/${encodeURIComponent(this.id)}`;
    const bases = [...new Set([this.resource.origin, ...this.api.bases])].slice(0, MOST_ASKED);
    const signal = AbortSignal.timeout(ASK_MS);
    const asked = bases.map((base) => this.api.attempt('GET', new URL(path, base), { signal }).then(() => false, isUnknown));
    return (await Promise.all(asked)).every(Boolean);
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

  /** Go elsewhere: connect anew, and let go of the present connection only when the new one plays. */
  async migrate(reason) {
    if (this.closed || this.recovering || this.migrating) return;
    this.migrating = true;
    this.setState('moving', reason);
    let made = null;
    try {
      made = await this.connect();
      const all = reason !== 'silence'; // what no longer plays anyway need not be waited for
      await Promise.race([connected(made.pc).then(() => this.playing(made.pc, all)), pause(TAKEOVER_LIMIT_MS)]);
      if (made.pc.connectionState !== 'connected') throw new Error('the new connection did not come up');
      if (this.closed) throw new Error('stopped meanwhile');
      this.adopt(made);
    } catch {
      made?.pc.close();
      this.end(made?.resource);
    }
    this.migrating = false;
    // Still where it was: as long as media flows there is no harm, and else `recover` takes over.
    if (!this.closed && this.pc !== made?.pc) this.onConnection();
  }

  /** Try an ICE restart; when the relay no longer knows the session, make a new one. */
  async recover() {
    clearTimeout(this.restartTimer);
    if (this.closed || this.recovering) return;
    this.recovering = true;
    this.setState('recovering');
    for (let delay = 250; !this.closed; delay = Math.min(delay * 2, 8000)) {
      try {
        if (this.resource && this.pc.connectionState !== 'closed' && (await this.restartIce())) break;
        this.adopt(await this.connect());
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
      // Gone, or its node is: a new session is the way.
      if (!(error instanceof Problem) || [404, 412, 502, 503, 504].includes(error.status)) return false;
      throw error;
    }
    this.etag = response.headers.get('ETag');
    const sdp = withCredentials(pc.remoteDescription.sdp, await response.text());
    await pc.setRemoteDescription({ type: 'answer', sdp });
    return true;
  }

  async stop() {
    this.closed = true;
    this.unfollow?.();
    this.letGo?.();
    clearTimeout(this.restartTimer);
    this.pc?.close();
    this.setState('closed');
    if (this.resource) await this.api.send('DELETE', this.resource, { keepalive: true }).catch(() => {});
    this.resource = null;
  }
}

function isUnknown(error) {
  return !(error instanceof Problem) || error.status === 404 || error.status >= 500;
}

function connected(pc) {
  return new Promise((resolve) => {
    const look = () => pc.connectionState === 'connected' && resolve();
    pc.addEventListener('connectionstatechange', look);
    look();
  });
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
