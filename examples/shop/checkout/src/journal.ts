/** What the checkout must not forget: JSON lines, each on the disk before anything is done about it. */

import { closeSync, existsSync, fdatasyncSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';

import type { Command, Event } from './client.js';
import type { Order } from './orders.js';

type Line = { opened: number } | Order | { command: Command } | { again: string } | { answered: string; event: Event };

export class Journal {
  /** When the shop was opened for the first time. */
  opened = 0;
  readonly orders = new Map<string, Order>();
  /** Commands that were sent, perhaps, by their ids; and the final answers to them. */
  readonly commands = new Map<string, Command>();
  readonly answers = new Map<string, Event>();
  readonly #file: number;

  constructor(path: string) {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    // Who was killed while it wrote has left half a line.
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole !== text) truncateSync(path, Buffer.byteLength(whole));
    for (const line of whole.split('\n')) if (line) this.#know(JSON.parse(line));
    this.#file = openSync(path, 'a');
    if (!this.opened) this.write({ opened: Date.now() });
  }

  write(line: Line): void {
    writeSync(this.#file, `${JSON.stringify(line)}\n`);
    fdatasyncSync(this.#file);
    this.#know(line);
  }

  close(): void {
    closeSync(this.#file);
  }

  #know(line: Line): void {
    if ('opened' in line) this.opened = line.opened;
    else if ('order' in line) this.orders.set(line.order, line);
    else if ('command' in line) this.commands.set(line.command.id, line.command);
    else if ('answered' in line) this.answers.set(line.answered, line.event);
  }
}
