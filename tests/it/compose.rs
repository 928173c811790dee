//! docker-compose.yml has no passwords that are known in advance.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Program;

use crate::support::files::{read, root};

/// The variables of docker-compose.yml: each name, and whether Compose starts without it.
fn variables(compose: &str) -> Vec<(&str, bool)> {
    let written = compose.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    written.map(|text| (text.split(':').next().unwrap(), !text.contains(":?"))).collect()
}

/// Generates passwords into a file and reads it.
fn draw(file: &Path) -> BTreeMap<String, String> {
    let status = Program::new(root().join("scripts/compose-passwords")).arg(file).status().expect("it runs");
    assert!(status.success());
    let text = std::fs::read_to_string(file).expect("a file");
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn compose_starts_with_no_password_that_was_not_drawn() {
    let compose = read("docker-compose.yml");
    let all = variables(&compose);
    assert!(all.iter().all(|(name, is_optional)| name.ends_with("_PORT") == *is_optional), "{all:?}");
    let required: BTreeSet<&str> = all.iter().filter(|(_, is_optional)| !is_optional).map(|(name, _)| *name).collect();

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("env-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, "PAYBUS_AMQP_PORT=5673\nPAYBUS_POSTGRES_PASSWORD=of before").expect("written");
    let drawn = draw(&file);
    let again = draw(&file);
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    std::fs::remove_file(&file).expect("removed");

    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(drawn, again, "passwords that services were started with stay");
    assert_eq!(drawn["PAYBUS_POSTGRES_PASSWORD"], "of before");
    let names: BTreeSet<&str> = drawn.keys().map(String::as_str).filter(|name| name.ends_with("_PASSWORD")).collect();
    assert_eq!(names, required);
    let new: BTreeSet<&String> = drawn.values().filter(|value| value.len() == 48).collect();
    assert_eq!(new.len(), required.len() - 1, "all passwords differ: {drawn:?}");
}
