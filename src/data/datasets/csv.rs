//! Rows of a CSV file (RFC 4180): fields in quotes, separators and line ends inside of quotes.

/// The most fields of a row.
const MOST_FIELDS: usize = 100_000;

/// The rows of a text, one by one; empty lines are left out.
pub(super) struct Rows<'a> {
    rest: &'a str,
    line: usize,
    delimiter: char,
}

/// A row and the number of its first line.
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) fields: Vec<String>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(text: &'a str, delimiter: char) -> Rows<'a> {
        Rows { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1, delimiter }
    }

    /// Takes a field from the front, up to its delimiter or the end of the line.
    fn field(&mut self) -> Result<String, String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([self.delimiter, '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(field.trim().to_string());
        };
        let (mut field, mut rest) = (String::new(), quoted);
        loop {
            let end = rest.find('"').ok_or_else(|| format!("line {}: a quote is opened and not closed", self.line))?;
            field.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        let line = self.line;
        self.line += field.matches('\n').count();
        rest = rest.trim_start_matches([' ', '\r']);
        if !(rest.is_empty() || rest.starts_with([self.delimiter, '\n'])) {
            return Err(format!("line {line}: text after a closing quote; quotes inside of a field are doubled"));
        }
        self.rest = rest;
        Ok(field)
    }

    fn row(&mut self) -> Result<Row, String> {
        let (line, mut fields) = (self.line, Vec::new());
        loop {
            if fields.len() == MOST_FIELDS {
                return Err(format!("line {line}: more than {MOST_FIELDS} columns"));
            }
            fields.push(self.field()?);
            match self.rest.strip_prefix(self.delimiter) {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        Ok(Row { line, fields })
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Result<Row, String>> {
        while let Some((_, rest)) = self.rest.split_once('\n').filter(|(line, _)| line.trim().is_empty()) {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.trim().is_empty() {
            return None;
        }
        let row = self.row();
        match self.rest.strip_prefix('\n') {
            Some(rest) => {
                self.rest = rest;
                self.line += 1;
            }
            // The end, or an error.
            None => self.rest = "",
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
        Rows::new(text, ',').map(|row| row.map(|row| (row.line, row.fields))).collect()
    }

    #[test]
    fn quotes_line_ends_and_blank_lines_are_read_as_by_pythons_csv() {
        let text = "\u{feff}a, b ,c\r\n\r\n\"x,\"\"1\"\"\",\"two\nlines\",\r\n \n\"\",1,\"é\" \nend,,";
        let wanted = [(1, vec!["a", "b", "c"]), (3, vec!["x,\"1\"", "two\nlines", ""]), (6, vec!["", "1", "é"]), (7, vec!["end", "", ""])];
        assert_eq!(rows(text).unwrap(), wanted.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
        assert_eq!(rows("").unwrap(), []);
        assert_eq!(rows("\n\n").unwrap(), []);
    }

    #[test]
    fn damage_is_an_error_with_its_line() {
        assert_eq!(rows("a\n\"b").unwrap_err(), "line 2: a quote is opened and not closed");
        assert!(rows("a\n\"b\"c").unwrap_err().starts_with("line 2: text after a closing quote"));
        assert_eq!(rows(&",".repeat(MOST_FIELDS)).unwrap_err(), format!("line 1: more than {MOST_FIELDS} columns"));
    }
}
