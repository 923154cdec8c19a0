//! Tables in the four formats of the operator's commands, as Patroni's console prints them.
//!
//! A cell is a JSON value: text, a number or (in `json` and `yaml`) an object. Not here: what stands in the cells
//! (`list`, `history`). Tested below against literal output.

use std::borrow::Cow;

use clap::ValueEnum;
use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{json, yaml};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Pretty,
    Tsv,
    Json,
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: Cow<'static, str>,
    pub align: Align,
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Spliced into the upper border in `pretty`, not shown elsewhere.
    pub title: Option<String>,
    pub columns: Vec<Column>,
    /// As many cells a row as there are columns; an empty text is an empty cell.
    pub rows: Vec<Vec<Value>>,
    /// In `json` and `yaml`, leave empty cells out instead of writing an empty text.
    pub omit_empty: bool,
}

impl Table {
    /// Ends with a line feed (in `yaml`, with an empty line).
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Pretty => self.pretty(),
            Format::Tsv => self.delimited("\t"),
            Format::Json => json::line(&self.objects()),
            Format::Yaml => yaml::block(&self.objects()) + "\n",
        }
    }

    /// A line of names and a line a row, with `delimiter` between the cells.
    pub fn delimited(&self, delimiter: &str) -> String {
        let names = self.columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| row.iter().map(text).collect());
        std::iter::once(names).chain(rows).map(|cells: Vec<String>| cells.join(delimiter) + "\n").collect()
    }

    fn objects(&self) -> Value {
        let object = |row: &Vec<Value>| -> Map<String, Value> {
            let cells = self.columns.iter().map(|column| column.name.to_string()).zip(row.iter().cloned());
            cells.filter(|(_, cell)| !(self.omit_empty && text(cell).is_empty())).collect()
        };
        Value::Array(self.rows.iter().map(|row| Value::Object(object(row))).collect())
    }

    fn pretty(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|column| column.name.to_string()).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(text).collect()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                let cells = std::iter::once(&header).chain(&rows).filter_map(|row| row.get(index));
                cells.flat_map(|cell| cell.split('\n')).map(UnicodeWidthStr::width).max().unwrap_or(0)
            })
            .collect();
        let border = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
        let border = format!("+{border}+\n");
        let mut lines = match &self.title {
            Some(title) => titled(&border, title),
            None => border.clone(),
        };
        self.push_row(&mut lines, &header, &widths);
        lines.push_str(&border);
        // With a cell of several lines it is not plain where a row ends, so each gets a rule.
        let rule_between = rows.iter().flatten().any(|cell| cell.contains('\n'));
        for (index, row) in rows.iter().enumerate() {
            if rule_between && index > 0 {
                lines.push_str(&border);
            }
            self.push_row(&mut lines, row, &widths);
        }
        lines + &border
    }

    fn push_row(&self, lines: &mut String, row: &[String], widths: &[usize]) {
        let height = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
        for line in 0..height {
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths) {
                let part = cell.split('\n').nth(line).unwrap_or("");
                let space = " ".repeat(width.saturating_sub(part.width()));
                match column.align {
                    Align::Left => lines.extend(["| ", part, &space, " "]),
                    Align::Right => lines.extend(["| ", &space, part, " "]),
                }
            }
            lines.push_str("|\n");
        }
    }
}

/// A cell as text.
fn text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The upper border with the title written over it, from its second column on; its corners stay.
fn titled(border: &str, title: &str) -> String {
    let inner = border.trim_end().width().saturating_sub(2);
    let mut shown = String::new();
    for c in title.chars() {
        if shown.width() + c.width().unwrap_or(0) > inner {
            break;
        }
        shown.push(c);
    }
    let rest: String = border.chars().skip(1 + shown.width()).collect();
    format!("+{shown}{rest}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Table {
        Table {
            title: Some(" Cluster: demo ".into()),
            columns: vec![
                Column { name: "Member".into(), align: Align::Left },
                Column { name: "TL".into(), align: Align::Right },
                Column { name: "Tags".into(), align: Align::Left },
            ],
            rows: vec![vec![json!("n1"), json!(3), json!("")], vec![json!("n2"), json!(""), json!("a: é\nb: x")]],
            omit_empty: true,
        }
    }

    #[test]
    fn pretty_draws_a_rule_between_rows_when_a_cell_has_several_lines() {
        let expected = "\
+ Cluster: demo -----+
| Member | TL | Tags |
+--------+----+------+
| n1     |  3 |      |
+--------+----+------+
| n2     |    | a: é |
|        |    | b: x |
+--------+----+------+
";
        assert_eq!(example().render(Format::Pretty), expected);
    }

    #[test]
    fn the_other_formats() {
        assert_eq!(example().render(Format::Tsv), "Member\tTL\tTags\nn1\t3\t\nn2\t\ta: é\nb: x\n");
        assert_eq!(
            example().render(Format::Json),
            "[{\"Member\": \"n1\", \"TL\": 3}, {\"Member\": \"n2\", \"Tags\": \"a: \\u00e9\\nb: x\"}]\n"
        );
        assert_eq!(
            example().render(Format::Yaml),
            "- Member: n1\n  TL: 3\n- Member: n2\n  Tags: 'a: é\n\n    b: x'\n\n"
        );
        let kept = Table { omit_empty: false, ..example() };
        assert!(kept.render(Format::Json).contains("\"TL\": \"\""));
    }

    #[test]
    fn a_title_wider_than_the_table_is_cut() {
        let table = Table { title: Some(" Cluster: a name that goes on ".into()), ..example() };
        assert!(table.render(Format::Pretty).starts_with("+ Cluster: a name tha+\n| Member |"));
    }

    #[test]
    fn no_rows_and_no_title() {
        let table = Table { title: None, rows: vec![], ..example() };
        let expected =
            "+--------+----+------+\n| Member | TL | Tags |\n+--------+----+------+\n+--------+----+------+\n";
        assert_eq!(table.render(Format::Pretty), expected);
        assert_eq!(table.render(Format::Json), "[]\n");
        assert_eq!(table.render(Format::Yaml), "[]\n\n");
    }
}
