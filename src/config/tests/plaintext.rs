//! Traffic that leaves this machine is encrypted, unless the configuration allows otherwise.

use super::refused::check_error;
use super::*;
use crate::gateway::registry;

/// Loads the settings and builds every gateway.
fn start(file: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let settings = load_with(Some(file), variables).map_err(|error| error.to_string())?;
    for variant in settings.variants.values() {
        registry::build(variant).map_err(|error| error.to_string())?;
    }
    Ok(settings)
}

#[test]
fn another_machine_is_not_reached_without_tls() {
    for (file, key, host) in [
        ("amqp.url = 'amqp://user:password@broker.example'", "amqp.url", "broker.example"),
        ("amqp.url = 'amqp://user:password@127.0.0.1,10.0.0.1:5673/%2f'", "amqp.url", "10.0.0.1"),
        ("amqp.url = 'amqp://user:password@[::1],[fd00::5]:5673'", "amqp.url", "fd00::5"),
        ("database.url = 'postgres://user:password@db.example/paybus'", "database.url", "db.example"),
        ("database.url = 'postgres://localhost,10.0.0.2/paybus'", "database.url", "10.0.0.2"),
        ("database.url = 'postgres://localhost/paybus?hostaddr=10.0.0.2'", "database.url", "10.0.0.2"),
        ("database.url = 'postgres:///paybus?host=db.example'", "database.url", "db.example"),
        ("database.migrate_url = 'postgres://db.example/paybus'", "database.migrate_url", "db.example"),
        ("[variants.a]\ngateway = 'http'\nurl = 'http://10.0.0.3'\ntoken = 'x'", "variants.a.url", "10.0.0.3"),
        ("[variants.a]\ngateway = 'http'\nurl = 'http://pay.example/a'", "variants.a.url", "pay.example"),
        (
            "[variants.a]\ngateway = 'stripe'\nsecret_key = 'sk_test_1'\napi_base = 'http://stripe.example'",
            "variants.a.api_base",
            "stripe.example",
        ),
    ] {
        let error = start(file, &[]).expect_err(file);
        assert!(error.starts_with(&format!("{key}: expected ")), "{error}");
        assert!(error.contains(&format!(", because {host} is another machine; set ")), "{error}");
        let section = key.rsplit_once('.').unwrap().0;
        assert!(error.contains(&format!("{section}.insecure = true")), "{error}");
        let variable = format!("PAYBUS__{}__INSECURE", section.to_uppercase().replace('.', "__"));
        start(file, &[(&variable, "true")]).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let error = "amqp.url: expected an amqps:// address, because broker is another machine; set \
                 amqp.insecure = true if the network to it is private";
    check_error("amqp.url = 'amqp://broker'", error);
}

#[test]
fn each_section_speaks_for_itself_alone() {
    let others =
        "database.insecure = true\ntracing.insecure = true\nvariants.a = { gateway = 'dummy', insecure = true }";
    assert!(start(&format!("amqp.url = 'amqp://broker'\n{others}"), &[]).is_err());
    let file = "[amqp]\ninsecure = true\n[variants.a]\ngateway = 'http'\nurl = 'http://pay.example'\n\
                [variants.b]\ngateway = 'dummy'\ninsecure = true";
    assert!(start(file, &[]).expect_err(file).starts_with("variants.a.url: "));
}

#[test]
fn this_machine_and_hosts_with_tls_are_reached() {
    for file in [
        "amqp.url = 'amqp://user:password@localhost,127.0.0.2,[::1]:5673/%2f'",
        "amqp.url = 'amqps://user:password@broker.example'",
        "database.url = 'postgres://127.0.0.2,[::1],localhost/paybus'",
        "database.url = 'postgres:///paybus?host=/var/run/postgresql'",
        "database.url = 'postgres://%2Fvar%2Frun%2Fpostgresql/paybus'",
        "database.url = 'postgres://db.example/paybus?hostaddr=127.0.0.1'",
        "database = { url = 'postgres://db.example/paybus', tls_mode = 'verify-full' }",
        "database = { url = 'postgres://db.example/paybus', tls_mode = 'require' }",
        "[variants.a]\ngateway = 'http'\nurl = 'http://[::1]:9000'",
        "[variants.a]\ngateway = 'http'\nurl = 'https://pay.example'",
        "[variants.a]\ngateway = 'stripe'\nsecret_key = 'sk_test_1'",
    ] {
        start(file, &[]).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn spans_without_tls_carry_no_headers_to_another_machine() {
    let token = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret");
    let file = "tracing.endpoint = 'http://collector.example:4318'";
    assert!(start(file, &[]).is_ok(), "spans hold ids and no secret");
    assert!(start(file, &[("OTEL_EXPORTER_OTLP_HEADERS", "")]).is_ok());
    let error = start(file, &[token]).unwrap_err();
    assert!(error.starts_with("tracing.endpoint: expected ") && error.contains("collector.example"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert!(start(file, &[token, ("PAYBUS__TRACING__INSECURE", "true")]).is_ok());
    assert!(start("tracing.endpoint = 'https://collector.example'", &[token]).is_ok());
    assert!(start("tracing.endpoint = 'http://127.0.0.1:4318'", &[token]).is_ok());
}

#[test]
fn plaintext_allowed_to_a_remote_database_is_warned_of() {
    let trusts_any = |url: &str, mode: &str| {
        let file = format!("database = {{ url = '{url}', tls_mode = '{mode}' }}");
        trusts_any_database(&start(&file, &[]).unwrap().database)
    };
    assert!(trusts_any("postgres://db.example/paybus", "require"));
    assert!(!trusts_any("postgres://localhost/paybus", "require"));
    assert!(!trusts_any("postgres://db.example/paybus", "verify-full"));
}
