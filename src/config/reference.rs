//! The embedded reference, `config/default.toml`: all defaults, and the order in which sections are shown.

/// Every setting with its default and what it means.
pub const REFERENCE: &str = include_str!("../../config/default.toml");

/// Sections and keys in the order of the reference, commented-out ones included: `("source.rabbitmq", "url")`.
pub(super) fn keys() -> Vec<(&'static str, &'static str)> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in REFERENCE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.push((section, key));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::layer::Layers;
    use super::super::shape::Shape;
    use super::*;

    #[test]
    fn every_key_stands_in_the_reference_and_the_reference_knows_no_other() {
        let mut known = Vec::new();
        Shape::of_config().each_key(&mut |path, _| known.push(path.to_owned()));
        let mut written: Vec<_> = keys()
            .into_iter()
            .map(|(section, key)| format!("{}.{key}", section.replace("accounts.acme", "accounts.NAME")))
            .collect();
        known.sort();
        written.sort();
        assert_eq!(written, known);
    }

    #[test]
    fn every_commented_example_in_the_reference_would_be_accepted() {
        let uncommented: String = REFERENCE
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| line.starts_with('[') || line.contains(" = "))
            .flat_map(|line| [line, "\n"])
            .collect();
        let shape = Shape::of_config();
        let mut layers = Layers::over_reference(&shape);
        layers.add_toml("all.toml".as_ref(), &uncommented);
        layers.settle();
        assert_eq!(layers.problems.to_string(), "");
    }
}
