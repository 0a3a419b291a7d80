//! Every crate this program is made of has a licence that `deny.toml` allows.
//!
//! `cargo deny` checks the same and more; building it takes longer than everything else in CI, so what must never be
//! missed is checked here.

use std::{collections::BTreeSet, fs, process::Command};

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let allowed = allowed();
    for (package, licence) in packages() {
        assert!(
            satisfies(&licence, &allowed),
            "{package} has the licence {licence}"
        );
    }
}

#[test]
fn a_licence_expression_is_met_by_one_side_of_or_and_both_of_and() {
    let allowed = ["MIT", "Zlib"].map(str::to_owned).into();
    check("MIT", &allowed, true);
    check("GPL-3.0 OR MIT", &allowed, true);
    check("GPL-3.0/MIT", &allowed, true);
    check("MIT AND Zlib", &allowed, true);
    check("MIT AND GPL-3.0", &allowed, false);
    check("(GPL-3.0 OR MIT) AND Zlib", &allowed, true);
    check("(GPL-3.0 OR MIT) AND BSD-2-Clause", &allowed, false);
    check("GPL-3.0", &allowed, false);
}

#[track_caller]
fn check(expression: &str, allowed: &BTreeSet<String>, want: bool) {
    assert_eq!(satisfies(expression, allowed), want, "{expression}");
}

/// SPDX, as far as crates use it: `AND`, `OR` (or the older `/`), `WITH` as part of a name, brackets around one side.
fn satisfies(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim();
    let split_at = |operator: &str| {
        let mut depth = 0;
        expression.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            let found = depth == 0 && expression[at..].starts_with(operator);
            found.then(|| (&expression[..at], &expression[at + operator.len()..]))
        })
    };
    // OR binds weaker than AND, so it is looked for first.
    if let Some((left, right)) = split_at(" OR ").or_else(|| split_at("/")) {
        return satisfies(left, allowed) || satisfies(right, allowed);
    }
    if let Some((left, right)) = split_at(" AND ") {
        return satisfies(left, allowed) && satisfies(right, allowed);
    }
    match expression
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) => satisfies(inner, allowed),
        None => allowed.contains(expression),
    }
}

/// The list `allow` of deny.toml, which has one licence a line.
fn allowed() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let text = fs::read_to_string(path).expect("deny.toml");
    let list = text
        .split("allow = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    let lines = list.expect("a list of licences").lines();
    lines
        .filter_map(|line| Some(line.trim().strip_suffix(',')?.trim_matches('"').to_owned()))
        .collect()
}

/// Name and licence of every package that is built for this machine.
fn packages() -> Vec<(String, String)> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // Offline: whatever could be built has been fetched.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &target, "--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo's metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let row = |package: &serde_json::Value| {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none");
        (name.to_owned(), licence.to_owned())
    };
    packages.iter().map(row).collect()
}
