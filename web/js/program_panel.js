// The program as the studio handles it: switched on and off, and arranged.

import { notice } from './dom.js';

const MAY_MANAGE = ['owner', 'moderator', 'service'];
const WORDS = { live: 'on air', waiting: 'starting', off: 'off' };

export class ProgramPanel {
  /** `panel` is shown to those who may; it holds `button` (on and off), `select` (layouts by kind) and `state`. */
  constructor(api, path, role, { panel, button, select, state }) {
    Object.assign(this, { api, path: `${path}/program`, button, select, badge: state, program: null });
    panel.hidden = !MAY_MANAGE.includes(role);
    if (panel.hidden) return;
    button.addEventListener('click', () => this.toggle().catch((error) => notice(error.message)));
    select.addEventListener('change', () => this.arrange().catch((error) => notice(error.message)));
    this.refresh();
  }

  /** Something happened in the room. */
  onEvent(type) {
    if (/^(program|publication)\./.test(type)) this.refresh();
  }

  async refresh() {
    try {
      this.show(await this.api.json('GET', this.path));
    } catch (error) {
      if (error.status !== 404) notice(error.message);
      this.show(null);
    }
  }

  async toggle() {
    if (this.program) await this.api.json('DELETE', this.path);
    else await this.api.json('PUT', this.path, { layout: { kind: this.select.value } });
    await this.refresh();
  }

  async arrange() {
    if (!this.program) return;
    this.show(await this.api.json('POST', `${this.path}/layout`, { layout: { kind: this.select.value }, animate: 12 }));
  }

  show(program) {
    this.program = program;
    this.badge.textContent = WORDS[program?.state ?? 'off'];
    this.button.textContent = program ? 'Stop the program' : 'Start the program';
    if ([...this.select.options].some(({ value }) => value === program?.layout.kind)) this.select.value = program.layout.kind;
  }
}
