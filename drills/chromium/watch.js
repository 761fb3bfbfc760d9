// Beside the watch page and painting.js: writes down what the page's viewer does and shows, in the words of
// drills/viewer.py, for drills/chromium/viewer.py to take. `at` is in ms of performance.now().
globalThis.drill = (() => {
  const LOOK_MS = 50, LATE_MS = 100, STATS_MS = 1000, MOST_LINES = 20_000;
  const STATS = ['bytesReceived', 'pliCount', 'framesDropped', 'concealedSamples'];
  let lines = [];
  let untold = 0; // lines that there was no room for

  function tell(event, fields, at = performance.now()) {
    if (lines.length < MOST_LINES) lines.push({ at, event, ...fields });
    else untold += 1;
  }

  function take() {
    const taken = { lines, untold };
    [lines, untold] = [[], 0];
    return taken;
  }

  /** What becomes of the session: it is joined, lost, joined elsewhere. */
  function tellSession(viewer) {
    let since = 0;
    let moves = false; // its node asked for it, and the former connection plays meanwhile
    const url = () => String(new URL(viewer.endpoint, viewer.resource?.origin ?? viewer.api.bases[0]));
    const begin = (event) => {
      since = performance.now();
      moves = event === 'moving';
      tell(event, { url: url() });
    };
    const failed = (reason) => {
      tell('failed', { url: url(), reason });
      begin('joining');
    };
    viewer.addEventListener('state', ({ detail: { state, reason } }) => {
      if (state === 'connecting') begin('joining');
      else if (state === 'moving' && reason !== 'silence') begin('moving');
      else if (state === 'moving') failed('no packet, and nobody knows the session');
      else if (state === 'recovering') failed(`the connection is ${viewer.pc?.connectionState ?? 'not there'}`);
      else if (state === 'refused') tell('refused', { url: url(), reason });
      else if (state === 'closed') tell('left', {});
    });
    viewer.addEventListener('opened', () => {
      const told = { url: url(), session: viewer.id, took: (performance.now() - since) / 1000 };
      tell('joined', told);
      if (moves) tell('moved', told);
      moves = false;
    });
  }

  /** Every picture that the page shows, with the time at which it was handed to the compositor. */
  function tellPictures(viewer, tiles) {
    const canvas = document.createElement('canvas');
    const before = new Map();
    viewer.addEventListener('frame', ({ detail: { index, metadata } }) => {
      const mark = painting.readVideo(tiles.tiles[index].video, canvas);
      const { publisher = null, counter = null, clockMs = null } = mark ?? {};
      const said = mark && `${publisher} ${counter} ${clockMs}`;
      // A canvas sometimes gets the next picture already: then the callback for that one finds it a second time.
      if (said && said === before.get(index)) return;
      before.set(index, said);
      const fields = { slot: index, publisher, counter, clock_ms: clockMs, width: metadata.width };
      tell('frame', fields, metadata.presentationTime);
    });
  }

  function tellStats(viewer) {
    let before = null;
    setInterval(async () => {
      const { pc } = viewer;
      if (!pc || pc.connectionState === 'closed') return;
      const entries = [...(await pc.getStats()).values()].filter((entry) => entry.type === 'inbound-rtp');
      const sums = STATS.map((name) => entries.reduce((sum, entry) => sum + (entry[name] ?? 0), 0));
      const now = { pc, at: performance.now(), sums };
      if (before?.pc === pc) {
        const [bytes, plis, dropped, concealed] = sums.map((sum, index) => sum - before.sums[index]);
        tell('stats', { over: (now.at - before.at) / 1000, bits: 8 * bytes, plis, dropped, concealed });
      }
      before = now;
    }, STATS_MS);
  }

  /** When the page could do nothing: what it showed then is not the cluster's doing. */
  function tellLateness() {
    let before = performance.now();
    setInterval(() => {
      const now = performance.now();
      const late = now - before - LOOK_MS;
      before = now;
      if (late > LATE_MS) tell('late', { by: late / 1000 });
    }, LOOK_MS);
  }

  // The page says what it has before it begins.
  let page;
  Object.defineProperty(globalThis, 'costream', {
    get: () => page,
    set: (made) => {
      page = made;
      tellSession(made.viewer);
      tellPictures(made.viewer, made.tiles);
      tellStats(made.viewer);
      tellLateness();
    },
  });

  return { take };
})();
