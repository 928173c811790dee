// Made of the contract by `npm run generate`; not to be edited.

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
    delivery?: string | null;
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
    tax?: string | null;
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
