// The REST API as the pages use it: a client that carries the token, problems (RFC 9457) as errors, and server-sent
// events over fetch, because EventSource cannot send an Authorization header.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.type = body.type || 'about:blank';
    this.elsewhere = body.elsewhere; // the base URL of a node that may take what this one refuses
    this.retryAfter = retryAfter;
  }
}

/** Room and token from the page's fragment (`#room=…&token=…`): fragments never reach a server's log. */
export function fragmentParameters() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** The claims inside a token, for display only; the relay alone decides what it allows. */
export function tokenClaims(token) {
  try {
    const part = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

const LEARN_INTERVAL_MS = 30_000;
const ANSWER_MS = 4000; // more than a service takes to refuse (`join.timeout_s`)

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    body = { title: response.statusText };
  }
  return new Problem(response.status, body, Number(response.headers.get('Retry-After')) || undefined);
}

/** Where the API is. A page begins with where it came from and learns of the cluster's other addresses, so that it goes
 * on when the one that served it is gone. */
export class Api {
  constructor(token, base = location.origin) {
    this.token = token;
    this.bases = [base]; // the one that answered last comes first
  }

  /** Learn the other addresses, now and from time to time. */
  async follow() {
    for (;;) {
      await this.learn().catch(() => {}); // with what is known so far it works, too
      await pause(LEARN_INTERVAL_MS);
    }
  }

  async learn() {
    const { bases } = await this.get('/v1/bases');
    this.bases = [...new Set([this.bases[0], location.origin, ...bases])];
  }

  /** Send a request and return the response. Throws Problem for any status outside 2xx.
   *
   * A path goes to the base that answered last, and to the next ones when nobody answers there; a POST only `again`, that
   * is when it may be made twice, and then also when a base is full or drains. */
  async send(method, path, { again = method !== 'POST', ...options } = {}) {
    if (path instanceof URL) return this.attempt(method, path, options);
    let failure;
    for (const base of [...this.bases]) {
      try {
        const response = await this.attempt(method, new URL(path, base), options);
        this.bases = [base, ...this.bases.filter((each) => each !== base)];
        return response;
      } catch (error) {
        failure = failure instanceof Problem ? failure : error;
        const refused = error instanceof Problem && !(method === 'POST' && [502, 503, 504].includes(error.status));
        if (refused || error.elsewhere || options.signal?.aborted || !again) throw error;
      }
    }
    throw failure;
  }

  /** The same for what not every base knows, a session: `first` is asked first, and the others when it does not know. */
  async ask(method, path, first, options = {}) {
    let failure;
    for (const base of new Set([first, ...this.bases])) {
      try {
        return await this.attempt(method, new URL(path, base), options);
      } catch (error) {
        if (options.signal?.aborted) throw error;
        if (error instanceof Problem && error.status !== 404 && error.status < 500) throw error;
        failure = failure instanceof Problem ? failure : error;
      }
    }
    throw failure;
  }

  /** One request. A server that does not begin to answer in time has not answered. */
  async attempt(method, url, { body, headers = {}, signal, keepalive } = {}) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new DOMException(`no answer from ${url.host}`, 'TimeoutError')), ANSWER_MS);
    try {
      const response = await fetch(url, {
        method,
        body,
        signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
        keepalive,
        headers: { Authorization: `Bearer ${this.token}`, ...headers },
      });
      if (!response.ok) throw await problemOf(response);
      return response;
    } finally {
      clearTimeout(timer);
    }
  }

  async json(method, path, value) {
    const options = value === undefined ? {} : { body: JSON.stringify(value), headers: { 'Content-Type': 'application/json' } };
    const response = await this.send(method, path, options);
    return response.status === 204 ? null : response.json();
  }

  get(path) {
    return this.json('GET', path);
  }

  /** Follow a stream of events; comes back by itself where it left off. Returns a function that stops it. `first` as for
   * `ask`. */
  events(path, onEvent, onState = () => {}, first = this.bases[0]) {
    const abort = new AbortController();
    let lastId;
    const follow = async () => {
      for (let delay = 500; !abort.signal.aborted; delay = Math.min(delay * 2, 10000)) {
        try {
          const headers = { Accept: 'text/event-stream', ...(lastId ? { 'Last-Event-ID': lastId } : {}) };
          const response = await this.ask('GET', path, first, { headers, signal: abort.signal });
          onState('live');
          delay = 500;
          for await (const event of readEvents(response.body)) {
            if (event.id) lastId = event.id;
            if (event.data) onEvent(event.type, JSON.parse(event.data));
          }
        } catch (error) {
          if (abort.signal.aborted) return;
          if (error instanceof Problem && error.status === 410) lastId = undefined; // too old to resume: start anew
          if (error instanceof Problem && [401, 403, 404].includes(error.status)) {
            onState('refused', error);
            return;
          }
        }
        onState('lost');
        await pause(delay);
      }
    };
    follow();
    return () => abort.abort();
  }
}

/** Parse a body of server-sent events (WHATWG HTML, 9.2.6). */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  let event = { type: 'message', data: '', id: '' };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const lines = buffer.split(/\r\n|\n|\r/);
    buffer = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (event.data) yield { ...event, data: event.data.replace(/\n$/, '') };
        event = { type: 'message', data: '', id: '' };
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === 'event') event.type = text;
      else if (field === 'data') event.data += `${text}\n`;
      else if (field === 'id') event.id = text;
    }
  }
}
