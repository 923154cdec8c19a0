//! The text of `synchronous_standby_names`: whom the commits of a primary wait for.

use std::fmt::Write;

/// What Patroni writes where strict mode finds nobody: no standby has this name, so every commit waits.
pub const NOBODY: &str = "__patroni_strict_sync_replica_placeholder__";

/// Whom commits wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyNames {
    pub method: Method,
    /// How many of them must have flushed a commit.
    pub count: usize,
    /// Sorted. Empty: commits wait for nobody.
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The first of the list that are connected.
    #[default]
    First,
    /// Any of the list.
    Any,
}

impl StandbyNames {
    pub fn new(method: Method, count: usize, names: impl IntoIterator<Item = String>) -> StandbyNames {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        StandbyNames { method, count: count.min(names.len()), names }
    }

    pub fn nobody_at_all(method: Method) -> StandbyNames {
        StandbyNames::new(method, 1, [NOBODY.to_owned()])
    }

    /// As the setting holds it; to the byte as Patroni writes it.
    pub fn text(&self) -> String {
        let list = self.names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",");
        match (self.method, self.count) {
            (_, 0) => String::new(),
            (Method::First, 1) if self.names.len() == 1 => list,
            (Method::First, count) => format!("{count} ({list})"),
            (Method::Any, count) => format!("ANY {count} ({list})"),
        }
    }

    /// Reads what a server has in force. `None`: it is not of the forms that name every standby (`*`, or a text that PostgreSQL would refuse).
    pub fn parse(text: &str) -> Option<StandbyNames> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let mut method = Method::First;
        if let Some(Token::Word(word)) = tokens.peek() {
            let any = word.eq_ignore_ascii_case("any");
            if any || word.eq_ignore_ascii_case("first") {
                method = if any { Method::Any } else { Method::First };
                tokens.next();
            }
        }
        let rest: Vec<Token> = tokens.collect();
        if rest.is_empty() {
            return (text.trim().is_empty()).then(StandbyNames::default);
        }
        let (count, list) = match rest.as_slice() {
            [Token::Word(count), Token::Open, list @ .., Token::Close] => (count.parse().ok()?, list),
            list => (1, list),
        };
        let names = list_of_names(list)?;
        (count >= 1 && count <= names.len()).then(|| StandbyNames::new(method, count, names))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        found.push(match letter {
            ' ' | '\t' | '\n' | '\r' => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next()? {
                        '"' if rest.peek() == Some(&'"') => name.extend(rest.next()),
                        '"' => break,
                        other => name.push(other),
                    }
                }
                Token::Quoted(name)
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | '"')) {
                    word.push(next);
                }
                Token::Word(word)
            }
        });
    }
    Some(found)
}

fn list_of_names(list: &[Token]) -> Option<Vec<String>> {
    let names = list.iter().step_by(2).map(|token| match token {
        Token::Word(word) if word != "*" => Some(word.clone()),
        Token::Quoted(name) => Some(name.clone()),
        _ => None,
    });
    let separated = list.len() % 2 == 1 && list.iter().skip(1).step_by(2).all(|token| *token == Token::Comma);
    if separated { names.collect() } else { None }
}

/// PostgreSQL's grammar takes a plain word only where it is no keyword of it.
fn quoted(name: &str) -> String {
    let mut letters = name.bytes();
    let plain = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
        && !["first", "any"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain {
        return name.to_owned();
    }
    let mut text = String::from("\"");
    for letter in name.chars() {
        if letter == '"' {
            text.push('"');
        }
        let _ = text.write_char(letter);
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(method: Method, count: usize, names: &[&str]) -> StandbyNames {
        StandbyNames::new(method, count, names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn texts_are_those_of_patroni() {
        for (given, text) in [
            (names(Method::First, 1, &["a"]), "a"),
            (names(Method::First, 1, &["node 1"]), "\"node 1\""),
            (names(Method::First, 2, &["b", "a-1"]), "2 (\"a-1\",b)"),
            (names(Method::Any, 1, &["a"]), "ANY 1 (a)"),
            (names(Method::Any, 1, &["b", "first"]), "ANY 1 (b,\"first\")"),
            (names(Method::First, 1, &[]), ""),
            (StandbyNames::nobody_at_all(Method::First), NOBODY),
            (StandbyNames::nobody_at_all(Method::Any), &format!("ANY 1 ({NOBODY})")),
        ] {
            assert_eq!(given.text(), text);
            assert_eq!(StandbyNames::parse(text).map(|read| read.text()).as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn what_others_wrote_is_read() {
        for (text, expected) in [
            ("a, b", Some(names(Method::First, 1, &["a", "b"]))),
            ("FIRST 2 (a, \"b\"\"c\")", Some(names(Method::First, 2, &["a", "b\"c"]))),
            (" any 1(x,y)", Some(names(Method::Any, 1, &["x", "y"]))),
            ("*", None),
            ("ANY 1 (*)", None),
            ("2 (a)", None),
            ("a b", None),
            ("\"a", None),
            ("(", None),
        ] {
            assert_eq!(StandbyNames::parse(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_reads_back(list in proptest::collection::btree_set("\\PC{1,8}", 1..4), any: bool, count in 1_usize..4) {
            let given = StandbyNames::new(if any { Method::Any } else { Method::First }, count.min(list.len()), list);
            let read = StandbyNames::parse(&given.text());
            proptest::prop_assert_eq!(read.map(|read| (read.count, read.names)), Some((given.count, given.names)));
        }

        #[test]
        fn any_text_is_survived(text in "[\\PC\"(),* ]*") {
            let _ = StandbyNames::parse(&text);
        }
    }
}
