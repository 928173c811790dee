//! Tests that cannot be run here. They are counted, so that nobody takes them for passed.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

/// What a script of ours exits with where it could check nothing.
const NOT_CHECKED: i32 = 77;

/// Says that a test is skipped, and why: past the capture of what tests print, and in a line of the file that
/// `PAYBUS_TEST_SKIPS` names, which `scripts/test` reads.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{name}: {reason}\n");
    std::io::stderr().write_all(format!("skipped: {line}").as_bytes()).expect("standard error");
    if let Some(path) = std::env::var_os("PAYBUS_TEST_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        // In one write, for tests of several programs append to it at once.
        file.expect("PAYBUS_TEST_SKIPS").write_all(line.as_bytes()).expect("PAYBUS_TEST_SKIPS");
    }
}

/// A variable that `scripts/with-services` sets; a test without it is skipped.
pub fn needed(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    if value.is_none() {
        skip(&format!("{variable} is not set; run it by scripts/with-services with private services"));
    }
    value
}

/// Expects that a script finds nothing wrong. Where it could check nothing, for want of others' tools, the test is skipped.
#[track_caller]
pub fn checks(script: &mut Command) {
    let ran = script.output().expect("a script of ours");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    eprintln!("{said}");
    match ran.status.code() {
        Some(NOT_CHECKED) => skip(said.lines().last().unwrap_or_default()),
        _ => assert!(ran.status.success(), "{said}"),
    }
}
