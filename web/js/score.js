// A score that everybody sees on the frame on which it was pressed: how to place an application's event on its frame.

import { el, notice } from './dom.js';

const MAY_SEND = ['owner', 'guest', 'moderator', 'service'];

export class Score {
  /** `badge` shows the score; `button` is shown to those who may count. */
  constructor(api, room, role, viewer, badge, button) {
    this.points = 0;
    this.badge = badge;
    button.hidden = !MAY_SEND.includes(role);
    const press = async () => {
      const at = viewer.syncIdNow(); // before anything else: the frame that is shown now
      const event = { type: 'app.score', data: { points: this.points + 1 }, ...(at ? { at } : {}) };
      await api.json('POST', `/v1/rooms/${encodeURIComponent(room)}/events`, event);
    };
    button.addEventListener('click', () => press().catch((error) => notice(error.message)));
    viewer.addEventListener('event', ({ detail }) => detail.type === 'app.score' && this.show(detail.data));
  }

  show({ data }) {
    this.points = Number(data.points) || 0;
    this.badge.hidden = false;
    this.badge.replaceChildren(el('b', {}, String(this.points)));
  }
}
