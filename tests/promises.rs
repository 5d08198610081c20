//! The README names a test for each promise; these tests see that they are there.

#![expect(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::path::Path;

/// All Rust sources below `directory`, one after the other.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_readme_names_for_a_promise_exists() {
    let readme = include_str!("../README.md");
    let guarantees = readme.split_once("## Guarantees").unwrap().1.split_once("\n## ").unwrap().0;
    let mut text = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    let is_name = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let named: Vec<&str> = guarantees.split('`').skip(1).step_by(2).filter(is_name).collect();
    let missing: Vec<_> = named.iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    println!("{} tests are named", named.len());
    assert!(named.len() > 20 && missing.is_empty(), "no such tests: {missing:?}");
}
