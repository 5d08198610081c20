//! From layers to a checked [`Config`].

use std::path::PathBuf;

use serde_path_to_error::Segment;

use super::check::check;
use super::layer::Layers;
use super::origin::Origins;
use super::problem::{Problem, Problems};
use super::section::Config;
use super::shape::Shape;

/// What a configuration is made of, beside the embedded reference.
#[derive(Clone, Debug, Default)]
pub struct Sources<E> {
    /// `--config`: a TOML file.
    pub file: Option<PathBuf>,
    /// The environment, from [`environment`]. Only names that begin with [`super::ENV_PREFIX`] are looked at.
    pub env: E,
    /// `--set`: texts `key.path=VALUE`.
    pub sets: Vec<String>,
}

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Where each value came from.
    pub origins: Origins,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Problem>,
}

/// The environment of the process. A value that is not UTF-8 is passed on with replacement characters: it is then
/// wrong and visible, not silently ignored.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// Merges the layers and checks the outcome. Reads the configuration file and, to see that they hold a secret, the
/// secret files of what is enabled.
///
/// Either everything is right, or *all* problems come back at once.
pub fn load<E>(sources: Sources<E>) -> Result<Loaded, Problems>
where
    E: IntoIterator<Item = (String, String)>,
{
    let shape = Shape::of_config();
    let mut layers = Layers::over_reference(&shape);
    if let Some(path) = &sources.file {
        layers.add_file(path);
    }
    layers.add_environment(sources.env);
    layers.add_flags(&sources.sets);

    let config = layers.settle();
    let mut warnings = Vec::new();
    if layers.complete {
        warnings = check(&config, &mut layers);
    }
    let mut problems = layers.problems;
    if problems.0.is_empty() {
        let origins = layers.leaves.into_iter().map(|(key, leaf)| (key, leaf.origin)).collect();
        return Ok(Loaded { config, origins: Origins(origins), warnings });
    }
    problems.0.sort_by(|a, b| a.key.cmp(&b.key));
    Err(problems)
}

impl Layers<'_> {
    /// Settles on a typed configuration. A value that does not fit is recorded as a problem and replaced by its
    /// default, until all the rest fits: so one wrong type does not hide the next.
    pub(super) fn settle(&mut self) -> Config {
        for key in self.out_of_range() {
            self.refuse(&key);
        }
        self.let_files_replace_defaults();
        loop {
            let error = match serde_path_to_error::deserialize::<_, Config>(self.merged()) {
                Ok(config) => return config,
                Err(error) => error,
            };
            let path: Vec<String> = error
                .path()
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Map { key } => Some(key.clone()),
                    Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect();
            let key = super::layer::dotted(&path);
            assert!(
                self.leaves.contains_key(&key),
                "the reference fits the sections, so a layer above is wrong"
            );
            self.refuse(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_under_any_key_is_taken_or_blamed_on_that_key() {
        let shape = Shape::of_config();
        let mut keys = Vec::new();
        shape.each_key(&mut |key, _| keys.push(key.replace("NAME", "\"a b\"")));
        let values = [
            "true",
            "5",
            "-5",
            "9223372036854775807",
            "1.5",
            "nan",
            "inf",
            "''",
            "'text'",
            "'30s'",
            "[]",
            "[1]",
            "['a']",
            "[['a']]",
            "{}",
            "{ a = 1 }",
            "2026-01-01",
        ];
        for key in &keys {
            for value in values {
                let mut layers = Layers::over_reference(&shape);
                layers.add_toml("any.toml".as_ref(), &format!("{key} = {value}"));
                layers.settle();
                let blamed: Vec<_> = layers.problems.0.iter().map(|problem| problem.key.as_str()).collect();
                assert!(blamed.is_empty() || blamed == [key], "{key} = {value}: {blamed:?}");
            }
        }
    }
}
