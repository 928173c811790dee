// Made of the contract by `npm run generate`; not to be edited.

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
