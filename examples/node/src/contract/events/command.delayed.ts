// Made of the contract by `npm run generate`; not to be edited.

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
