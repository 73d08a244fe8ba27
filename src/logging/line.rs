//! One record as one line.

use std::io::{self, Write};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use serde::Serializer;
use serde::ser::SerializeMap;

/// The priority of syslog, as `systemd-journal-logger` has it.
pub(super) const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug => 6,
        Level::Trace => 7,
    }
}

/// Neither ends a line nor steers a terminal, nor turns the direction of what follows.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_harmless(out: &mut impl Write, text: &str) -> io::Result<()> {
    for piece in text.split_inclusive(|c| !is_harmless(c)) {
        match piece.chars().next_back().filter(|c| !is_harmless(*c)) {
            None => out.write_all(piece.as_bytes())?,
            Some(last) => {
                let before = piece.strip_suffix(last).unwrap_or_default();
                write!(out, "{before}{}", last.escape_default())?;
            }
        }
    }
    Ok(())
}

/// `[time LEVEL target] message key=value`, as people read it. The level is left out where the journal has it.
pub(super) fn text(
    out: &mut impl Write,
    time: Option<&dyn std::fmt::Display>,
    record: &Record<'_>,
) -> io::Result<()> {
    match time {
        Some(time) => write!(out, "[{time} {:<5} {}] ", record.level(), record.target())?,
        None => write!(out, "{}: ", record.target())?,
    }
    write_harmless(out, &record.args().to_string())?;
    let mut fields = TextFields(&mut *out, Ok(()));
    let _told = record.key_values().visit(&mut fields);
    fields.1?;
    out.write_all(b"\n")
}

struct TextFields<'a, W: Write>(&'a mut W, io::Result<()>);

impl<'kvs, W: Write> VisitSource<'kvs> for TextFields<'_, W> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let plain = !value.is_empty()
            && value.chars().all(|c| is_harmless(c) && !matches!(c, ' ' | '"' | '\\' | '='));
        let value = if plain { value } else { format!("{value:?}") };
        self.1 = write!(self.0, " {key}=").and_then(|()| write_harmless(self.0, &value));
        self.1.as_ref().map_err(|_| Error::msg("not written")).copied()
    }
}

/// An object with `time`, `level`, `target`, `message` and the fields.
pub(super) fn json(out: &mut impl Write, time: &str, record: &Record<'_>) -> io::Result<()> {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("time", time)?;
    object.serialize_entry("level", &level)?;
    object.serialize_entry("target", record.target())?;
    object.serialize_entry("message", &record.args().to_string())?;
    let _told = record.key_values().visit(&mut JsonFields(&mut object));
    object.end()?;
    line.push(b'\n');
    out.write_all(&line)
}

struct JsonFields<'a, M: SerializeMap>(&'a mut M);

impl<'kvs, M: SerializeMap> VisitSource<'kvs> for JsonFields<'_, M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let written = if let Some(number) = value.to_u64() {
            self.0.serialize_entry(key.as_str(), &number)
        } else if let Some(number) = value.to_i64() {
            self.0.serialize_entry(key.as_str(), &number)
        } else if let Some(truth) = value.to_bool() {
            self.0.serialize_entry(key.as_str(), &truth)
        } else {
            self.0.serialize_entry(key.as_str(), &value.to_string())
        };
        written.map_err(|_| Error::msg("not written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, JSON, and how the journal has it where it takes lines.
    fn lines(message: &str, fields: &[(&str, &str)]) -> [String; 3] {
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        let [plain, object, journal] = &mut found;
        let args = format_args!("{message}");
        let mut record = Record::builder();
        let fields: Vec<(&str, Value<'_>)> = fields.iter().map(|(k, v)| (*k, Value::from(*v))).collect();
        let record = record.level(Level::Warn).target("vtpmd::tree").key_values(&fields).args(args).build();
        text(plain, Some(&"then"), &record).unwrap();
        json(object, "then", &record).unwrap();
        text(journal, None, &record).unwrap();
        found.map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn a_record_has_time_level_target_message_and_fields() {
        let [text, json, journal] = lines("it is so", &[("instance", "alice"), ("why", "two words")]);
        assert_eq!(text, "[then WARN  vtpmd::tree] it is so instance=alice why=\"two words\"\n");
        assert_eq!(journal, "vtpmd::tree: it is so instance=alice why=\"two words\"\n");
        assert_eq!(
            json,
            "{\"time\":\"then\",\"level\":\"warn\",\"target\":\"vtpmd::tree\",\"message\":\"it is so\",\"instance\":\"alice\",\"why\":\"two words\"}\n"
        );
    }

    #[test]
    fn nobody_ends_a_line_or_steers_a_terminal() {
        let evil = "x\n[now ERROR vtpmd] forged\r\u{1b}[2J\u{9b}1m\u{2028}\u{202e}\0 y";
        for line in lines(evil, &[("reason", evil), ("plain", "a\"b=c\\")]) {
            let rest = line.strip_suffix('\n').unwrap();
            assert!(rest.chars().all(is_harmless) || line.starts_with('{'), "{line:?}");
            assert_eq!(rest.lines().count(), 1, "{line:?}");
            assert!(!rest.contains(['\n', '\r', '\u{1b}', '\0']), "{line:?}");
        }
        let [text, json, _] = lines(evil, &[("reason", evil), ("plain", "a\"b=c\\")]);
        assert!(
            text.contains(r"x\n[now ERROR vtpmd] forged\r\u{1b}[2J\u{9b}1m\u{2028}\u{202e}\u{0} y"),
            "{text}"
        );
        assert!(text.contains(r#" plain="a\"b=c\\""#), "{text}");
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((object["message"].as_str(), object["reason"].as_str()), (Some(evil), Some(evil)));
    }

    #[test]
    fn numbers_are_numbers_in_json() {
        let fields = [("count", Value::from(7u64)), ("below", Value::from(-7i64)), ("is", Value::from(true))];
        let record = Record::builder().key_values(&fields).args(format_args!("")).build();
        let mut line = Vec::new();
        json(&mut line, "then", &record).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&object["count"], &object["below"], &object["is"]),
            (&7.into(), &(-7).into(), &true.into())
        );
    }
}
