//! The arguments of a request's URL, read strictly: a statement that was decoded otherwise than it was
//! meant would run all the same.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// The arguments of a query string by name, in order.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Reads `name=value&…`.
    ///
    /// # Errors
    /// 400 for what is not UTF-8, and for a name that is there twice: one of the two values would be
    /// ignored.
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut arguments = Self::default();
        for argument in query.split('&').filter(|argument| !argument.is_empty()) {
            let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
            let name = decode(name).ok_or_else(|| {
                Problem::bad_request("the name of an argument in the URL is not UTF-8")
            })?;
            let value = decode(value).ok_or_else(|| {
                Problem::bad_request(format!("{name} in the URL is not UTF-8; encode it as UTF-8"))
            })?;
            if arguments.get(&name).is_some() {
                let detail = format!("{name} is in the URL more than once; send it once");
                return Err(Problem::bad_request(detail));
            }
            arguments.0.push((name, value));
        }
        Ok(arguments)
    }

    /// The value of an argument; empty for one that is named alone.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// An argument that is on or off: off when it is absent, on when it is named alone.
    ///
    /// # Errors
    /// 400 for a value that is neither.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                let detail = format!("{name} is {other:?}; use true or false");
                Err(Problem::bad_request(detail))
            }
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Form encoding: a plus is a space.
fn decode(text: &str) -> Option<String> {
    let text = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(query: &str) -> Option<bool> {
        Arguments::parse(query).expect("it parses").flag("strict").ok()
    }

    #[test]
    fn a_flag_is_what_it_says() {
        for on in ["strict", "strict=", "strict=true", "a=b&strict=1"] {
            assert_eq!(flag(on), Some(true), "{on}");
        }
        for off in ["", "stricter", "strict=false", "strict=0"] {
            assert_eq!(flag(off), Some(false), "{off}");
        }
        for neither in ["strict=no", "strict=TRUE", "strict=2", "strict=%20"] {
            assert_eq!(flag(neither), None, "{neither}");
        }
    }

    #[test]
    fn what_cannot_be_read_as_meant_is_refused() {
        for query in ["sql=%E9", "%E9=1", "sql=select+%FF", "sql=a&sql=b", "limit=1&limit=1"] {
            assert!(Arguments::parse(query).is_err(), "{query}");
        }
        let arguments = Arguments::parse("sql=a%2Bb+%C3%A9&&x=1=2").expect("it parses");
        assert_eq!(arguments.get("sql"), Some("a+b é"));
        assert_eq!(arguments.get("x"), Some("1=2"));
    }
}
