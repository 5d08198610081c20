//! What an unknown key was probably meant to be.

use super::shape::{Key, Secrecy, Shape};

/// Most typing mistakes in a key that is still recognised.
const MISTAKES_MAX: usize = 2;

/// Help for an unknown key.
pub(super) struct Suggestion {
    /// `did you mean …`, or the keys that exist.
    pub(super) mend: String,
    /// Whether the value may be shown: only when the key that was meant is known, and is not a secret.
    pub(super) value_may_show: bool,
}

/// Finds what `name`, unknown in the section `place` (dotted path `section`), was meant to be: a key or section
/// of nearly the same name right there, or one of exactly this name elsewhere.
pub(super) fn suggest(whole: &Shape, place: &Shape, section: &str, name: &str) -> Suggestion {
    let Shape::Section(known) = place else {
        return Suggestion { mend: "remove it".to_owned(), value_may_show: false };
    };
    let allowed = MISTAKES_MAX.min(name.chars().count() / 3);
    let near = known.iter().map(|(key, shape)| (distance(name, key), key, shape));
    if let Some((_, key, shape)) = near.filter(|(far, ..)| *far <= allowed).min_by_key(|(far, ..)| *far) {
        // In the file form of a secret the secret itself may stand, by another mistake.
        let open = matches!(shape, Shape::Key(Key { secrecy: Secrecy::Open, .. })) && !key.ends_with("_file");
        return Suggestion { mend: format!("did you mean `{key}`?"), value_may_show: open };
    }
    let mut elsewhere = Vec::new();
    let mut all_open = true;
    whole.each_key(&mut |path, key| {
        if path.rsplit('.').next() == Some(name) {
            all_open &= key.secrecy == Secrecy::Open && !name.ends_with("_file");
            elsewhere.push(format!("`{path}`"));
        }
    });
    if !elsewhere.is_empty() {
        let mend = format!("did you mean {}?", elsewhere.join(" or "));
        return Suggestion { mend, value_may_show: all_open };
    }
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    let place = if section.is_empty() { "the sections are".to_owned() } else { format!("{section} knows") };
    Suggestion { mend: format!("{place} {}", names.join(", ")), value_may_show: false }
}

/// Levenshtein distance: insertions, deletions and replacements from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(section: &str, name: &str) -> String {
        let whole = Shape::of_config();
        let place = section.split('.').try_fold(&whole, |place, part| place.child(part)).unwrap();
        suggest(&whole, place, section, name).mend
    }

    #[test]
    fn a_mistyped_key_is_recognised_and_a_misplaced_one_is_found() {
        assert_eq!(mend("source.rabbitmq", "prefech"), "did you mean `prefetch`?");
        assert_eq!(mend("dashdoc", "prefetch"), "did you mean `source.rabbitmq.prefetch`?");
        assert_eq!(mend("shutdown", "colour"), "shutdown knows grace");
    }

    #[test]
    fn the_distance_counts_single_edits() {
        for (a, b, edits) in
            [("", "abc", 3), ("prefech", "prefetch", 1), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), edits);
        }
    }
}
