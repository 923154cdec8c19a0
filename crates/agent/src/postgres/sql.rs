//! Identifiers and literals in SQL text, for statements that take no parameters (`CREATE ROLE`, `GRANT`).

/// `"name"`, quotes of its own doubled.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`; with a backslash in it ` E'text'`, which means the same under either `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    let quotes_doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", quotes_doubled.replace('\\', "\\\\")),
        false => format!("'{quotes_doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        assert_eq!(identifier(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
    }
}
