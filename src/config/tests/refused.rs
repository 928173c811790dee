//! Rejected configurations and their error messages.

use super::*;

/// Asserts the error for a file with this content, without variables.
#[track_caller]
pub(super) fn check_error(content: &str, expected: &str) {
    assert_eq!(from_file(content).unwrap_err().to_string(), expected, "{content}");
}

#[test]
fn references_that_lead_nowhere_are_errors() {
    check_error("amqp.url = 'env:NO'", "amqp.url: environment variable NO is not set or is empty");
    check_error("amqp.url = 'file:secret'", r#"amqp.url: expected an absolute path, "file:/path""#);
    let missing = "retry.delayed[0]: cannot read /no/such: No such file or directory (os error 2)";
    check_error("retry.delayed = ['file:/no/such']", missing);
    check_error("amqp.url = 'file:/dev/null'", "amqp.url: /dev/null is empty");
}

#[test]
fn unknown_keys_are_named_in_full() {
    let top = "`amqp`, `database`, `http`, `retry`, `variants`, `users`, `worker`, `retention`, `log` or `tracing`";
    check_error("ampq.url = 'x'", &format!("ampq: unknown key, expected {top}"));
    check_error("amqp.tls.caa = 'x'", "amqp.tls.caa: unknown key, expected `ca`, `cert` or `key`");
    let retry = "variants.a.retry.immediate.max: unknown key, expected `attempts`, `first`, `factor` or `cap`";
    check_error("variants.a = { gateway = 'dummy', retry.immediate.max = 1 }", retry);
    let error = load_with(None, &[("PAYBUS__LOG__LEVEL", "info")]).unwrap_err();
    assert_eq!(error.to_string(), "log.level (set by PAYBUS__LOG__LEVEL): unknown key, expected `format` or `filter`");
}

#[test]
fn errors_of_a_gateways_own_keys_name_the_variant() {
    let error = |keys: &str| {
        let file = format!("[variants.cards]\ngateway = 'http'\n{keys}");
        http(&from_file(&file).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(error("token = 'x'"), "variants.cards.url: missing");
    assert_eq!(error("url = 1"), "variants.cards.url: expected a string, in quotes");
    let wrong = error("url = 'x'\nkey_window = 5");
    assert!(wrong.starts_with("variants.cards.key_window: expected a duration with its unit, \"100ms\""), "{wrong}");
    assert_eq!(error("url = 'x'\nport = 70000"), "variants.cards.port: expected a non-negative whole number");
    let unknown = error("url = 'x'\nconcurency = 5");
    assert!(unknown.starts_with("variants.cards.concurency: unknown key, expected `gateway`, `capture`,"), "{unknown}");
    assert!(unknown.contains("or `retired`, or of gateway `http` `url`, `token`,"), "{unknown}");
}

#[test]
fn wrong_types_are_refused() {
    check_error("database.pool = 2.5", "database.pool: expected a non-negative whole number");
    check_error("database.pool = -1", "database.pool: expected a non-negative whole number");
    check_error("amqp.declare = 1", "amqp.declare: expected true or false");
    check_error("amqp.declare = 'yes'", "amqp.declare: expected true or false");
    check_error("amqp.prefix = 123", "amqp.prefix: expected a string, in quotes");
    check_error("amqp = 'x'", "amqp: expected a table of keys");
    check_error("variants = 'x'", "variants: expected a table of keys");
    check_error("variants.cards = 'x'", "variants.cards: expected a table of keys");
    check_error("variants.a = { gateway = 'x', retry = 1 }", "variants.a.retry: expected a table of keys");
    check_error("retry.delayed = 5", "retry.delayed: expected a list");
    check_error("retry.immediate.factor = 'nan'", "retry.immediate.factor: expected a number");
    let duration = r#"a duration with its unit, "100ms", "10s", "5m", "6h" or "90d", at most "36500d""#;
    check_error("amqp.heartbeat = 10", &format!("amqp.heartbeat: expected {duration}"));
    check_error("retry.delayed = ['1s', '10']", &format!("retry.delayed[1]: expected {duration}"));
    let modes = r#""disable", "require", "verify-ca" or "verify-full""#;
    check_error("database.tls_mode = 'prefer'", &format!("database.tls_mode: expected {modes}"));
    check_error("log.format = 5", r#"log.format: expected "auto", "text" or "json""#);
    let address = r#"http.listen: expected an IP address and a port, "127.0.0.1:8080" or "[::]:8080""#;
    check_error("http.listen = 'localhost:80'", address);
}

/// Asserts that each content is rejected with an error that says what this key should be.
#[track_caller]
fn check_refused(cases: &[(&str, &str)]) {
    for (content, key) in cases {
        let error = from_file(content).expect_err(content).to_string();
        assert!(error.starts_with(&format!("{key}: expected ")), "{content}: {error}");
    }
}

#[test]
fn connections_out_of_their_limits_are_refused() {
    check_refused(&[
        ("amqp.prefix = ''", "amqp.prefix"),
        ("amqp.prefix = 'a b'", "amqp.prefix"),
        ("amqp.reply_to = '('", "amqp.reply_to"),
        ("amqp.confirm_timeout = '0s'", "amqp.confirm_timeout"),
        ("amqp.connect_timeout = '2h'", "amqp.connect_timeout"),
        ("amqp.heartbeat = '1500ms'", "amqp.heartbeat"),
        ("amqp.heartbeat = '0s'", "amqp.heartbeat"),
        ("amqp.delivery_limit = 0", "amqp.delivery_limit"),
        ("amqp.memory = 15", "amqp.memory"),
        ("amqp.memory = 1048577", "amqp.memory"),
        ("amqp.url = 'http://broker'", "amqp.url"),
        ("amqp.url = 'amqp://[::1/'", "amqp.url"),
        ("amqp.url = 'amqp://broker:port/'", "amqp.url"),
        ("amqp.url = 'amqp://one:5672,:port/'", "amqp.url"),
        ("amqp.url = 'amqp://user:password@one,,two/'", "amqp.url"),
        ("amqp.tls.ca = '/ca.pem'", "amqp.tls"),
        ("amqp = { url = 'amqps://broker', tls = { cert = '/cert.pem' } }", "amqp.tls"),
        ("amqp = { url = 'amqps://broker', tls = { ca = '' } }", "amqp.tls.ca"),
        ("database.url = 'mysql://host/db'", "database.url"),
        ("database.url = 'host=localhost'", "database.url"),
        ("database.url = 'postgres://host/db?sslmode=require'", "database.url"),
        ("database.url = 'postgres://host/db?unknown=1'", "database.url"),
        ("database.migrate_url = 'mysql://host/db'", "database.migrate_url"),
        ("database.migrate_url = 'postgres://host/db?sslmode=require'", "database.migrate_url"),
        ("database.pooler = 'session'", "database.pooler"),
        ("database.tls.ca = '/ca.pem'", "database.tls"),
        ("database.pool = 0", "database.pool"),
        ("database.statement_timeout = '0ms'", "database.statement_timeout"),
    ]);
    // Events are read in order, after a fixed delay: one that takes longer to be stored would be passed over for good.
    let limits = r#"database.statement_timeout: expected a duration from "1ms" to "30s""#;
    check_error("database.statement_timeout = '5m'", limits);
    check_error("database.statement_timeout = '31s'", limits);
    assert!(from_file("database.statement_timeout = '30s'").is_ok());
    check_error("database.pool = 1001", "database.pool: expected a whole number from 1 to 1000");
    assert!(from_file("amqp.insecure = true\namqp.url = 'amqp://user:p[ss@broker/'").is_ok());
    for url in [
        "amqp://[::1]/",
        "amqp://user:password@[::1]:5673/%2f",
        "amqps://user:password@[fd00::5]",
        "amqp://user:password@one:5672,two,[fd00::5]:5673/%2f?heartbeat=5",
    ] {
        assert!(from_file(&format!("amqp.insecure = true\namqp.url = '{url}'")).is_ok(), "{url}");
    }
}

#[test]
fn an_option_of_a_url_that_is_not_known_is_named() {
    for (key, url, name) in [
        ("amqp.url", "amqp://broker/?heartbeat=5&cacertfile=/ca.pem", "cacertfile"),
        ("amqp.url", "amqp://[::1]?hartbeat=5", "hartbeat"),
        ("database.url", "postgres://host/db?connect_timeout=5&conect_timeout=5", "conect_timeout"),
        ("database.migrate_url", "postgres://host/db?pool_mode=session", "pool_mode"),
    ] {
        let error = from_file(&format!("{key} = '{url}'")).expect_err(url).to_string();
        assert!(error.starts_with(&format!("{key}: expected no unknown option `{name}`")), "{error}");
    }
    assert!(from_file("amqp.url = 'amqp://localhost/?heartbeat=5&frame_max=8192'").is_ok());
    assert!(from_file("database.url = 'postgres://[::1]/db?application_name=shop&options=-csearch_path=a'").is_ok());
    // An error never shows the rest of a password that was not encoded.
    let error = from_file("amqp.url = 'amqp://user:p?hunter=2@broker/'").unwrap_err().to_string();
    assert!(error.starts_with("amqp.url: expected ") && !error.contains("hunter"), "{error}");
}

#[test]
fn work_out_of_its_limits_is_refused() {
    check_refused(&[
        ("retry.immediate.attempts = 0", "retry.immediate.attempts"),
        ("retry.immediate.factor = 0.5", "retry.immediate.factor"),
        ("retry.immediate.cap = '1ms'", "retry.immediate.cap"),
        ("retry.delayed = ['0s']", "retry.delayed[0]"),
        ("variants.Cards = { gateway = 'dummy' }", "variants.Cards"),
        ("variants.a = { gateway = '' }", "variants.a.gateway"),
        ("variants.a = { gateway = 'dummy', timeout = '0s' }", "variants.a.timeout"),
        ("variants.a = { gateway = 'dummy', concurrency = 0 }", "variants.a.concurrency"),
        ("variants.a = { gateway = 'dummy', concurrency = 10001 }", "variants.a.concurrency"),
        ("variants.a = { gateway = 'dummy', rate = 0 }", "variants.a.rate"),
        ("variants.a = { gateway = 'dummy', breaker = { failures = 0 } }", "variants.a.breaker.failures"),
        ("variants.a = { gateway = 'dummy', retry.immediate.attempts = 0 }", "variants.a.retry.immediate.attempts"),
        ("worker.poll = '0s'", "worker.poll"),
        ("worker.heartbeat = '2h'", "worker.heartbeat"),
        ("worker.heartbeat = '1ms'", "worker.heartbeat"),
        ("retention.events = '0s'", "retention.events"),
        ("retention.notifications = '59m'", "retention.notifications"),
        ("log.filter = 'paybus=loud'", "log.filter"),
        ("tracing.endpoint = 'collector:4318'", "tracing.endpoint"),
        ("tracing.endpoint = 'http://user:secret@collector:4318'", "tracing.endpoint"),
        ("tracing.endpoint = 'http://collector:4318?key=secret'", "tracing.endpoint"),
        ("tracing.sample = 1.1", "tracing.sample"),
        ("tracing.service = ''", "tracing.service"),
    ]);
    check_error("worker.poll = '2m'", r#"worker.poll: expected a duration from "10ms" to "1m""#);
}

#[test]
fn variables_that_name_no_one_key_are_refused() {
    let error = |variables: &[(&str, &str)]| load_with(None, variables).unwrap_err().to_string();
    let message = "environment variable PAYBUS__: expected a key with its levels separated by `__`";
    assert_eq!(error(&[("PAYBUS__", "x")]), message);
    let twice = error(&[("PAYBUS__LOG__FILTER", "info"), ("PAYBUS__log__filter", "warn")]);
    assert_eq!(twice, "environment variable PAYBUS__log__filter: PAYBUS__LOG__FILTER sets the same key");
    let both = error(&[("PAYBUS__LOG__FILTER", "info"), ("PAYBUS__LOG", "warn")]);
    let message =
        "environment variable PAYBUS__LOG__FILTER: PAYBUS__LOG already sets the whole table that contains this key";
    assert_eq!(both, message);
    let out_of_limits = error(&[("PAYBUS__RETRY__DELAYED", "1s,0s")]);
    assert!(
        out_of_limits.starts_with("retry.delayed[1] (set by PAYBUS__RETRY__DELAYED): expected "),
        "{out_of_limits}"
    );
}

#[test]
fn files_that_are_no_toml_are_refused_without_quoting_them() {
    let error = from_file("[amqp]\nurl = \"amqp://user:hunter2@broker").unwrap_err().to_string();
    assert!(error.contains("settings.toml: TOML parse error at line 2, column "), "{error}");
    assert!(error.contains("invalid basic string") && !error.contains("hunter2"), "{error}");
    let missing = load(Some(Path::new("/no/such.toml")), std::iter::empty()).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the configuration file /no/such.toml");
}
