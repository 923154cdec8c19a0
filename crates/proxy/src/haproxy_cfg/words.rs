//! The words of a line, as HAProxy splits them: blanks, comments, escapes, both kinds of quotes, variables.

/// Why a line cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("a quote is opened and not closed on this line")]
    OpenQuote,
    #[error("`\\x` must be followed by two hexadecimal digits")]
    BadHex,
    #[error("a variable in double quotes is not `$NAME` or `${{NAME}}`")]
    BadVariable,
}

/// The words of a line without its comment, and the variables in double quotes that have no value: HAProxy puts an empty
/// text in their place.
type Words = (Vec<String>, Vec<String>);

/// Splits `text` (one line) into words. `environment` answers for variables in double quotes.
pub fn split(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Words, WordsError> {
    let mut splitter =
        Splitter { chars: text.chars().peekable(), environment, words: vec![], word: None, unset: vec![] };
    splitter.run()?;
    Ok((splitter.words, splitter.unset))
}

struct Splitter<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    words: Vec<String>,
    /// `None` between words; an empty pair of quotes makes an empty word.
    word: Option<String>,
    unset: Vec<String>,
}

impl Splitter<'_> {
    fn run(&mut self) -> Result<(), WordsError> {
        while let Some(c) = self.chars.next() {
            match c {
                ' ' | '\t' | '\r' => self.words.extend(self.word.take()),
                '#' => break,
                '\\' => {
                    let c = self.escape()?;
                    self.push(c);
                }
                '\'' => self.strong_quote()?,
                '"' => self.weak_quote()?,
                c => self.push(c),
            }
        }
        self.words.extend(self.word.take());
        Ok(())
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn escape(&mut self) -> Result<char, WordsError> {
        Ok(match self.chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('x') => {
                let mut digit = || self.chars.next().and_then(|c| c.to_digit(16)).ok_or(WordsError::BadHex);
                let code = digit()? * 16 + digit()?;
                char::from_u32(code).ok_or(WordsError::BadHex)?
            }
            Some(other) => other,
            None => '\\',
        })
    }

    fn strong_quote(&mut self) -> Result<(), WordsError> {
        self.word.get_or_insert_default();
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(()),
                Some(c) => self.push(c),
                None => return Err(WordsError::OpenQuote),
            }
        }
    }

    fn weak_quote(&mut self) -> Result<(), WordsError> {
        self.word.get_or_insert_default();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('\\') => {
                    let c = self.escape()?;
                    self.push(c);
                }
                Some('$') => self.variable()?,
                Some(c) => self.push(c),
                None => return Err(WordsError::OpenQuote),
            }
        }
    }

    fn variable(&mut self) -> Result<(), WordsError> {
        let braces = self.chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        if name.is_empty() || braces && self.chars.next() != Some('}') {
            return Err(WordsError::BadVariable);
        }
        match (self.environment)(&name) {
            Some(value) => self.word.get_or_insert_default().push_str(&value),
            None => self.unset.push(name),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_haproxy_splits_them() {
        let environment = |name: &str| (name == "PORT").then(|| "5432".to_owned());
        let words = |text: &str| split(text, &environment).map(|(words, _)| words.join("|"));
        for (text, expected) in [
            ("  bind *:5432 # a comment", Ok("bind|*:5432")),
            ("bind\t*:5432\r", Ok("bind|*:5432")),
            ("# only a comment", Ok("")),
            (r"a\ b \# c\#", Ok("a b|#|c#")),
            (r#"'a "b" \n' "c 'd'""#, Ok(r#"a "b" \n|c 'd'"#)),
            (r#"bind "*:${PORT}" "$PORT""#, Ok("bind|*:5432|5432")),
            (r#"bind "${NONE}""#, Ok("bind|")),
            (r"\x41\t", Ok("A\t")),
            ("Описание проверки", Ok("Описание|проверки")),
            ("'open", Err(WordsError::OpenQuote)),
            (r"\xZZ", Err(WordsError::BadHex)),
            (r#""${A""#, Err(WordsError::BadVariable)),
        ] {
            assert_eq!(words(text), expected.map(str::to_owned), "{text}");
        }
    }
}
