// Made of the contract by `npm run generate`; not to be edited.

export type Command =
  | PaymentCancel
  | PaymentCapture
  | PaymentCreate
  | PaymentNotification
  | PaymentProcess
  | PaymentRefund
  | PaymentRelease
  | PaymentResend
  | PaymentResolve
  | PaymentSnapshot
  | PaymentSync;
export type Levels_00 = null | boolean | number | string;
export type Levels_01 = Levels_00[];
export type Levels_02 = Levels_01[];
export type Levels_03 = Levels_02[];
export type Levels_04 = Levels_03[];
export type Levels_05 = Levels_04[];
export type Levels_06 = Levels_05[];
export type Levels_07 = Levels_06[];
export type Levels_08 = Levels_07[];
export type Levels_09 = Levels_08[];
export type Levels_10 = Levels_09[];
export type Levels_11 = Levels_10[];
export type Levels_12 = Levels_11[];
export type Levels_13 = Levels_12[];
export type Levels_14 = Levels_13[];

/**
 * Ends the payment before money moved; also a retry that waits, where nothing was sent. Allowed from waiting and input.
 */
export interface PaymentCancel {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {};
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.cancel';
  [k: string]: unknown;
}
/**
 * Takes authorized money. Allowed from preauth.
 */
export interface PaymentCapture {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * How much, never null; left out: all that can be captured.
     */
    amount?: string;
    /**
     * Whether it is the last capture: true lets the rest of the authorization go, and is meant where it is left out; false leaves it held, where the gateway takes several captures.
     */
    final?: boolean | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.capture';
  [k: string]: unknown;
}
/**
 * Stores a payment as `waiting`; with `process`, goes on as payment.process. Allowed where there is no such payment.
 */
export interface PaymentCreate {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * Where to bill.
     */
    billing_address_1?: string | null;
    /**
     * Where to bill.
     */
    billing_address_2?: string | null;
    /**
     * Where to bill.
     */
    billing_city?: string | null;
    /**
     * State, county or province.
     */
    billing_country_area?: string | null;
    /**
     * Two letters of ISO 3166.
     */
    billing_country_code?: string | null;
    /**
     * Whom to write to.
     */
    billing_email?: string | null;
    /**
     * Whom to bill.
     */
    billing_first_name?: string | null;
    /**
     * Whom to bill.
     */
    billing_last_name?: string | null;
    /**
     * Whom to call.
     */
    billing_phone?: string | null;
    /**
     * Where to bill.
     */
    billing_postcode?: string | null;
    /**
     * Whether a process captures at once; overrides the variant's `capture`.
     */
    capture?: boolean | null;
    /**
     * Three letters of ISO 4217, in capitals.
     */
    currency:
      | 'AED'
      | 'AFN'
      | 'ALL'
      | 'AMD'
      | 'AOA'
      | 'ARS'
      | 'AUD'
      | 'AWG'
      | 'AZN'
      | 'BAM'
      | 'BBD'
      | 'BDT'
      | 'BGN'
      | 'BHD'
      | 'BIF'
      | 'BMD'
      | 'BND'
      | 'BOB'
      | 'BOV'
      | 'BRL'
      | 'BSD'
      | 'BTN'
      | 'BWP'
      | 'BYN'
      | 'BZD'
      | 'CAD'
      | 'CDF'
      | 'CHE'
      | 'CHF'
      | 'CHW'
      | 'CLF'
      | 'CLP'
      | 'CNY'
      | 'COP'
      | 'COU'
      | 'CRC'
      | 'CUC'
      | 'CUP'
      | 'CVE'
      | 'CZK'
      | 'DJF'
      | 'DKK'
      | 'DOP'
      | 'DZD'
      | 'EGP'
      | 'ERN'
      | 'ETB'
      | 'EUR'
      | 'FJD'
      | 'FKP'
      | 'GBP'
      | 'GEL'
      | 'GHS'
      | 'GIP'
      | 'GMD'
      | 'GNF'
      | 'GTQ'
      | 'GYD'
      | 'HKD'
      | 'HNL'
      | 'HRK'
      | 'HTG'
      | 'HUF'
      | 'IDR'
      | 'ILS'
      | 'INR'
      | 'IQD'
      | 'IRR'
      | 'ISK'
      | 'JMD'
      | 'JOD'
      | 'JPY'
      | 'KES'
      | 'KGS'
      | 'KHR'
      | 'KMF'
      | 'KPW'
      | 'KRW'
      | 'KWD'
      | 'KYD'
      | 'KZT'
      | 'LAK'
      | 'LBP'
      | 'LKR'
      | 'LRD'
      | 'LSL'
      | 'LYD'
      | 'MAD'
      | 'MDL'
      | 'MGA'
      | 'MKD'
      | 'MMK'
      | 'MNT'
      | 'MOP'
      | 'MRU'
      | 'MUR'
      | 'MVR'
      | 'MWK'
      | 'MXN'
      | 'MXV'
      | 'MYR'
      | 'MZN'
      | 'NAD'
      | 'NGN'
      | 'NIO'
      | 'NOK'
      | 'NPR'
      | 'NZD'
      | 'OMR'
      | 'PAB'
      | 'PEN'
      | 'PGK'
      | 'PHP'
      | 'PKR'
      | 'PLN'
      | 'PYG'
      | 'QAR'
      | 'RON'
      | 'RSD'
      | 'RUB'
      | 'RWF'
      | 'SAR'
      | 'SBD'
      | 'SCR'
      | 'SDG'
      | 'SEK'
      | 'SGD'
      | 'SHP'
      | 'SLE'
      | 'SLL'
      | 'SOS'
      | 'SRD'
      | 'SSP'
      | 'STN'
      | 'SVC'
      | 'SYP'
      | 'SZL'
      | 'THB'
      | 'TJS'
      | 'TMT'
      | 'TND'
      | 'TOP'
      | 'TRY'
      | 'TTD'
      | 'TWD'
      | 'TZS'
      | 'UAH'
      | 'UGX'
      | 'USD'
      | 'USN'
      | 'UYI'
      | 'UYU'
      | 'UYW'
      | 'UZS'
      | 'VED'
      | 'VES'
      | 'VND'
      | 'VUV'
      | 'WST'
      | 'XAD'
      | 'XAF'
      | 'XCD'
      | 'XCG'
      | 'XOF'
      | 'XPF'
      | 'YER'
      | 'ZAR'
      | 'ZMW'
      | 'ZWG'
      | 'ZWL';
    /**
     * Where the customer came from: IPv4 or IPv6.
     */
    customer_ip_address?: {
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
    delivery?: string;
    /**
     * What it is for.
     */
    description?: string | null;
    /**
     * With it, the command goes on as payment.process. The gateway's own object.
     */
    process?: {
      [k: string]: Levels_14;
    } | null;
    /**
     * Of the total, tax.
     */
    tax?: string;
    /**
     * The gross sum, with no more decimals than the currency has.
     */
    total: string;
    /**
     * The configured gateway to use; the first word of the routing key.
     */
    variant: string;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.create';
  [k: string]: unknown;
}
/**
 * A gateway's webhook: verified, then applied. Its subject may be left out.
 */
export interface PaymentNotification {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * Its body, byte for byte, in base64.
     */
    body_base64: string;
    /**
     * Its HTTP headers in their order, as pairs of name and value.
     */
    headers?: [string, string][] | null;
    /**
     * Its HTTP method.
     */
    method?: string | null;
    /**
     * When the webhook came: its age is judged by this.
     */
    received_at: string;
    /**
     * The path and query it came to.
     */
    url?: string | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject?: string | null;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.notification';
  [k: string]: unknown;
}
/**
 * Hands the payment to the gateway. Allowed from waiting, input, rejected and error.
 */
export interface PaymentProcess {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {
    /**
     * Whether a process captures at once; overrides the variant's `capture`.
     */
    capture?: boolean | null;
    /**
     * The gateway's own object: a payment method's token, return_url, ...
     */
    process?: {
      [k: string]: Levels_14;
    } | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.process';
  [k: string]: unknown;
}
/**
 * Gives money back. Allowed from confirmed.
 */
export interface PaymentRefund {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * How much, never null; left out: all that can still be refunded.
     */
    amount?: string;
    /**
     * The gateway's id of the charge to refund; left out: the payment's own.
     */
    reference?: string | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.refund';
  [k: string]: unknown;
}
/**
 * Lets an authorization go. Allowed from preauth.
 */
export interface PaymentRelease {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {};
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.release';
  [k: string]: unknown;
}
/**
 * Sends the payment's counted events once more, from one on and at most 100, each under the same id: to reply_to, where there is one, else to all. Answered by command.succeeded, which says which they were.
 */
export interface PaymentResend {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * The `sequence` of the first event that is missing.
     */
    from: string;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.resend';
  [k: string]: unknown;
}
/**
 * A person says what happened, where the outcome is unknown. The AMQP user_id must name who says so.
 */
export interface PaymentResolve {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * How much, where it was approved, never null; left out: what was asked.
     */
    amount?: string;
    /**
     * How the person knows.
     */
    evidence: string;
    /**
     * The operation with the unknown outcome.
     */
    operation: string;
    /**
     * What happened at the gateway.
     */
    outcome: 'approved' | 'declined' | 'not_charged';
    /**
     * The payment's id at the gateway.
     */
    transaction_id?: string | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.resolve';
  [k: string]: unknown;
}
/**
 * Tells the payment as it is: answered by payment.snapshot. Allowed always.
 */
export interface PaymentSnapshot {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {};
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.snapshot';
  [k: string]: unknown;
}
/**
 * Asks the gateway for the truth and applies it. Allowed always.
 */
export interface PaymentSync {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {};
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.sync';
  [k: string]: unknown;
}
