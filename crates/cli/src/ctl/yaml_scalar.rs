//! How one scalar is written in YAML: plain where a YAML 1.1 reader takes it for the same text, else in quotes.
//!
//! Not here: collections (`yaml`). The rules are those of the YAML 1.1 types (`yes`, `on`, `012` and `1:20` are not
//! text there) and of PyYAML's choices among the styles that YAML allows. Tested below against literal output.

use serde_json::Number;

/// Where a scalar stands; both narrow what may be written without quotes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Inside braces or brackets.
    pub flow: bool,
    /// A key before a colon, on one line.
    pub simple_key: bool,
}

/// A line break in YAML 1.1.
pub fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// `column` is where the text begins, `indent` where a broken line goes on.
pub fn string(text: &str, place: Place, width: usize, column: usize, indent: usize) -> String {
    let shape = Shape::of(text);
    let plain_allowed = if place.flow { shape.flow_plain } else { shape.block_plain };
    let empty_needs_quotes = text.is_empty() && (place.flow || place.simple_key);
    let mut writer = Writer { text: String::new(), column, width, indent, split: !place.simple_key };
    if plain_allowed && !shape.many_lines && !empty_needs_quotes && !reads_as_other_type(text) {
        writer.words(text, false);
    } else if shape.single_quotes && !(place.simple_key && shape.many_lines) {
        writer.put("'");
        writer.words(text, true);
        writer.put("'");
    } else {
        writer.double_quoted(text);
    }
    writer.text
}

/// A float always has a point, as YAML 1.1 wants it: `1.0e+20`.
pub fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_text(float),
        _ => number.to_string(),
    }
}

/// As Python prints it: the fewest digits that mean it, always with a point or an exponent.
pub fn python_float(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format {:e} has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent of {:e} is a whole number");
    if (-4..16).contains(&exponent) {
        let text = float.to_string();
        return if text.contains('.') { text } else { format!("{text}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The same, and an exponent has a point before it.
fn float_text(float: f64) -> String {
    let text = python_float(float);
    if text.contains('.') { text } else { text.replacen('e', ".0e", 1) }
}

/// What the characters of a text allow.
struct Shape {
    flow_plain: bool,
    block_plain: bool,
    single_quotes: bool,
    many_lines: bool,
}

impl Shape {
    fn of(text: &str) -> Shape {
        let characters: Vec<char> = text.chars().collect();
        let Some((&first, &last)) = characters.first().zip(characters.last()) else {
            return Shape { flow_plain: false, block_plain: true, single_quotes: true, many_lines: false };
        };
        let is_gap = |c: Option<&char>| c.is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(*c));
        let mut flow_indicator = text.starts_with("---") || text.starts_with("...");
        let mut block_indicator = flow_indicator;
        for (position, &c) in characters.iter().enumerate() {
            let gap_before = position == 0 || is_gap(characters.get(position - 1));
            let gap_after = is_gap(characters.get(position + 1));
            let (flow, block) = match c {
                '#' => (gap_before, gap_before),
                ':' => (true, gap_after),
                ',' | '?' | '[' | ']' | '{' | '}' if position > 0 => (true, false),
                '?' => (true, gap_after),
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
                    (position == 0, position == 0)
                }
                '-' => (position == 0 && gap_after, position == 0 && gap_after),
                _ => (false, false),
            };
            flow_indicator |= flow;
            block_indicator |= block;
        }
        let pairs = || characters.windows(2).map(|pair| (pair[0], pair[1]));
        let special = !characters.iter().all(|c| is_printable(*c));
        let space_before_break = pairs().any(|(a, b)| a == ' ' && is_break(b));
        let space_after_break = pairs().any(|(a, b)| is_break(a) && b == ' ');
        let many_lines = characters.iter().any(|c| is_break(*c));
        let ragged = [first, last].iter().any(|c| *c == ' ' || is_break(*c));
        let single_quotes = !(special || space_before_break || space_after_break);
        let plain = single_quotes && !ragged && !many_lines;
        Shape {
            flow_plain: plain && !flow_indicator,
            block_plain: plain && !block_indicator,
            single_quotes,
            many_lines,
        }
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
}

/// Would a YAML 1.1 reader take this plain text for a boolean, a number, a date, null or a merge key?
fn reads_as_other_type(text: &str) -> bool {
    const WORDS: [&str; 7] = ["yes", "no", "true", "false", "on", "off", "null"];
    let lower = text.to_ascii_lowercase();
    let title = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let is_word = WORDS
        .iter()
        .any(|word| lower == *word && (text == *word || text == word.to_ascii_uppercase() || text == title(word)));
    is_word || matches!(text, "" | "~" | "=" | "<<") || is_integer(text) || is_float(text) || is_timestamp(text)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(|b| b == b'_' || allowed(b))
}

fn is_decimal(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all(text, |b| b.is_ascii_digit())
}

/// `1:20:30`, in base 60, after the first part.
fn is_sixties<'a>(mut parts: impl Iterator<Item = &'a str>) -> bool {
    let is_sixty = |part: &str| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    parts.all(is_sixty)
}

fn is_integer(text: &str) -> bool {
    let digits = unsigned(text);
    if let Some(binary) = digits.strip_prefix("0b") {
        return !binary.is_empty() && all(binary, |b| matches!(b, b'0' | b'1'));
    }
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return !hexadecimal.is_empty() && all(hexadecimal, |b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = digits.strip_prefix('0') {
        return all(octal, |b| (b'0'..=b'7').contains(&b));
    }
    let mut parts = digits.split(':');
    is_decimal(parts.next().unwrap_or_default()) && is_sixties(parts)
}

fn is_float(text: &str) -> bool {
    let digits = unsigned(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, fraction)) = digits.split_once('.') else { return false };
    if let Some((first, sixties)) = whole.split_once(':') {
        return is_decimal(first) && is_sixties(sixties.split(':')) && all(fraction, |b| b.is_ascii_digit());
    }
    let (fraction, exponent) = match fraction.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (fraction, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = unsigned(exponent);
        digits.len() < exponent.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let fraction_fits = all(fraction, |b| b.is_ascii_digit());
    let whole_fits = match whole {
        "" => digits.len() == text.len() && fraction.starts_with(|c: char| c.is_ascii_digit()),
        _ => is_decimal(whole),
    };
    exponent_fits && fraction_fits && whole_fits
}

/// `2001-01-01`, or `2001-1-1 1:02:03.4 +01:00` with its parts optional as YAML 1.1 has them.
fn is_timestamp(text: &str) -> bool {
    let is_number = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let date_end = text.find(['T', 't', ' ', '\t']);
    let (date, time) = text.split_at(date_end.unwrap_or(text.len()));
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let (Some(year), Some(month), Some(day), None) = (year, month, day, parts.next()) else { return false };
    if time.is_empty() {
        return is_number(year, 4..=4) && is_number(month, 2..=2) && is_number(day, 2..=2);
    }
    if !(is_number(year, 4..=4) && is_number(month, 1..=2) && is_number(day, 1..=2)) {
        return false;
    }
    let time = time.strip_prefix(['T', 't']).unwrap_or_else(|| time.trim_start_matches([' ', '\t']));
    let clock_end = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(time.len());
    let (clock, zone) = time.split_at(clock_end);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next(), parts.next(), parts.next());
    let (Some(hour), Some(minute), Some(second), None) = (hour, minute, second, parts.next()) else { return false };
    let clock_fits = is_number(hour, 1..=2) && is_number(minute, 2..=2) && is_number(second, 2..=2);
    let fraction_fits = fraction.bytes().all(|b| b.is_ascii_digit());
    let zone = zone.trim_start_matches([' ', '\t']);
    let zone_fits = zone.is_empty()
        || zone == "Z"
        || zone.strip_prefix(['-', '+']).is_some_and(|offset| match offset.split_once(':') {
            Some((hours, minutes)) => is_number(hours, 1..=2) && is_number(minutes, 2..=2),
            None => is_number(offset, 1..=2),
        });
    clock_fits && fraction_fits && zone_fits
}

struct Writer {
    text: String,
    column: usize,
    width: usize,
    indent: usize,
    /// May the text be broken over lines?
    split: bool,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', self.indent));
        self.column = self.indent;
    }

    /// Plain or single-quoted text: a single space past the width becomes a line break; a real line break is written as
    /// an empty line.
    fn words(&mut self, text: &str, quoted: bool) {
        let characters: Vec<char> = text.chars().collect();
        let at = |position: usize| characters.get(position).copied();
        let mut position = 0;
        while let Some(c) = at(position) {
            let next = at(position + 1);
            if is_break(c) {
                let run = characters[position..].iter().take_while(|c| is_break(**c)).count();
                if c == '\n' {
                    self.text.push('\n');
                }
                for other in &characters[position..position + run] {
                    self.text.push(*other);
                }
                self.text.extend(std::iter::repeat_n(' ', self.indent));
                self.column = self.indent;
                position += run;
                continue;
            }
            let lone_space = c == ' ' && next != Some(' ') && (position == 0 || at(position - 1) != Some(' '));
            let inner = position > 0 && next.is_some();
            if lone_space && self.split && self.column > self.width && (inner || !quoted) {
                self.line();
            } else if c == '\'' && quoted {
                self.put("''");
            } else {
                self.put(c.encode_utf8(&mut [0; 4]));
            }
            position += 1;
        }
    }

    /// Everything that cannot be seen is escaped; a backslash at the end of a line joins it to the next.
    fn double_quoted(&mut self, text: &str) {
        let characters: Vec<char> = text.chars().collect();
        self.put("\"");
        let mut run = String::new();
        for (position, &c) in characters.iter().enumerate() {
            let safe = matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && !is_break(c);
            let escaped = !safe || matches!(c, '"' | '\\' | '\u{feff}');
            if escaped {
                let pending = std::mem::take(&mut run);
                self.put(&pending);
                self.put(&escape(c));
            }
            let inner = position > 0 && position + 1 < characters.len();
            let may_break = c == ' ' || escaped;
            if self.split && inner && may_break && self.column + run.chars().count() > self.width {
                let pending = std::mem::take(&mut run);
                self.put(&pending);
                self.put("\\");
                self.line();
                let continues_with = if escaped { characters.get(position + 1) } else { Some(&c) };
                if continues_with == Some(&' ') {
                    self.put("\\");
                }
            }
            if !escaped {
                run.push(c);
            }
        }
        self.put(&run);
        self.put("\"");
    }
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            return match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02X}"),
                code @ 0x100..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_block(text: &str) -> String {
        string(text, Place { flow: false, simple_key: false }, 200, 4, 2)
    }

    /// The expected text is what PyYAML 6.0.3 wrote.
    #[test]
    fn texts_are_quoted_as_pyyaml_quotes_them() {
        let as_they_are = [
            "1e3",
            "0o17",
            "-x",
            "a:b",
            "r#b",
            "x'y",
            "x\"y",
            "?x",
            "a,b",
            "a]b",
            ":x",
            "a\\b",
            "a , b",
            "y",
            "n",
            "09",
            "08",
            "1.2.3",
            "2001-1-1",
            "2001-1-1T1:2:3Z",
            "é",
            "日本",
            "😀",
            "1e5",
            "\u{a0}",
            "postgres",
            "host=a b",
        ];
        for text in as_they_are {
            assert_eq!(in_block(text), text);
        }
        let quoted = [
            "",
            "yes",
            "null",
            "~",
            "1",
            "1.5",
            "0x1f",
            "017",
            "2001-01-01",
            "12:30:45",
            "- x",
            "a: b",
            "a #b",
            "[x",
            "{x",
            "*x",
            "&x",
            "!x",
            "|x",
            "%x",
            "@x",
            "`x",
            "\"x",
            " x",
            "x ",
            "?",
            "? x",
            "-",
            "--- x",
            "...",
            "=",
            "<<",
            "[a]",
            "off",
            ".5",
            "5.",
            "1_000",
            "+1",
            ".inf",
            ".nan",
            "1:20",
            "x: ",
            "x:",
            "1.0e+5",
            "NO",
            "0b11",
            "2001-01-01 10:00:00",
        ];
        for text in quoted {
            assert_eq!(in_block(text), format!("'{text}'"));
        }
        let others = [
            ("'x", "'''x'"),
            ("x\ny", "'x\n\n  y'"),
            ("x\n", "'x\n\n  '"),
            ("\nx", "'\n\n  x'"),
            ("x\n\ny", "'x\n\n\n  y'"),
            ("tab\tx", "\"tab\\tx\""),
            ("\u{7}", "\"\\a\""),
            ("x \ny", "\"x \\ny\""),
            ("x\n y", "\"x\\n y\""),
            ("\u{feff}x", "\"\\uFEFFx\""),
            ("\u{80}", "\"\\x80\""),
            ("\r\nx", "\"\\r\\nx\""),
        ];
        for (text, expected) in others {
            assert_eq!(in_block(text), expected);
        }
    }

    #[test]
    fn inside_braces_more_is_quoted() {
        let place = Place { flow: true, simple_key: false };
        for (text, expected) in
            [("a,b", "'a,b'"), ("a:b", "'a:b'"), ("?x", "'?x'"), ("a]b", "'a]b'"), ("-x", "-x"), ("r#b", "r#b")]
        {
            assert_eq!(string(text, place, 200, 0, 2), expected);
        }
    }

    #[test]
    fn floats_have_a_point() {
        for (float, expected) in [
            (1.5, "1.5"),
            (1e16, "1.0e+16"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (1e-5, "1.0e-05"),
            (1e100, "1.0e+100"),
            (-0.0, "-0.0"),
            (2.5e-10, "2.5e-10"),
            (100.0, "100.0"),
        ] {
            assert_eq!(float_text(float), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_written(text in ".{0,400}", flow: bool, simple_key: bool) {
            let written = string(&text, Place { flow, simple_key }, 40, 3, 2);
            prop_assert!(text.is_empty() || !written.is_empty());
        }
    }
}
