// A PK with another room: who is ahead and how long it lasts, and for those who may: invite, answer, give points, end.

import { el, notice } from './dom.js';

const MAY_MANAGE = ['owner', 'moderator', 'service'];
const MAY_SCORE = [...MAY_MANAGE, 'guest'];
const TICK_MS = 200;
const SYNC_IDS_PER_MS = 65_536n;

const milliseconds = (syncId) => Number(BigInt(syncId) / SYNC_IDS_PER_MS);

/** Minutes and seconds of a time in ms. */
const clock = (ms) => `${Math.floor(ms / 60_000)}:${String(Math.floor(ms / 1000) % 60).padStart(2, '0')}`;

export class PkPanel {
  /** `box` is filled and shown when there is something to show; `controls` says whether this page runs the room. */
  constructor(api, room, role, viewer, box, { controls = false } = {}) {
    Object.assign(this, { api, room, role, viewer, box, controls, state: { current: null, invitations: [], last: null } });
    this.path = `/v1/rooms/${encodeURIComponent(room)}/pk`;
    this.words = el('strong', { class: 'pk-words' });
    this.actions = el('span', { class: 'pk-actions' });
    box.replaceChildren(this.words, this.actions);
    viewer.addEventListener('event', ({ detail }) => this.onEvent(detail));
    setInterval(() => this.tell(), TICK_MS);
    this.read();
  }

  onEvent({ type, data }) {
    if (!type.startsWith('pk.')) return;
    // On the frame that the points belong to, without asking anybody; what the store says comes after it.
    if (type === 'pk.scored' && this.state.current?.id === data.pk) this.state.current.scores = data.scores;
    else this.read();
    this.tell();
  }

  async read() {
    this.state = await this.api.get(this.path).catch(() => this.state);
    this.actions.replaceChildren(...this.buttons());
    this.tell();
  }

  /** The moment that is shown: every viewer's own, however far behind he plays. */
  now() {
    const shown = this.viewer.syncIdNow();
    return shown ? milliseconds(shown) : Date.now();
  }

  tell() {
    const { current, last } = this.state;
    this.words.textContent = current ? this.running(current) : this.controls && last ? `Last PK: ${this.points(last)}` : '';
    this.box.hidden = !this.words.textContent && !this.actions.children.length;
  }

  running(pk) {
    const now = this.now();
    const [starts, ends] = [milliseconds(pk.starts_at), milliseconds(pk.ends_at)];
    if (now < starts) return `PK with ${pk.other} in ${Math.ceil((starts - now) / 1000)}`;
    return `${this.points(pk)} · ${clock(Math.max(0, ends - now))}`;
  }

  points(pk) {
    return `${pk.room} ${pk.scores[pk.room]} : ${pk.scores[pk.other]} ${pk.other}`;
  }

  buttons() {
    const { current, invitations } = this.state;
    if (!this.controls) return [];
    const found = [];
    const manages = MAY_MANAGE.includes(this.role);
    const button = (name, words, act) => {
      const onclick = () => act().then(() => this.read(), (error) => notice(error.message));
      return el('button', { class: 'small', 'data-action': name, onclick }, words);
    };
    const post = (pk, word, value) => this.api.json('POST', `${this.path}/${pk.id}/${word}`, value);
    if (current && MAY_SCORE.includes(this.role)) {
      found.push(button('pk-score', '+1 for us', () => this.score(current, post)));
      found.push(button('pk-end', 'End the PK', () => post(current, 'end')));
    }
    for (const each of manages && !current ? invitations : []) {
      const theirs = each.invited_by.room !== this.room;
      found.push(el('span', {}, theirs ? `${each.other} invites you to a PK` : `${each.other} is invited to a PK`));
      if (theirs) found.push(button('pk-accept', 'Accept', () => post(each, 'accept')));
      found.push(button('pk-decline', theirs ? 'Decline' : 'Withdraw', () => post(each, 'decline')));
    }
    if (manages && !current) {
      const other = el('input', { placeholder: 'another room', size: 12, 'data-field': 'pk-room' });
      found.push(other, button('pk-invite', 'Invite to a PK', () => this.api.json('POST', this.path, { room: other.value })));
    }
    return found;
  }

  score(current, post) {
    const at = this.viewer.syncIdNow();
    return post(current, 'score', { points: 1, ...(at ? { at } : {}) });
  }
}
