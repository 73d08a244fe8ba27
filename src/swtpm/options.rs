//! Command lines as GNU `getopt_long` reads them: options anywhere, long names shortened as far as they stay unique, values behind `=` or in the
//! next argument.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Whether an option has a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    Nothing,
    Value,
    /// Behind `=` only.
    Perhaps,
}

/// One option of a program.
pub(super) struct Spec<T> {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes: Takes,
    pub(super) id: T,
}

impl<T> Spec<T> {
    pub(super) const fn flag(name: &'static str, id: T) -> Self {
        Self { name, short: None, takes: Takes::Nothing, id }
    }

    pub(super) const fn value(name: &'static str, id: T) -> Self {
        Self { name, short: None, takes: Takes::Value, id }
    }
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error("unrecognized option '{0}'")]
    Unknown(String),
    #[error("option '{given}' is ambiguous; possibilities: {all}")]
    Ambiguous { given: String, all: String },
    #[error("option '{0}' requires an argument")]
    NoValue(String),
    #[error("option '{0}' doesn't allow an argument")]
    ValueTooMany(String),
    #[error("'{0}' is no text")]
    NotText(String),
}

/// Reads a command line without the name of the program.
pub(super) struct Parser<'a, T> {
    specs: &'a [Spec<T>],
    /// Long names may stand behind one dash.
    one_dash: bool,
    rest: std::vec::IntoIter<String>,
    /// Short options that stand together.
    cluster: Vec<char>,
    /// Arguments that are no options.
    pub(super) others: Vec<String>,
    ended: bool,
}

impl<'a, T: Copy> Parser<'a, T> {
    pub(super) fn new(
        specs: &'a [Spec<T>],
        one_dash: bool,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, UsageError> {
        let text = |argument: OsString| {
            String::from_utf8(argument.into_vec())
                .map_err(|e| UsageError::NotText(String::from_utf8_lossy(e.as_bytes()).into_owned()))
        };
        let rest = arguments.into_iter().map(text).collect::<Result<Vec<_>, _>>()?.into_iter();
        Ok(Self { specs, one_dash, rest, cluster: Vec::new(), others: Vec::new(), ended: false })
    }

    /// The next option, with its value.
    pub(super) fn next_option(&mut self) -> Result<Option<(T, Option<String>)>, UsageError> {
        loop {
            if let Some(short) = self.cluster.pop() {
                return self.short(short).map(Some);
            }
            let Some(argument) = self.rest.next() else { return Ok(None) };
            if self.ended || !argument.starts_with('-') || argument == "-" {
                self.others.push(argument);
            } else if argument == "--" {
                self.ended = true;
            } else if let Some(long) = argument.strip_prefix("--") {
                return self.long(long, &argument).map(Some);
            } else if self.one_dash {
                return self.long(argument.trim_start_matches('-'), &argument).map(Some);
            } else {
                self.cluster = argument.chars().skip(1).collect();
                self.cluster.reverse();
            }
        }
    }

    /// The argument after an option's value, for the options that have two.
    pub(super) fn next_argument(&mut self) -> Option<String> {
        let at = self.rest.as_slice().first().filter(|next| !next.starts_with('-'));
        if at.is_some() { self.rest.next() } else { None }
    }

    fn short(&mut self, short: char) -> Result<(T, Option<String>), UsageError> {
        let given = format!("-{short}");
        let spec = self.specs.iter().find(|s| s.short == Some(short));
        let spec = spec.ok_or_else(|| UsageError::Unknown(given.clone()))?;
        if spec.takes != Takes::Value {
            return Ok((spec.id, None));
        }
        let mut attached: String = std::mem::take(&mut self.cluster).into_iter().rev().collect();
        if attached.is_empty() {
            attached = self.rest.next().ok_or(UsageError::NoValue(given))?;
        }
        Ok((spec.id, Some(attached)))
    }

    fn long(&mut self, long: &str, given: &str) -> Result<(T, Option<String>), UsageError> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let spec = self.find(name, given)?;
        let shown = || format!("--{}", spec.name);
        match (spec.takes, value) {
            (Takes::Nothing, Some(_)) => Err(UsageError::ValueTooMany(shown())),
            (Takes::Value, None) => match self.rest.next() {
                Some(value) => Ok((spec.id, Some(value))),
                None => Err(UsageError::NoValue(shown())),
            },
            (_, value) => Ok((spec.id, value)),
        }
    }

    fn find(&self, name: &str, given: &str) -> Result<&'a Spec<T>, UsageError> {
        if let Some(exact) = self.specs.iter().find(|s| s.name == name) {
            return Ok(exact);
        }
        let given = given.split_once('=').map_or(given, |(name, _)| name).to_owned();
        let fitting: Vec<_> = self.specs.iter().filter(|s| s.name.starts_with(name)).collect();
        match fitting.as_slice() {
            [only] if !name.is_empty() => Ok(only),
            [] | [_] => Err(UsageError::Unknown(given)),
            several => {
                let all = several.iter().map(|s| format!("'--{}'", s.name)).collect::<Vec<_>>().join(" ");
                Err(UsageError::Ambiguous { given, all })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec<u8>] = &[
        Spec { name: "daemon", short: Some('d'), takes: Takes::Nothing, id: 1 },
        Spec { name: "port", short: Some('p'), takes: Takes::Value, id: 2 },
        Spec::flag("print-capabilities", 3),
        Spec::flag("print-states", 4),
        Spec { name: "create-config-files", short: None, takes: Takes::Perhaps, id: 5 },
    ];

    type Read = (Vec<(u8, Option<String>)>, Vec<String>);

    fn read(one_dash: bool, arguments: &[&str]) -> Result<Read, UsageError> {
        let mut parser = Parser::new(SPECS, one_dash, arguments.iter().map(OsString::from))?;
        let mut found = Vec::new();
        while let Some(option) = parser.next_option()? {
            found.push(option);
        }
        Ok((found, parser.others))
    }

    #[test]
    fn reads_what_getopt_long_reads() {
        let value = |v: &str| Some(v.to_owned());
        for (line, expected) in [
            (
                &["--daemon", "-dp7", "-p", "8"][..],
                vec![(1, None), (1, None), (2, value("7")), (2, value("8"))],
            ),
            (&["--port=9", "--po", "--daemon"], vec![(2, value("9")), (2, value("--daemon"))]),
            (&["--print-c", "--create-config-files"], vec![(3, None), (5, None)]),
            (&["--create-config-files=root"], vec![(5, value("root"))]),
        ] {
            assert_eq!(read(false, line).unwrap().0, expected, "{line:?}");
        }
        let (options, others) = read(false, &["a", "-d", "--", "--daemon", "-"]).unwrap();
        assert_eq!((options, others), (vec![(1, None)], vec!["a".into(), "--daemon".into(), "-".into()]));
        assert_eq!(read(true, &["-port", "3", "-d"]).unwrap().0, [(2, value("3")), (1, None)]);
    }

    #[test]
    fn refuses_what_is_unknown_ambiguous_or_without_its_value() {
        for (line, error) in [
            (&["--deamon"][..], "unrecognized option '--deamon'"),
            (&["-x"], "unrecognized option '-x'"),
            (&["--port"], "option '--port' requires an argument"),
            (&["-p"], "option '-p' requires an argument"),
            (&["--daemon=1"], "option '--daemon' doesn't allow an argument"),
            (
                &["--print"],
                "option '--print' is ambiguous; possibilities: '--print-capabilities' '--print-states'",
            ),
        ] {
            assert_eq!(read(false, line).unwrap_err().to_string(), error);
        }
    }
}
