//! Inputs as fields with a separator, so that seeds can be read and written by hand.

/// ASCII's unit separator: in no field by chance, and no reason for tools to call a seed binary.
const SEPARATOR: u8 = 0x1f;

/// `N` fields; the last takes the rest, those that are missing are empty.
pub(crate) fn split<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut fields = [&input[..0]; N];
    for (field, part) in fields.iter_mut().zip(input.splitn(N, |byte| *byte == SEPARATOR)) {
        *field = part;
    }
    fields
}

/// A field as text; nothing where it is empty or not UTF-8.
pub(crate) fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok().filter(|text| !text.is_empty())
}

/// A field as a number; nothing where it is none.
pub(crate) fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    text(field)?.parse().ok()
}
