/** What customers do: the commands of an order, and how its payment ends by docs/dummy.md. */

import { randomUUID } from 'node:crypto';

import type { Command, PaymentCreateCommandData, PaymentProcessCommandData, Status } from '@paybus/contract';

export interface Order {
  /** The order's number, which the payment's events have in `metadata.order`. */
  order: string;
  payment: string;
  plan: string;
  total: string;
  /** How the payment ends. */
  status: Status;
  captured: string;
}

/** A command without what names it. */
type Step = Command extends infer One ? (One extends Command ? Pick<One, 'type' | 'data'> : never) : never;

interface Plan {
  /** Beside what every order has. */
  create?: Partial<PaymentCreateCommandData>;
  then: Step[];
  status: Status;
  /** Of the total, in cents. */
  captured: (total: number) => number;
}

export const VARIANT = 'cards';
const all = (total: number) => total;
const nothing = () => 0;

function pay(token: string, seconds = 0, more: PaymentProcessCommandData = {}): Step {
  return { type: 'payment.process', data: { process: { token, seconds }, ...more } };
}

const hold = (token: string) => pay(token, 0, { capture: false });
const capture = (data: { amount?: string; final?: boolean } = {}): Step => ({ type: 'payment.capture', data });
const refund = (amount?: string): Step => ({ type: 'payment.refund', data: amount === undefined ? {} : { amount } });
const release: Step = { type: 'payment.release', data: {} };
const cancel: Step = { type: 'payment.cancel', data: {} };
const comesBack: Step = { type: 'payment.process', data: { process: {} } };
const sync: Step = { type: 'payment.sync', data: {} };

const PLANS: Record<string, Plan> = {
  pays: { then: [pay('tok_approved')], status: 'confirmed', captured: all },
  pays_at_once: { create: { process: { token: 'tok_approved' } }, then: [], status: 'confirmed', captured: all },
  pays_slowly: { then: [pay('tok_slow', 1)], status: 'confirmed', captured: all },
  pays_by_transfer: { then: [pay('tok_pending_success', 1)], status: 'confirmed', captured: all },
  transfer_fails: { then: [pay('tok_pending_failure', 1)], status: 'rejected', captured: nothing },
  declined: { then: [pay('tok_declined_lost_card')], status: 'rejected', captured: nothing },
  takes_another_card: {
    then: [pay('tok_declined_insufficient_funds'), pay('tok_approved')], status: 'confirmed', captured: all,
  },
  refused: { then: [pay('tok_refused')], status: 'error', captured: nothing },
  answer_is_lost: { then: [pay('tok_unknown_success', 1)], status: 'confirmed', captured: all },
  decline_is_lost: { then: [pay('tok_unknown_failure', 1)], status: 'rejected', captured: nothing },
  gateway_errs: { then: [pay('tok_server_error')], status: 'confirmed', captured: all },
  gateway_is_away: { then: [pay('tok_unreachable')], status: 'confirmed', captured: all },
  redirected: { then: [pay('tok_redirect_success'), comesBack], status: 'confirmed', captured: all },
  redirected_in_vain: { then: [pay('tok_redirect_failure'), comesBack], status: 'rejected', captured: nothing },
  leaves: {
    then: [pay('tok_redirect_success', 3600), cancel], status: 'cancelled', captured: nothing,
  },
  captured_later: { then: [hold('tok_approved'), capture()], status: 'confirmed', captured: all },
  captured_in_parts: {
    then: [hold('tok_approved'), capture({ amount: '50.00', final: false }), capture()],
    status: 'confirmed', captured: all,
  },
  captured_in_part: {
    then: [hold('tok_approved'), capture({ amount: '50.00' })], status: 'confirmed', captured: () => 5000,
  },
  let_go: { then: [hold('tok_approved'), release], status: 'refunded', captured: nothing },
  capture_is_declined: { then: [hold('tok_capture_declined'), capture()], status: 'preauth', captured: nothing },
  returns_something: {
    then: [pay('tok_approved'), refund('20.00'), refund('5.50')],
    status: 'confirmed', captured: (total) => total - 2550,
  },
  returns_all: { then: [pay('tok_approved'), refund()], status: 'refunded', captured: nothing },
  refund_takes_time: { then: [pay('tok_refund_pending_success', 1), refund()], status: 'refunded', captured: nothing },
  refund_is_declined: { then: [pay('tok_refund_declined'), refund()], status: 'confirmed', captured: all },
  review_is_passed: { then: [pay('tok_review_accepted'), sync], status: 'confirmed', captured: all },
  review_is_failed: { then: [pay('tok_review_rejected'), sync], status: 'confirmed', captured: all },
  found_paid_later: { then: [pay('tok_late_success'), sync], status: 'confirmed', captured: all },
  disputed: { then: [pay('tok_dispute'), sync], status: 'refunded', captured: nothing },
  money_never_arrives: { then: [pay('tok_capture_fails_later'), sync], status: 'rejected', captured: nothing },
  shop_errs: { then: [pay('tok_approved'), refund('9999.00'), capture()], status: 'confirmed', captured: all },
};

const amount = (cents: number) => `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, '0')}`;

/** The order of this number. What it draws by chance is the payment's id, so keep it. */
export function take(number: number): Order {
  const names = Object.keys(PLANS);
  const plan = names[number % names.length]!;
  const { status, captured } = PLANS[plan]!;
  const total = 6000 + ((number * 731) % 9000);
  const ends = { status, captured: amount(captured(total)) };
  return { order: String(number), payment: randomUUID(), plan, total: amount(total), ...ends };
}

/** Its commands, in their order: the same each time, so that one that is sent again is the same command. */
export function commands({ order, payment, plan, total }: Order): Command[] {
  const { create, then } = PLANS[plan]!;
  const data: PaymentCreateCommandData = { variant: VARIANT, total, currency: 'EUR', metadata: { order }, ...create };
  const steps: Step[] = [{ type: 'payment.create', data }, ...then];
  const named = { specversion: '1.0' as const, source: 'shop/checkout', subject: payment };
  return steps.map((step, index) => ({ ...named, id: `order-${order}/${index}`, ...step }));
}
