//! Configured users and their permissions.

use super::refused::check_error;
use super::*;

const VARIANTS: &str = "[variants.cards]\ngateway = 'dummy'\n[variants.debit]\ngateway = 'dummy'\n";

fn with_users(users: &str) -> Result<Settings, ConfigError> {
    from_file(&format!("{VARIANTS}{users}"))
}

#[test]
fn users_are_read_from_the_file_and_the_environment() {
    assert!(from_file("").unwrap().users.is_empty());
    let file = format!(
        "{VARIANTS}[users.shop]\nrole = 'service'\nvariants = ['cards']\nsources = ['https://shop/orders', 'pos/*']\n\
         read_rate = 20\n[users.\"Alice.B\"]\nrole = 'operator'"
    );
    let variables = [
        ("PAYBUS__USERS__HOOKS__ROLE", "webhooks"),
        ("PAYBUS__USERS__POS__ROLE", "service"),
        ("PAYBUS__USERS__POS__SOURCES", "till/1, till/2/*"),
        ("PAYBUS__USERS__POS__READ_RATE", "0.5"),
    ];
    let users = load_with(Some(&file), &variables).unwrap().users;
    assert_eq!(users.keys().collect::<Vec<_>>(), ["Alice.B", "hooks", "pos", "shop"]);
    let shop = &users["shop"];
    assert_eq!((shop.role, shop.variants.as_deref()), (Role::Service, Some(&["cards".to_owned()][..])));
    assert_eq!(shop.sources.as_ref().map(Vec::len), Some(2));
    let alice = User { role: Role::Operator, variants: None, sources: None, read_rate: None };
    assert_eq!(users["Alice.B"], alice);
    assert_eq!((shop.read_rate, users["pos"].read_rate), (Some(20.0), Some(0.5)));
    assert_eq!(users["pos"].sources.as_deref(), Some(&["till/1".to_owned(), "till/2/*".to_owned()][..]));
}

#[test]
fn a_source_has_one_owner() {
    let two = |one: &str, other: &str| {
        with_users(&format!(
            "[users.a]\nrole = 'service'\nsources = ['{one}']\n[users.b]\nrole = 'service'\nsources = ['{other}']"
        ))
    };
    for (one, other) in [("x", "y"), ("x/1", "x/10"), ("x/*", "x"), ("x/a*", "x/b*"), ("paybus/shop", "webhooks")] {
        assert!(two(one, other).is_ok(), "{one} {other}");
        assert!(two(other, one).is_ok(), "{other} {one}");
    }
    for (one, other) in [("x", "x"), ("x", "x*"), ("x/*", "x/1"), ("x/*", "x/1/*"), ("x*", "xy*")] {
        let error = two(one, other).expect_err(one).to_string();
        assert!(error.contains("expected sources that do not overlap with those of users."), "{error}");
        assert!(two(other, one).is_err(), "{other} {one}");
    }
    for ours in ["paybus", "pay*", "webhooks/cards", "webhooks/*", "web*"] {
        let error = two(ours, "x").expect_err(ours).to_string();
        assert!(error.starts_with("users.a.sources: expected sources that do not overlap"), "{error}");
    }
}

#[test]
fn what_cannot_be_meant_of_a_user_is_refused() {
    let check = |users: &str, expected: &str| {
        let error = with_users(users).expect_err(users).to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check("[users.a]\nvariants = ['cards']", "users.a.role: missing");
    check("[users.a]\nrole = 'admin'", r#"users.a.role: expected "service", "operator" or "webhooks""#);
    check("[users.a]\nrole = 'service'\ncommands = []", "users.a.commands: unknown key, expected `role`");
    check("[users.a]\nrole = 'service'\nvariants = ['card']", "users.a.variants[0]: expected a configured variant");
    check("[users.a]\nrole = 'service'\nvariants = []", "users.a.variants: expected at least one variant");
    check("[users.a]\nrole = 'service'\nsources = []", "users.a.sources: expected at least one source");
    for pattern in ["", "*", "a*b", "a**"] {
        check(&format!("[users.a]\nrole = 'service'\nsources = ['x', '{pattern}']"), "users.a.sources[1]: expected ");
    }
    check("[users.a]\nrole = 'operator'\nsources = ['x']", "users.a.sources: expected no such key");
    check("[users.a]\nrole = 'webhooks'\nsources = ['x']", "users.a.sources: expected no such key");
    for rate in ["0", "-1", "1000001"] {
        let user = format!("[users.a]\nrole = 'service'\nread_rate = {rate}");
        check(&user, "users.a.read_rate: expected commands per second, more than 0");
    }
    check("[users.a]\nrole = 'webhooks'\nread_rate = 1", "users.a.read_rate: expected no such key");
    // One of them could read the other's replies.
    check("[users.a]\nrole = 'service'\n[users.\"a.b\"]\nrole = 'service'", "users.a.b: expected another name");
    check_error("users = 'x'", "users: expected a table of keys");
}
