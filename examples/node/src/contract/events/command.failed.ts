// Made of the contract by `npm run generate`; not to be edited.

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
