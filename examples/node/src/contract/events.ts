// Made of the contract by `npm run generate`; not to be edited.

export type Event =
  | CommandDelayed
  | CommandFailed
  | CommandRejected
  | CommandSucceeded
  | PaymentCreated
  | PaymentSnapshot
  | PaymentStatusChanged
  | PaymentUpdated;

/**
 * A retry is scheduled, an answer is awaited, or the outcome is unknown. Never an answer.
 */
export interface CommandDelayed {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    /**
     * Calls to the gateway so far.
     */
    attempts: number;
    command: Command;
    /**
     * For a person.
     */
    message?: string;
    /**
     * When it is tried or looked up again, where that is known.
     */
    next_attempt_at?: string;
    /**
     * Why, in one word: see codes.md.
     */
    reason:
      | (
          | 'gateway_changed'
          | 'refused'
          | 'unreachable'
          | 'timeout'
          | 'gateway_error'
          | 'rate_limited'
          | 'conflict'
          | 'misconfigured'
          | 'invalid_answer'
          | 'mismatch'
          | 'worker_lost'
          | 'held'
          | 'pending'
          | 'escalated'
        )
      | string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'command.delayed';
  [k: string]: unknown;
}
/**
 * The command that caused it.
 */
export interface Command {
  /**
   * Whether this is its answer: each gets exactly one.
   */
  final: boolean;
  /**
   * Its id.
   */
  id: string;
  /**
   * Its source.
   */
  source: string;
  /**
   * Its type, as it was written.
   */
  type: string;
  [k: string]: unknown;
}
/**
 * The gateway refused, or retrying was given up, and the payment is as it was.
 */
export interface CommandFailed {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    /**
     * Calls to the gateway so far.
     */
    attempts: number;
    /**
     * Why, in one word: see codes.md.
     */
    code:
      | (
          | 'unsupported'
          | 'gateway_changed'
          | 'declined'
          | 'refused'
          | 'cancelled'
          | 'unreachable'
          | 'timeout'
          | 'gateway_error'
          | 'rate_limited'
          | 'conflict'
          | 'misconfigured'
          | 'invalid_answer'
          | 'mismatch'
          | 'worker_lost'
          | 'double_charge'
        )
      | string;
    command: Command;
    discrepancy?: Discrepancy;
    /**
     * The gateway's own code.
     */
    gateway_code?: string;
    /**
     * For a person.
     */
    message?: string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'command.failed';
  [k: string]: unknown;
}
/**
 * The gateway did something else than was asked, or beyond a limit; its figure counts.
 */
export interface Discrepancy {
  /**
   * What the gateway says.
   */
  answered: string;
  /**
   * What was asked, or the limit.
   */
  asked: string;
  currency: string;
  [k: string]: unknown;
}
/**
 * A command that never reached a gateway: invalid, not allowed, or of something unknown.
 */
export interface CommandRejected {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    /**
     * Why, in one word: see codes.md.
     */
    code:
      | (
          | 'invalid_envelope'
          | 'invalid_encoding'
          | 'too_large'
          | 'too_deep'
          | 'card_number'
          | 'invalid_data'
          | 'unknown_field'
          | 'invalid_amount'
          | 'invalid_currency'
          | 'unknown_type'
          | 'unknown_variant'
          | 'variant_retired'
          | 'routing_mismatch'
          | 'variant_mismatch'
          | 'id_reused'
          | 'already_exists'
          | 'unknown_payment'
          | 'not_allowed'
          | 'in_progress'
          | 'too_many_waiting'
          | 'unsupported'
          | 'expired'
          | 'dead_lettered'
          | 'gateway_changed'
          | 'user_required'
          | 'not_unknown'
          | 'not_genuine'
        )
      | string;
    command: Command;
    /**
     * For a person.
     */
    message: string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'command.rejected';
  [k: string]: unknown;
}
/**
 * A command is done, and nothing of the payment changed.
 */
export interface CommandSucceeded {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    command: Command;
    payment?: Payment;
    /**
     * The events that payment.resend sent; left out where there were none. Older ones than `from` are kept no more; where `sequence` is beyond `to`, ask for the next.
     */
    resent?: {
      /**
       * The number of the first.
       */
      from: string;
      /**
       * The number of the last.
       */
      to: string;
      [k: string]: unknown;
    };
    /**
     * The number of the payment's last event: the payment is as it was after that.
     */
    sequence?: string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'command.succeeded';
  [k: string]: unknown;
}
/**
 * The whole payment as stored after the change.
 */
export interface Payment {
  /**
   * What is authorized.
   */
  authorized_amount: string;
  /**
   * Where to bill.
   */
  billing_address_1: string;
  /**
   * Where to bill.
   */
  billing_address_2: string;
  /**
   * Where to bill.
   */
  billing_city: string;
  /**
   * State, county or province.
   */
  billing_country_area: string;
  /**
   * Two letters of ISO 3166.
   */
  billing_country_code: string;
  /**
   * Whom to write to.
   */
  billing_email: string;
  /**
   * Whom to bill.
   */
  billing_first_name: string;
  /**
   * Whom to bill.
   */
  billing_last_name: string;
  /**
   * Whom to call.
   */
  billing_phone: string;
  /**
   * Where to bill.
   */
  billing_postcode: string;
  /**
   * What can still be captured: held, and neither captured nor let go.
   */
  capturable_amount: string;
  /**
   * What was captured minus what was refunded, never below zero.
   */
  captured_amount: string;
  /**
   * When it was stored.
   */
  created: string;
  /**
   * ISO 4217.
   */
  currency: string;
  /**
   * Where the customer came from.
   */
  customer_ip_address: {
    [k: string]: unknown;
  } & (
    | ({
        [k: string]: unknown;
      } & string)
    | ({
        [k: string]: unknown;
      } & null)
  );
  /**
   * Of the total, delivery.
   */
  delivery: string;
  /**
   * What it is for.
   */
  description: string;
  /**
   * What the gateway told beside, bounded.
   */
  extra_data: {
    [k: string]: unknown;
  };
  /**
   * The gateway's words on fraud.
   */
  fraud_message: string;
  /**
   * What the gateway thinks of fraud.
   */
  fraud_status: 'unknown' | 'accept' | 'reject' | 'review';
  /**
   * Chosen by the publisher of its create.
   */
  id: string;
  /**
   * The gateway's last message.
   */
  message: string;
  /**
   * When it last changed.
   */
  modified: string;
  /**
   * Where the customer must act, while the status is input.
   */
  redirect_url?: string;
  /**
   * What was refunded.
   */
  refunded_amount: string;
  /**
   * Where it stands.
   */
  status: 'waiting' | 'input' | 'preauth' | 'confirmed' | 'rejected' | 'refunded' | 'error' | 'cancelled';
  /**
   * Of the total, tax.
   */
  tax: string;
  /**
   * The gross sum.
   */
  total: string;
  /**
   * Its id at the gateway; empty before there is one.
   */
  transaction_id: string;
  /**
   * The configured gateway.
   */
  variant: string;
  [k: string]: unknown;
}
/**
 * A payment was stored.
 */
export interface PaymentCreated {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    command: Command;
    payment: Payment;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  /**
   * The place among the payment's counted events: from 1, without gaps.
   */
  sequence: string;
  sequencetype: 'Integer';
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'payment.created';
  [k: string]: unknown;
}
/**
 * The payment as it is, for who asked by payment.snapshot; it is none of the counted events.
 */
export interface PaymentSnapshot {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    command: Command;
    payment: Payment;
    /**
     * The number of the payment's last event: the payment is as it was after that.
     */
    sequence: string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'payment.snapshot';
  [k: string]: unknown;
}
/**
 * The payment's status differs. The status is the last word of the routing key.
 */
export interface PaymentStatusChanged {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    /**
     * Why, in one word: see codes.md.
     */
    code?:
      | (
          | 'unsupported'
          | 'gateway_changed'
          | 'declined'
          | 'refused'
          | 'cancelled'
          | 'unreachable'
          | 'timeout'
          | 'gateway_error'
          | 'rate_limited'
          | 'conflict'
          | 'misconfigured'
          | 'invalid_answer'
          | 'mismatch'
          | 'worker_lost'
          | 'double_charge'
        )
      | string;
    command?: Command;
    discrepancy?: Discrepancy;
    /**
     * The gateway's own code.
     */
    gateway_code?: string;
    /**
     * For a person.
     */
    message?: string;
    payment: Payment;
    /**
     * The status before.
     */
    previous_status: 'waiting' | 'input' | 'preauth' | 'confirmed' | 'rejected' | 'refunded' | 'error' | 'cancelled';
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  /**
   * The place among the payment's counted events: from 1, without gaps.
   */
  sequence: string;
  sequencetype: 'Integer';
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'payment.status_changed';
  [k: string]: unknown;
}
/**
 * Amounts, fraud or gateway data differ; the status does not.
 */
export interface PaymentUpdated {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    /**
     * The names of the payment's members that differ.
     */
    changed: (
      | (
          | 'id'
          | 'variant'
          | 'status'
          | 'fraud_status'
          | 'fraud_message'
          | 'created'
          | 'modified'
          | 'transaction_id'
          | 'currency'
          | 'total'
          | 'delivery'
          | 'tax'
          | 'captured_amount'
          | 'authorized_amount'
          | 'refunded_amount'
          | 'capturable_amount'
          | 'customer_ip_address'
          | 'message'
          | 'extra_data'
          | 'redirect_url'
          | 'description'
          | 'billing_first_name'
          | 'billing_last_name'
          | 'billing_address_1'
          | 'billing_address_2'
          | 'billing_city'
          | 'billing_postcode'
          | 'billing_country_code'
          | 'billing_country_area'
          | 'billing_email'
          | 'billing_phone'
        )
      | string
    )[];
    /**
     * Why, in one word: see codes.md.
     */
    code?:
      | (
          | 'unsupported'
          | 'gateway_changed'
          | 'declined'
          | 'refused'
          | 'cancelled'
          | 'unreachable'
          | 'timeout'
          | 'gateway_error'
          | 'rate_limited'
          | 'conflict'
          | 'misconfigured'
          | 'invalid_answer'
          | 'mismatch'
          | 'worker_lost'
          | 'double_charge'
        )
      | string;
    command?: Command;
    discrepancy?: Discrepancy;
    /**
     * The gateway's own code.
     */
    gateway_code?: string;
    /**
     * For a person.
     */
    message?: string;
    payment: Payment;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  /**
   * The place among the payment's counted events: from 1, without gaps.
   */
  sequence: string;
  sequencetype: 'Integer';
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'payment.updated';
  [k: string]: unknown;
}
